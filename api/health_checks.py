"""What health is judged by, read from Redis, the cache's Redis and the disk, each over a connection of its own.

A connection of its own, because those of requests may all be busy, and because that is not what is asked about.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

import orjson
from redis.exceptions import RedisError

from api.catalogue import Catalogue
from api.failures import KEEP_SECONDS, FailureWatch, RecentFailures
from api.looks import Look
from dspy_jobs import names
from dspy_jobs.budgets import budget_views
from dspy_jobs.costs import book_day, book_month
from dspy_jobs.disk_space import DiskSpace, disk_space
from dspy_jobs.redis_state import Complaint, RedisState, complaints_about_ledger, redis_state
from dspy_jobs.redis_url import cache_url, is_embedded, redis_url
from dspy_jobs.settings import Settings
from dspy_jobs.states import CircuitState
from dspy_jobs.store import AsyncStore, connect_async
from dspy_jobs.store.books import limits_of_spending
from dspy_jobs.store.counted import read_counted, read_fleet
from dspy_jobs.store.demand import Outstanding, read_outstanding
from dspy_jobs.stored_numbers import integers

#: Seconds for which a worker that ended without notice is shown, and how many of them are.
LOST_SECONDS, _MOST_LOST = 600, 20
#: Seconds after which a look at a server that hangs is given up, and the next one takes a new connection.
_GIVE_UP_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class LostWorker:
    """A worker whose lease ran out; nobody has heard of it since."""

    id: str
    host: str
    pid: int
    heard_at: float
    """When it last renewed its lease, by Redis's clock, in milliseconds since 1970."""


@dataclass(frozen=True, slots=True)
class Ledger:
    """The Redis of queue, jobs and results, and what it holds."""

    latency_ms: float
    server: RedisState
    outstanding: Outstanding
    circuits: Mapping[str, CircuitState]
    """By model."""
    programs: int
    """How many are described."""
    budgets: list[dict[str, Any]]
    """As `budget_views` has them."""
    lost: list[LostWorker] = field(default_factory=list)
    """Workers that ended without notice of late, the last one first."""
    failures: RecentFailures = field(default_factory=RecentFailures)


@dataclass(frozen=True, slots=True)
class CacheServer:
    """The Redis of the response cache."""

    latency_ms: float
    server: RedisState


@dataclass(frozen=True, slots=True)
class Readiness:
    """What decides whether jobs can be taken, once Redis has answered."""

    programs: int
    """How many the API knows."""
    refuses: Complaint | None
    """Why Redis stores nothing, if so."""


class HealthChecks:
    """The looks that health endpoints share."""

    def __init__(self, settings: Settings, catalogue: Catalogue) -> None:
        self._settings, self._catalogue = settings, catalogue
        self._store = AsyncStore(connect_async(redis_url(settings), _GIVE_UP_SECONDS))
        self._cache = connect_async(cache_url(settings), _GIVE_UP_SECONDS)
        self._failures = FailureWatch()
        patience = settings.api.health_seconds
        self.readiness = Look(self._readiness, patience)
        """All that the API needs to take jobs."""
        self.ledger = Look(self._ledger, patience)
        self.cache = Look(self._cache_server, patience) if settings.cache.enabled else None
        self.disk = Look(self._disk, patience) if is_embedded(settings) else None

    async def close(self) -> None:
        """Give up looks under way and close the connections."""
        looks: list[Look[Any] | None] = [self.readiness, self.ledger, self.cache, self.disk]
        await asyncio.gather(*(look.end() for look in looks if look))
        await self._store.close()
        await self._cache.aclose()

    async def watch_failures(self) -> None:
        """Remember totals now and then for ever, so that who asks for health first is told of the minutes before."""
        while True:
            with suppress(RedisError, OSError):
                await self._count_failures(KEEP_SECONDS)
            await asyncio.sleep(KEEP_SECONDS)

    async def _count_failures(self, *seconds: float) -> None:
        if self._failures.is_due(*seconds):
            self._failures.take(await self._store.run(read_counted()))

    async def _readiness(self) -> Readiness:
        complaints = complaints_about_ledger(redis_state(await self._store.redis.info()))
        stops = next((complaint for complaint in complaints if complaint.stops_work), None)
        return Readiness(len(await self._catalogue.all()), stops)

    async def _ledger(self) -> Ledger:
        began = time.perf_counter()
        seconds, _ = await self._store.redis.time()
        latency = time.perf_counter() - began
        queues = {names.queue(model): model for model in sorted(self._settings.models)}
        outstanding, fleet, _ = await asyncio.gather(
            self._store.run(read_outstanding(list(queues))),
            self._store.run(read_fleet(list(queues))),
            self._count_failures(),
        )
        today = datetime.fromtimestamp(seconds, UTC).date()
        async with self._store.redis.pipeline(transaction=False) as pipe:
            pipe.info()
            pipe.hlen(names.PROGRAMS)
            for key in (names.BUDGETS, names.spent(book_day(today)), names.spent(book_month(today))):
                pipe.hgetall(key)
            info, programs, limits, day, month = await pipe.execute()
        return Ledger(
            latency_ms=latency * 1000,
            server=redis_state(info),
            outstanding=outstanding,
            circuits={queues[queue]: state for queue, state in fleet.circuits.items()},
            programs=programs,
            budgets=self._budgets(limits, day, month, today),
            lost=await self._lost(seconds, {worker.id for worker in outstanding.workers}),
            failures=self._failures.recent(),
        )

    async def _lost(self, now: int, here: set[str]) -> list[LostWorker]:
        redis = self._store.redis
        rows: Any = await redis.zrange(
            names.LOST_WORKERS, "+inf", (now - LOST_SECONDS) * 1000, byscore=True, desc=True, offset=0, num=_MOST_LOST,
            withscores=True,
        )  # fmt: skip
        ended = [(worker.decode(), lease_end) for worker, lease_end in rows if worker.decode() not in here]
        said = await redis.mget([names.worker(worker) for worker, _ in ended]) if ended else []
        found = []
        for (worker, lease_end), raw in zip(ended, said, strict=True):
            known = orjson.loads(raw) if raw else {}
            if not known.get("draining"):
                heard_at = lease_end - 1000 * known.get("lease_seconds", 0)
                found.append(LostWorker(worker, known.get("host", ""), known.get("pid", 0), heard_at))
        return found

    def _budgets(
        self, limits: dict[bytes, bytes], day: dict[bytes, bytes], month: dict[bytes, bytes], today: date
    ) -> list[dict[str, Any]]:
        limited = _numbers(limits) or limits_of_spending(self._settings)
        views = budget_views(limited, {"day": _numbers(day), "month": _numbers(month)}, today)
        return [view for view in views if view["limit_usd"] is not None]

    async def _cache_server(self) -> CacheServer:
        began = time.perf_counter()
        info = await self._cache.info()
        return CacheServer((time.perf_counter() - began) * 1000, redis_state(info))

    async def _disk(self) -> DiskSpace:
        return await asyncio.to_thread(disk_space, self._settings.data_dir)


def _numbers(found: dict[bytes, bytes]) -> dict[str, int]:
    return integers(names.BUDGETS, found)
