"""One wrong value in Redis, as of another release or a slip by hand: what else there is is told all the same."""

from __future__ import annotations

import httpx
import pytest

from dspy_jobs import names
from dspy_jobs.store import SyncStore
from dspy_jobs.store.operations import renew_worker
from tests.integration.played_worker import MODEL

QUEUE = names.queue(MODEL)


@pytest.mark.parametrize(
    "description", [b'{"concurrency":"x","queues":5}', b"[", b"5", b'{"concurrency":null,"draining":null}']
)
def test_a_worker_whose_description_cannot_be_read_lives_all_the_same(
    api: httpx.Client, store: SyncStore, description: bytes
) -> None:
    """It is shown, without what it says."""
    store.run(renew_worker("odd", 30, description, [QUEUE]))
    metrics = api.get("/metrics")
    assert metrics.status_code == 200
    assert f'dspy_workers{{queue="{QUEUE}"}} 1.0' in metrics.text
    assert "dspy_worker_slots 0.0" in metrics.text
    assert api.get("/v1/autoscale").status_code == 200
    (worker,) = api.get("/health").json()["components"]["workers"]["workers"]
    assert (worker["id"], worker["concurrency"]) == ("odd", 0)


@pytest.mark.parametrize("value", ["1.5", "x", ""])
def test_a_number_that_is_none_costs_itself_alone(api: httpx.Client, store: SyncStore, value: str) -> None:
    """Of measures, of totals and of budgets."""
    measure = f"dspy_queue_wait_seconds|{MODEL}"
    store.redis.hset(names.METRICS, mapping={f"{measure}|0.05": value, f"{measure}|nan": 7, f"{measure}|0.5": 3})
    store.redis.hset(names.COUNTED, mapping={f"error|{MODEL}|timeout": value, f"attempts|{MODEL}|retried": 4})
    store.redis.hset(names.BUDGETS, mapping={"*|day": value})
    metrics = api.get("/metrics")
    assert metrics.status_code == 200
    assert f'dspy_queue_wait_seconds_count{{model="{MODEL}"}} 3.0' in metrics.text
    assert f'dspy_attempts_total{{model="{MODEL}",outcome="retried"}} 4.0' in metrics.text
    assert api.get("/health").status_code in (200, 503)
