"""Bugs that jobs and requests meet are reported with what tells which they were; other people's faults are not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from api import jobs
from dspy_jobs import error_reports, telemetry
from dspy_jobs.settings import Settings
from dspy_jobs.store import SyncStore
from tests.integration.test_traces import served
from tests.integration.test_worker_attempts import Bench
from tests.sentry import Sentry, local_sentry
from worker.attempt import Runner

CONFIG = """
[sentry]
dsn_env = "TEST_DSN"
[programs.crash]
factory = "tests.programs:crash"
[programs.exits]
factory = "tests.programs:exits"
[programs.qa]
signature = "question -> answer"
[models.down]
model = "openai/sandbox-down"
base_url = "BASE"
"""
PRIVATE = "what only the caller may know"


@pytest.fixture
def sentry(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sentry]:
    """A local Sentry that the configuration names."""
    with local_sentry() as server:
        monkeypatch.setenv("TEST_DSN", server.dsn)
        yield server
        error_reports.stop()
        telemetry.stop()


@pytest.fixture
def bench(write_config: Callable[..., Settings], store: SyncStore, sandbox_url: str, sentry: Sentry) -> Bench:
    """A worker that traces and reports."""
    settings = write_config(CONFIG.replace("BASE", f"{sandbox_url}/v1") + "[tracing]\nenabled = true\n")
    telemetry.start(settings, "worker", InMemorySpanExporter())
    error_reports.start(settings, "worker")
    return Bench(settings, store)


def test_a_program_s_bug_is_reported_with_its_job(bench: Bench, sentry: Sentry) -> None:
    """Ids, names, the place in the program and the trace are there; the input is not."""
    job = bench.run("crash", inputs={"text": PRIVATE}, request_id="r-1", metadata={"who": PRIVATE})
    assert job.status == "failed"
    error_reports.stop()
    (event,) = sentry.events
    assert event["tags"].items() >= {
        "event": "program_error", "job_id": job.id, "program": "crash", "model": "sandbox", "attempt": "1",
        "request_id": "r-1",
    }.items()  # fmt: skip
    assert len(event["tags"]["trace_id"]) == 32
    assert event["contexts"]["trace"]["trace_id"] == event["tags"]["trace_id"]
    (raised,) = event["exception"]["values"]
    assert (raised["type"], raised["stacktrace"]["frames"][-1]["function"]) == ("RuntimeError", "fail")
    assert PRIVATE.encode() not in b"".join(sentry.bodies)


def test_a_program_that_ends_the_process_is_reported(bench: Bench, sentry: Sentry) -> None:
    """`sys.exit` in a program is a bug of its."""
    bench.run("exits", inputs={"text": "t"})
    error_reports.stop()
    assert [event["exception"]["values"][0]["type"] for event in sentry.events] == ["SystemExit"]


def test_other_peoples_faults_are_no_bugs(bench: Bench, sentry: Sentry) -> None:
    """A provider that fails and inputs that do not fit are told to the caller alone."""
    failed = bench.submit("qa", model="down", inputs={"question": "q"})
    bench.chunks.run([failed])
    bench.run("qa", inputs={"question": 7})
    error_reports.stop()
    assert sentry.events == []


def test_a_mistake_of_the_worker_s_is_reported(bench: Bench, sentry: Sentry, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job fails, and its report says what broke."""

    def breaks(*_: Any) -> Any:
        raise LookupError(PRIVATE)

    monkeypatch.setattr(Runner, "context_for", breaks)
    job = bench.run("crash", inputs={"text": "t"})
    error_reports.stop()
    (event,) = sentry.events
    assert (event["tags"]["event"], event["tags"]["job_id"]) == ("attempt_broke", job.id)
    assert PRIVATE.encode() not in b"".join(sentry.bodies)


def test_a_request_that_breaks_is_reported(
    write_config: Callable[..., Settings], sentry: Sentry, sandbox_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its id and its route, and neither headers nor query."""

    def breaks(*_: Any) -> Any:
        raise LookupError(PRIVATE)

    monkeypatch.setattr(jobs, "is_job_id", breaks)
    with served(write_config(CONFIG.replace("BASE", f"{sandbox_url}/v1"))) as api:
        headers = {"x-request-id": "r-1", "authorization": PRIVATE}
        answer: httpx.Response = api.get("/v1/jobs/job_0", headers=headers)
    assert answer.status_code == 500
    error_reports.stop()
    (event,) = sentry.events
    assert event["tags"] == {
        "event": "request_failed", "method": "GET", "process": "api", "request_id": "r-1",
        "route": "/v1/jobs/{job_id}",
    }  # fmt: skip
    assert PRIVATE.encode() not in b"".join(sentry.bodies)
