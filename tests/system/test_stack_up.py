"""`dspy-jobs up` with every real process."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import httpx
import pytest
from stack_process import BOUND, StackProcess, environ_for, running_stack, still_alive

from dspy_jobs.waiting import wait_until

pytestmark = pytest.mark.system


def test_a_restart_keeps_results_and_queued_jobs(tmp_path: Path) -> None:
    """After a stop and a new start a finished result is still there, and jobs that waited run to their end."""
    environ = environ_for(tmp_path, DSPY_JOBS_WORKER_CONCURRENCY="1")
    with running_stack(environ, "--no-flower") as first:
        first.wait_for("ready")
        with first.client() as client:
            assert client.get("/ready").status_code == 200
            finished = _ended(client, _submit(client, "sandbox"))
            waiting = [_submit(client, "sandbox-slow") for _ in range(15)]
            assert _read(client, waiting[-1])["status"] == "queued"
        pids = first.pids()
        first.signal(signal.SIGINT)
        assert first.exit_code() == 0
    assert not still_alive(pids)
    with running_stack(environ | {"DSPY_JOBS_WORKER_CONCURRENCY": "15"}, "--no-flower") as second:
        second.wait_for("ready")
        with second.client() as client:
            assert _read(client, finished["id"])["output"] == finished["output"]
            assert {_ended(client, job)["status"] for job in waiting} == {"succeeded"}
        pids = second.pids()
        second.signal(signal.SIGTERM)
        assert second.exit_code() == 0
    assert not still_alive(pids)


def test_two_stacks_run_side_by_side(tmp_path: Path) -> None:
    """Stacks with ports and data folders of their own do not know of each other's jobs; one has two workers, Flower."""
    with (
        running_stack(environ_for(tmp_path / "one"), "--workers", "2") as one,
        running_stack(environ_for(tmp_path / "two"), "--no-flower") as two,
    ):
        job = _job_of(one)
        assert job["status"] == "succeeded"
        assert _job_of(two)["status"] == "succeeded"
        assert len({one.wait_for("worker_ready", f"worker-{number}")["worker"] for number in (1, 2)}) == 2
        with one.client() as client, two.client() as other:
            assert client.get("/v1/queues").json()["data"][0]["workers"] == 2
            assert other.get(f"/v1/jobs/{job['id']}").status_code == 404
        flower = one.wait_for("ready")["flower"]
        assert httpx.get(f"{flower}/healthcheck", trust_env=False).status_code == 200


def _job_of(stack: StackProcess) -> dict[str, Any]:
    stack.wait_for("ready")
    with stack.client() as client:
        return _ended(client, _submit(client, "sandbox"))


def _submit(client: httpx.Client, model: str) -> str:
    body = {"program": "qa", "model": model, "inputs": {"question": "Why is the sky blue?"}}
    answer = client.post("/v1/jobs", json=body)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def _read(client: httpx.Client, job: str) -> dict[str, Any]:
    answer = client.get(f"/v1/jobs/{job}")
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def _ended(client: httpx.Client, job: str) -> dict[str, Any]:
    assert wait_until(lambda: _read(client, job)["status"] not in ("queued", "running"), BOUND, every=0.05)
    return _read(client, job)
