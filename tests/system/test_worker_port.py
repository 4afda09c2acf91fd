"""What a real worker says of itself on a port of its own, and what stays of it."""

from __future__ import annotations

import httpx
import orjson
import pytest

from dspy_jobs import names
from dspy_jobs.waiting import wait_until
from tests.system.fleet import Fleet, measured

pytestmark = pytest.mark.system


def _own_port(fleet: Fleet, pid: int) -> httpx.Client:
    """A client of the port that the worker has told of."""
    described = orjson.loads(fleet.store.redis.get(names.worker(fleet.worker_id(pid))) or b"{}")
    return httpx.Client(base_url=f"http://{described['metrics_host']}:{described['metrics_port']}", timeout=10)


def test_a_worker_can_be_asked_and_leaves_its_sums(fleet: Fleet) -> None:
    """It consumes, is busy, stops: its port says so, and every run it measured stays when it has ended."""
    fleet.environ["DSPY_JOBS_WORKER_METRICS_PORT"] = "0"
    worker = fleet.start()
    batch = fleet.submit_batch("sleepy", [{"text": "0.5"}] * 40)
    with _own_port(fleet, worker.pid) as port:
        assert wait_until(lambda: "\ndspy_worker_busy_threads 8.0\n" in port.get("/metrics").text, 20)
        answer = port.get("/health")
        assert (answer.status_code, answer.json()["phase"], answer.json()["status"]) == (200, "ready", "healthy")
        assert fleet.count(batch, "running") > 0
        worker.terminate()
        assert wait_until(lambda: port.get("/health").json()["phase"] == "draining", 20)
    assert worker.wait(20) == 0
    runs = measured(fleet.store, "dspy_prediction_duration_seconds|sleepy|sandbox")
    assert runs == fleet.count(batch, "succeeded") >= 8
