"""Submitting and polling single jobs over HTTP, against requests that do nothing behind the same middleware."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.figures import Spread, paired_ratios
from benchmarks.http_client import CONNECTIONS, Found, HttpClient
from benchmarks.options import Options
from benchmarks.report import Report, Target
from benchmarks.rig import rig
from dspy_jobs import names

REQUESTS = 4000

SUBMIT, NOOP_POST = "submit a job", "POST that does nothing"
PLAIN_POST, PLAIN_GET = "POST, an ordinary FastAPI route", "GET, an ordinary FastAPI route"
POLL_WAITING, POLL_ENDED, NOOP_GET = "poll a waiting job", "poll an ended job", "GET that does nothing"

_JOB = {"program": "qa", "inputs": {"question": "What is 1 plus 2?"}}


@dataclass(frozen=True, slots=True)
class Turn:
    """A load and the processor time the API needed a request."""

    found: Found
    cpu_ms: float


def measure(options: Options) -> list[Report]:
    """One API process, 32 connections; contenders take turns."""
    with rig() as here:
        worker = here.start_worker()
        api, port = here.start_api("benchmarks.noop_api")
        client = HttpClient(here, port)
        ended = client.post_job(_JOB, 1, "/v1/predict").body["id"]
        # From here on nobody runs jobs, so that only the API is measured and jobs keep waiting.
        worker.stop()
        waiting = client.post_job(_JOB, 1).body["id"]
        requests = {
            NOOP_POST: ("POST", "/noop"),
            PLAIN_POST: ("POST", "/fastapi"),
            SUBMIT: ("POST", "/v1/jobs"),
            NOOP_GET: ("GET", "/noop/1"),
            PLAIN_GET: ("GET", "/fastapi/1"),
            POLL_WAITING: ("GET", f"/v1/jobs/{waiting}"),
            POLL_ENDED: ("GET", f"/v1/jobs/{ended}"),
        }
        count = options.size(REQUESTS)
        found: dict[str, list[Turn]] = {name: [] for name in requests}
        for number in range(-1, options.rounds):
            if number > 0 and options.time_is_over:
                break
            for name, (method, path) in requests.items():
                before = api.cpu_seconds()
                one = client.post_job(_JOB, count, path) if method == "POST" else client.load(method, path, count)
                cpu_ms = (api.cpu_seconds() - before) / count * 1000
                # The first turn of all warms up.
                if number >= 0:
                    found[name].append(Turn(one, cpu_ms))
        assert here.store.redis.llen(names.queue_list(names.queue("sandbox"), 3)), "nothing was queued"
    return [_report(found)]


def _report(found: dict[str, list[Turn]]) -> Report:
    report = Report(
        f"Single requests, one API process, {CONNECTIONS} connections",
        ["request", "requests/s", "p50 ms", "p99 ms", "CPU ms of the API"],
    )
    for name, turns in found.items():
        rates = [turn.found.rate for turn in turns]
        p50, p99 = (Spread.of([getattr(t.found, figure) for t in turns]) for figure in ("p50_ms", "p99_ms"))
        report.rows.append(
            [name, Spread.of(rates).text(), p50.text(1), p99.text(1), Spread.of([t.cpu_ms for t in turns]).text(2)]
        )
        report.samples[name] = rates
    rate = report.samples
    report.targets = [
        Target("submit against a POST that does nothing", paired_ratios(rate[SUBMIT], rate[NOOP_POST]), 0.4, unit="×"),
        Target("poll (waiting) against such a GET", paired_ratios(rate[POLL_WAITING], rate[NOOP_GET]), 0.6, unit="×"),
        Target("poll (ended) against such a GET", paired_ratios(rate[POLL_ENDED], rate[NOOP_GET]), 0.6, unit="×"),
    ]
    plain = [
        (SUBMIT, PLAIN_POST),
        (POLL_WAITING, PLAIN_GET),
        (POLL_ENDED, PLAIN_GET),
    ]
    found_plain = [f"{ours}: {paired_ratios(rate[ours], rate[theirs]).text(2)}×" for ours, theirs in plain]
    report.notes.append("against routes as FastAPI's tutorial writes them: " + "; ".join(found_plain))
    return report
