"""Keeps going what a process that died has left, once a second, beside the requests."""

from __future__ import annotations

import asyncio
import random

import structlog
from redis.exceptions import RedisError

from dspy_jobs import chores
from dspy_jobs.settings import Settings
from dspy_jobs.store import AsyncStore

_PAUSE_SECONDS = 1.0

_log = structlog.get_logger("api")


async def keep_house(store: AsyncStore, settings: Settings) -> None:
    """Do the chores for ever; Redis may be away for a while."""
    while True:
        # Not all processes at the same moment.
        await asyncio.sleep(_PAUSE_SECONDS * random.uniform(0.7, 1.3))  # noqa: S311
        try:
            await store.follow(chores.all_chores(settings))
        except RedisError as error:
            _log.warning("housekeeping_failed", error=type(error).__name__)
