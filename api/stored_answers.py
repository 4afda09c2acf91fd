"""Which answers the cache holds, asked from the event loop and for no longer than the cache's timeout."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import redis.asyncio
import structlog
from redis.exceptions import RedisError

from dspy_jobs import names
from dspy_jobs.redis_url import cache_url
from dspy_jobs.settings import Settings
from dspy_jobs.store import connect_async

T = TypeVar("T")

_log = structlog.get_logger("api")


class StoredAnswers:
    """The cache's Redis as the API uses it: it reads no answer, only whether it is there, and how full it is."""

    def __init__(self, settings: Settings) -> None:
        self._seconds = settings.cache.timeout_seconds
        self._lifetime = settings.cache.redis_seconds
        self._redis: redis.asyncio.Redis = connect_async(cache_url(settings), self._seconds)

    async def find(self, keys: Sequence[str], max_age_seconds: float | None) -> set[str] | None:
        """Those of the keys with an answer that is no older; None if the cache cannot be asked."""
        by_name = dict(zip(map(names.cache_entry, keys), keys, strict=True))
        return await self.ask(lambda _: self._find(by_name, max_age_seconds))

    async def ask(self, question: Callable[[redis.asyncio.Redis], Awaitable[T]]) -> T | None:
        """What the cache's Redis answers; None if it cannot be asked."""
        try:
            async with asyncio.timeout(self._seconds):
                return await question(self._redis)
        except (RedisError, OSError, TimeoutError) as error:
            _log.warning("cache_unavailable", error=str(error) or type(error).__name__)
            return None

    async def _find(self, keys: dict[str, str], max_age_seconds: float | None) -> set[str]:
        # Most batches are all new or all known, and one number says so; asking of each key costs many times that.
        number = await self._redis.exists(*keys)
        if number == 0:
            return set()
        if number == len(keys) and max_age_seconds is None:
            return set(keys.values())
        async with self._redis.pipeline(transaction=False) as pipe:
            for name in keys:
                pipe.pttl(name)
            left = await pipe.execute()
        # An answer is given its whole life when it is made: what is left of it tells its age.
        least = 0 if max_age_seconds is None else max(0, (self._lifetime - max_age_seconds) * 1000)
        return {key for key, ms in zip(keys.values(), left, strict=True) if ms > least}

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()
