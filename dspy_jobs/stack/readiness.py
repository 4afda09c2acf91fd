"""When a stack is up: every part that serves HTTP answers 200 and every worker has announced itself."""

from __future__ import annotations

import asyncio
import time

import httpx
import redis

from dspy_jobs import names
from dspy_jobs.redis_url import redis_url
from dspy_jobs.settings import Settings
from dspy_jobs.stack.parts import Part

#: Seconds between looks.
_LOOK_SECONDS = 0.05


async def until_up(parts: list[Part], settings: Settings) -> None:
    """Return once all these parts, started just now, do their work."""
    # A worker that was killed before may still have a lease, but none that is renewed from now on.
    renewed = (time.time() + settings.worker.lease_seconds) * 1000
    workers = sum(part.workers for part in parts)
    addresses = [part.health_url for part in parts if part.health_url]
    # Proxies of the environment must not stand between the stack and its own processes.
    async with httpx.AsyncClient(timeout=2, trust_env=False) as client:
        with redis.Redis.from_url(redis_url(settings), socket_timeout=2) as ledger:
            while _workers(ledger, renewed) < workers or not await _all_answer(client, addresses):  # noqa: ASYNC110
                await asyncio.sleep(_LOOK_SECONDS)


def _workers(ledger: redis.Redis, leased_until: float) -> int:
    """How many have a lease that lasts longer than that."""
    try:
        return int(ledger.zcount(names.WORKERS, leased_until, "+inf"))
    except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError):
        return 0


async def _all_answer(client: httpx.AsyncClient, addresses: list[str]) -> bool:
    return all([await _answers(client, address) for address in addresses])


async def _answers(client: httpx.AsyncClient, address: str) -> bool:
    try:
        return (await client.get(address)).is_success
    except httpx.TransportError:
        return False
