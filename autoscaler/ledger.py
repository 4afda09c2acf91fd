"""The same account of the queues that the API gives, read from Redis itself, so that no API has to run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import redis
from redis.exceptions import RedisError

from autoscaler.sources import ReadingError
from dspy_jobs.demand import Demand
from dspy_jobs.settings import Settings
from dspy_jobs.store import SyncStore
from dspy_jobs.store.demand import read_demand


class DemandDocument:
    """What `GET /v1/autoscale` would answer now."""

    def __init__(self, client: redis.Redis, settings: Settings) -> None:
        self._store, self._settings = SyncStore(client), settings

    def fetch(self) -> Mapping[str, Any]:
        """The document now; raises ReadingError."""
        try:
            return document_of(self._store.run(read_demand(self._settings)), self._settings.worker.concurrency)
        except RedisError as error:
            raise ReadingError(f"Redis: {error}") from error


def document_of(demand: Demand, concurrency: int) -> Mapping[str, Any]:
    """A demand as JSON has it."""
    return {
        "work": demand.work,
        "work_slots": demand.work_slots,
        "waiting": demand.waiting,
        "inflight": demand.inflight,
        "draining": demand.draining,
        "oldest_wait_seconds": demand.oldest_wait_seconds,
        "service_seconds": demand.service_seconds,
        "concurrency": concurrency,
        "queues": {
            queue.load.name: {"waiting": queue.waiting, "inflight": queue.load.running, "work_slots": queue.work_slots}
            for queue in demand.queues
        },
    }
