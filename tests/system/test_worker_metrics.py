"""What real workers say of themselves on ports of their own, and what stays of it when they are scaled away."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import httpx
import orjson
import pytest

from dspy_jobs import names
from dspy_jobs.waiting import wait_until
from tests.system.fleet import Fleet

pytestmark = pytest.mark.system

RUNS = "dspy_prediction_duration_seconds|sleepy|sandbox|"


def _client(fleet: Fleet, pid: int) -> httpx.Client:
    """A client of the port that the worker has told of."""
    described = orjson.loads(fleet.store.redis.get(names.worker(fleet.worker_id(pid))) or b"{}")
    return httpx.Client(base_url=f"http://{described['metrics_host']}:{described['metrics_port']}", timeout=10)


def _sums(fleet: Fleet) -> dict[str, int]:
    return {field.decode(): int(n) for field, n in fleet.store.redis.hgetall(names.METRICS).items()}


def _runs(sums: Mapping[str, int]) -> int:
    return sum(n for field, n in sums.items() if field.startswith(RUNS) and not field.endswith("|sum"))


def test_what_workers_measured_outlives_them(fleet: Fleet) -> None:
    """One of two is told to end in the middle of a batch: no sum ever falls, and in the end every run is counted."""
    fleet.environ["DSPY_JOBS_WORKER_METRICS_PORT"] = "0"
    first, second = fleet.start(), fleet.start()
    batch = fleet.submit_batch("sleepy", [{"text": "0.1"}] * 400)
    with _client(fleet, first.pid) as port:
        assert wait_until(lambda: port.get("/health").json()["phase"] == "ready", 20)
        assert wait_until(lambda: "\ndspy_worker_busy_threads 8.0\n" in port.get("/metrics").text, 20)
        assert port.get("/health").status_code == 200
    assert fleet.batch(batch)["status"] == "in_progress"
    first.terminate()
    seen = [_sums(fleet)]

    def ended() -> bool:
        seen.append(_sums(fleet))
        return fleet.batch(batch)["status"] == "ended"

    assert wait_until(ended, 60)
    falls = [field for before, now in pairwise(seen) for field, number in before.items() if now.get(field, 0) < number]
    assert not falls
    assert first.wait(20) == 0
    second.terminate()
    assert second.wait(20) == 0
    assert _runs(_sums(fleet)) == fleet.count(batch, "succeeded") == 400
