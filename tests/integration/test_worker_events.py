"""Which events a worker's threads note, on real runs: Flower's states must agree with the ledger's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from celery.events.state import State, Task

from dspy_jobs.names import queue
from dspy_jobs.settings import Settings
from dspy_jobs.states import WaitReason
from dspy_jobs.store import SyncStore, gates, operations
from tests.integration.test_worker_attempts import CONFIG, Bench

SECRET = "the patient's name"

_DOWN = '\n[models.down]\nmodel = "openai/sandbox-down"\nbase_url = "BASE"\n'


@pytest.fixture
def bench(write_config: Callable[..., Settings], store: SyncStore, sandbox_url: str) -> Bench:
    """A worker with fixture programs and a model that is down, and a listener to its events."""
    bench = Bench(write_config(CONFIG + _DOWN.replace("BASE", f"{sandbox_url}/v1")), store)
    bench.chunks.witnesses.events.is_wanted = True
    return bench


def _tasks(bench: Bench) -> dict[str, Task]:
    """What a listener knows."""
    state = State()
    for event in bench.chunks.witnesses.events.take(10_000):
        assert SECRET not in str(event)
        state.event({"hostname": "worker@here", "clock": 0, "local_received": event["timestamp"], **event})
    return dict(state.tasks.items())


def _submit(bench: Bench, program: str, **request: Any) -> str:
    return bench.submit(program, inputs={"text": SECRET}, **request)


def test_a_message_of_many_ends(bench: Bench) -> None:
    """Each job of a chunk has its own entry under its id, which says what the ledger says and how it was answered."""
    ids = [_submit(bench, "echo"), _submit(bench, "crash"), _submit(bench, "echo"), _submit(bench, "leak")]
    bench.chunks.run(ids)
    bench.chunks.run([_submit(bench, "echo")])
    tasks = _tasks(bench)
    chunk = tasks.pop(f"chunk-4-{ids[0]}")
    assert chunk.result == "{'jobs': 4, 'handed_back': 0}"
    assert {child.uuid for child in chunk.children} == set(ids)
    states = {"succeeded": "SUCCESS", "failed": "FAILURE"}
    assert {job_id: task.state for job_id, task in tasks.items()} == {
        job_id: states[bench.read(job_id).status] for job_id in tasks
    }
    assert tasks[ids[0]].result == "{'cache': 'miss', 'attempt': 1, 'model': 'sandbox'}"
    assert tasks[ids[2]].result == "{'cache': 'hit'}"
    assert tasks[ids[1]].exception == "program_error: The program raised an error"


def test_a_retried_job(bench: Bench) -> None:
    """Between attempts it shows RETRY and why; after the last one FAILURE."""
    job_id = bench.submit("reasoned", "down", max_attempts=2, inputs={"question": SECRET})
    bench.chunks.run([job_id])
    task = _tasks(bench)[job_id]
    assert (task.state, task.exception) == ("RETRY", "server: The provider failed")
    bench.store.run(operations.wake_delayed(now_ms=int(bench.read(job_id).fields["until"])))
    bench.chunks.run([job_id])
    task = _tasks(bench)[job_id]
    assert task.state == "FAILURE"
    assert task.kwargs == {"model": "down", "program": "reasoned", "attempt": 2}
    assert bench.read(job_id).status == "failed"


def test_a_job_that_is_handed_back_waits(bench: Bench) -> None:
    """Behind a closed gate jobs are received and not started, as the ledger says that they are queued."""
    ids = [_submit(bench, "echo") for _ in range(2)]
    bench.store.run(gates.close_gate(queue("sandbox"), WaitReason.PAUSED))
    bench.chunks.run(ids)
    tasks = _tasks(bench)
    assert tasks[f"chunk-2-{ids[0]}"].result == "{'jobs': 2, 'handed_back': 2}"
    assert {tasks[job_id].state for job_id in ids} == {"RECEIVED"}
