"""What spans cost the thread that makes them: processor time beside that of a job with one model call."""

from __future__ import annotations

import time
from typing import Any, cast

from dspy.lm15 import Message, Request, Response

from benchmarks.figures import Spread
from benchmarks.options import Options
from benchmarks.report import Report
from dspy_jobs import telemetry
from dspy_jobs.outcomes import Attempt
from dspy_jobs.settings import ModelSettings, Settings, TracingSettings
from dspy_jobs.store.records import Claim, Taken
from worker.attempt import Settlement
from worker.call_spans import Destination, call_answered
from worker.reuse import Job
from worker.spans import attempt_ended, attempt_span
from worker.tokens import Tokens

JOBS = 10_000

_TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-"
#: Nobody listens there: spans are made, gathered and dropped.
_NOWHERE = "http://127.0.0.1:9"


def measure(options: Options) -> list[Report]:
    """Spans of jobs that are not traced, traced and not kept, and kept."""
    samples: dict[str, list[float]] = {"tracing off": [], "not kept": [], "kept": []}
    for _ in options.each_round():
        telemetry.stop(0)
        samples["tracing off"].append(_microseconds("00", options))
        telemetry.start(Settings(tracing=TracingSettings(enabled=True, endpoint=_NOWHERE)), "benchmark")
        samples["not kept"].append(_microseconds("00", options))
        samples["kept"].append(_microseconds("01", options))
    telemetry.stop(0)
    report = Report("Spans of a job with one model call", ["", "µs of a processor"])
    report.rows = [[name, Spread.of(taken).text(1)] for name, taken in samples.items()]
    report.samples = dict(samples)
    return [report]


def _microseconds(flags: str, options: Options) -> float:
    jobs = options.size(JOBS)
    destination = Destination.of("m", ModelSettings(model="openai/m", base_url=_NOWHERE), "openai")
    request = Request(model="openai/m", messages=(Message.user("?"),))
    response = cast("Response", _Answer())
    claim = Claim("job_1", 1, 0, 0, "", "qa", "m", {}, 5, 0, 0, (), False)
    job = Job(Taken("job_1", 0, "", "qa", "m", "", "", b"", 0), {"traceparent": _TRACE + flags}, None)
    settlement = Settlement(cast("Any", None), "succeeded", Attempt(1, "m", 0, 0))
    began = time.thread_time()
    for _ in range(jobs):
        with attempt_span(claim, job, "w") as attempt:
            with destination.call(request, attempt) as call:
                call_answered(call, response, Tokens(10, 10), 5)
            attempt_ended(attempt, settlement)
    return (time.thread_time() - began) / jobs * 1e6


class _Answer:
    """As much of an answer as a span tells."""

    finish_reason, id, model = "stop", "1", "m"
