"""The same account of the queues that the API gives, read from Redis itself, so that no API has to run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import redis
from redis.exceptions import RedisError

from autoscaler.sources import ReadingError
from dspy_jobs.settings import Settings
from dspy_jobs.store import SyncStore
from dspy_jobs.store.demand import read_demand
from dspy_jobs.views import demand_view


class DemandDocument:
    """What `GET /v1/autoscale` would answer now."""

    def __init__(self, client: redis.Redis, settings: Settings) -> None:
        self._store, self._settings = SyncStore(client), settings

    def fetch(self) -> Mapping[str, Any]:
        """The document now; raises ReadingError."""
        try:
            demand = self._store.run(read_demand(self._settings))
        except RedisError as error:
            raise ReadingError(f"Redis: {error}") from error
        return demand_view(demand, self._settings.worker.concurrency)
