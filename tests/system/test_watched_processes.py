"""Real processes, an API, a worker and a model, export their spans and report bugs; together they are one trace."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dspy_jobs.settings import Settings
from dspy_jobs.store import SyncStore
from tests.integration.conftest import running_api
from tests.otlp import Received, received
from tests.sandbox_account import Account
from tests.sentry import Sentry, local_sentry
from tests.system.fleet import CONFIG, Fleet
from tests.unit.http_stand_in import StandIn, stand_in

pytestmark = pytest.mark.system

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SERVER, CLIENT, PRODUCER, CONSUMER = 2, 3, 4, 5


@pytest.fixture
def collector() -> Iterator[StandIn]:
    """A collector that takes everything."""
    with stand_in() as server:
        server.answer("/v1/traces", b"", method="POST")
        yield server


@pytest.fixture
def sentry() -> Iterator[Sentry]:
    """A Sentry that takes everything."""
    with local_sentry() as server:
        yield server


def test_one_trace_over_all_processes(
    write_config: Callable[..., Settings],
    store: SyncStore,
    child_environ: dict[str, str],
    tmp_path: Path,
    sandbox_url: str,
    collector: StandIn,
    sentry: Sentry,
) -> None:
    """Two attempts of a job lie in its caller's trace, the second points at the first, and all calls below theirs.

    A bug of a program is reported with the trace it happened in.
    """
    model = Account(sandbox_url, "first=1:503").as_toml("own")
    watching = f'[tracing]\nenabled = true\nendpoint = "{collector.url}"\n[sentry]\ndsn_env = "TEST_DSN"\n'
    settings = write_config(CONFIG + model + watching + "[jobs]\nbackoff_seconds = 0.01\n")
    environ = {"DSPY_JOBS_CONFIG": str(settings.source), "TEST_DSN": sentry.dsn}
    fleet = Fleet(settings, store, {**child_environ, **environ}, tmp_path / "worker.log")
    try:
        worker = fleet.start()
        with running_api(str(settings.redis_url), **environ) as api:
            headers = {"traceparent": f"00-{TRACE}-{CALLER}-01", "prefer": "wait=60"}
            body = {"program": "qa", "model": "own", "inputs": {"question": "Why?"}}
            job = api.post("/v1/jobs", json=body, headers=headers).json()
            crash = {"program": "crash", "inputs": {"text": "t"}}
            crashed = api.post("/v1/jobs", json=crash, headers={"prefer": "wait=60"}).json()
        worker.terminate()
        assert worker.wait(20) == 0
    finally:
        fleet.end()
    assert (job["status"], job["attempt"]) == ("succeeded", 2)
    all_spans = received(collector)
    spans = [span for span in all_spans if span.trace == TRACE]
    (server,), (sent,) = of_kind(spans, SERVER), of_kind(spans, PRODUCER)
    first, second = of_kind(spans, CONSUMER)
    failed, answered = of_kind(spans, CLIENT)
    assert [span.service for span in (server, sent, first, failed)] == ["dspy-jobs-api"] * 2 + ["dspy-jobs-worker"] * 2
    parents = [span.parent for span in (server, sent, first, second, failed, answered)]
    assert parents == [CALLER, server.id, sent.id, sent.id, first.id, second.id]
    assert (first.links, second.links) == ((), (first.id,))
    assert [failed.attributes["error.type"], answered.attributes["gen_ai.operation.name"]] == ["server", "chat"]
    assert sent.attributes["messaging.message.id"] == second.attributes["messaging.message.id"] == job["id"]
    (event,) = sentry.events
    assert (event["tags"]["event"], event["tags"]["job_id"]) == ("program_error", crashed["id"])
    assert event["tags"]["trace_id"] in {span.trace for span in all_spans} - {TRACE}


def of_kind(spans: list[Received], kind: int) -> list[Received]:
    """Spans of a kind, in the order they arrived."""
    return [span for span in spans if span.kind == kind]
