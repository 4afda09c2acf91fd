"""Real processes, an API, a worker and a model, export their spans; together they are one trace."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dspy_jobs.settings import Settings
from dspy_jobs.store import SyncStore
from tests.integration.conftest import running_api
from tests.otlp import Received, received
from tests.sandbox_account import Account
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


def test_one_trace_over_all_processes(
    write_config: Callable[..., Settings],
    store: SyncStore,
    child_environ: dict[str, str],
    tmp_path: Path,
    sandbox_url: str,
    collector: StandIn,
) -> None:
    """Two attempts of a job lie in its caller's trace, the second points at the first, and all calls below theirs."""
    model = Account(sandbox_url, "first=1:503").as_toml("own")
    tracing = f'[tracing]\nenabled = true\nendpoint = "{collector.url}"\n'
    settings = write_config(CONFIG + model + tracing + "[jobs]\nbackoff_seconds = 0.01\n")
    environ = {**child_environ, "DSPY_JOBS_CONFIG": str(settings.source)}
    fleet = Fleet(settings, store, environ, tmp_path / "worker.log")
    try:
        worker = fleet.start()
        with running_api(str(settings.redis_url), DSPY_JOBS_CONFIG=str(settings.source)) as api:
            body = {"program": "qa", "model": "own", "inputs": {"question": "Why?"}}
            headers = {"traceparent": f"00-{TRACE}-{CALLER}-01", "prefer": "wait=60"}
            job = api.post("/v1/jobs", json=body, headers=headers).json()
        worker.terminate()
        assert worker.wait(20) == 0
    finally:
        fleet.end()
    assert (job["status"], job["attempt"]) == ("succeeded", 2)
    spans = [span for span in received(collector) if span.trace == TRACE]
    (server,), (sent,) = of_kind(spans, SERVER), of_kind(spans, PRODUCER)
    first, second = of_kind(spans, CONSUMER)
    failed, answered = of_kind(spans, CLIENT)
    assert [span.service for span in (server, sent, first, failed)] == ["dspy-jobs-api"] * 2 + ["dspy-jobs-worker"] * 2
    parents = [span.parent for span in (server, sent, first, second, failed, answered)]
    assert parents == [CALLER, server.id, sent.id, sent.id, first.id, second.id]
    assert (first.links, second.links) == ((), (first.id,))
    assert [failed.attributes["error.type"], answered.attributes["gen_ai.operation.name"]] == ["server", "chat"]
    assert sent.attributes["messaging.message.id"] == second.attributes["messaging.message.id"] == job["id"]


def of_kind(spans: list[Received], kind: int) -> list[Received]:
    """Spans of a kind, in the order they arrived."""
    return [span for span in spans if span.kind == kind]
