"""How full Redis is: the queue's, whose fullness stops the service, and the cache's."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import suppress

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from api.resources import Resources

#: Seconds the cache's Redis gets; the queue's may take as long as the whole scrape.
_CACHE_SECONDS = 1.0

#: Used and allowed bytes; 0 allowed is no limit.
Memory = tuple[int, int]


async def read_memory(resources: Resources) -> Collector:
    """Ask both for their memory. The cache may be away, for the service goes on without it."""
    queue, cache = await asyncio.gather(memory_of(resources.store.redis), _of_cache(resources))
    return MemoryCollector({"queue": queue, "cache": cache})


async def _of_cache(resources: Resources) -> Memory | None:
    with suppress(TimeoutError):
        async with asyncio.timeout(_CACHE_SECONDS):
            return await resources.answers.ask(memory_of)
    return None


async def memory_of(client: Redis) -> Memory | None:
    """A Redis's memory; None where it does not tell, as a hosted one may not."""
    try:
        info = await client.info("memory")
    except ResponseError:
        return None
    return int(info["used_memory"]), int(info.get("maxmemory", 0))


class MemoryCollector(Collector):
    """Memory by the Redis's role."""

    def __init__(self, found: Mapping[str, Memory | None]) -> None:
        self._found = {role: memory for role, memory in found.items() if memory}

    def collect(self) -> Iterator[Metric]:
        """The metric families. What is not known has no sample."""
        used = GaugeMetricFamily("dspy_redis_memory_bytes", "Memory a Redis uses.", labels=["role"])
        limit = GaugeMetricFamily("dspy_redis_memory_limit_bytes", "Memory it may use; 0: any.", labels=["role"])
        for role, (used_bytes, limit_bytes) in self._found.items():
            used.add_metric([role], used_bytes)
            limit.add_metric([role], limit_bytes)
        yield from (used, limit)
