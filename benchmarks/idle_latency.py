"""From submitting a single job to its result, over HTTP, while nothing else runs."""

from __future__ import annotations

from urllib.parse import urlsplit

import orjson

from benchmarks.figures import Spread
from benchmarks.http_client import HttpClient
from benchmarks.options import Options
from benchmarks.report import Report
from benchmarks.rig import rig

JOBS = 300

_JOB = {"program": "qa", "inputs": {"question": "What is 1 plus 2?"}}
_CALL = {"model": "sandbox", "messages": [{"role": "user", "content": "Hello"}]}


def measure(options: Options) -> list[Report]:
    """`POST /v1/predict` one after the other, with the model's own share taken off."""
    jobs = options.size(JOBS)
    rounds: dict[str, list[tuple[float, float]]] = {"submit to result": [], "the model alone": []}
    with rig() as here:
        here.start_worker()
        _, port = here.start_api()
        client, model = HttpClient(here, port), HttpClient(here, urlsplit(here.sandbox_url).port or 0)
        body, call = orjson.dumps(_JOB).decode(), orjson.dumps(_CALL).decode()
        client.load("POST", "/v1/predict", 20, 1, body=body)
        for _ in options.each_round():
            alone = model.load("POST", "/v1/chat/completions", jobs, 1, body=call)
            found = client.load("POST", "/v1/predict", jobs, 1, body=body)
            rounds["the model alone"].append((alone.p50_ms, alone.p99_ms))
            rounds["submit to result"].append((found.p50_ms, found.p99_ms))
    report = Report(f"Latency at idle: {jobs} single jobs, one after the other", ["", "p50 ms", "p99 ms"])
    pairs = zip(rounds["submit to result"], rounds["the model alone"], strict=True)
    rounds["submit to result without the model"] = [
        (whole[0] - alone[0], whole[1] - alone[0]) for whole, alone in pairs
    ]
    for name, taken in rounds.items():
        p50, p99 = (Spread.of([figures[i] for figures in taken]) for i in (0, 1))
        report.rows.append([name, p50.text(1), p99.text(1)])
    report.samples = dict(rounds)
    return [report]
