"""Keeps going what a process that died has left, once a second, beside the requests."""

from __future__ import annotations

import asyncio
import itertools
import random
import time

import structlog
from redis.exceptions import RedisError

from dspy_jobs import chores
from dspy_jobs.settings import Settings
from dspy_jobs.store import AsyncStore

_PAUSE_SECONDS = 1.0
#: Rounds between looks for what is rarely amiss, such as a job whose message has vanished.
_RARELY = 3

_log = structlog.get_logger("api")


async def keep_house(store: AsyncStore, settings: Settings) -> None:
    """Do the chores for ever; Redis may be away for a while."""
    for round_ in itertools.count(1):
        # Not all processes at the same moment.
        await asyncio.sleep(_PAUSE_SECONDS * random.uniform(0.7, 1.3))  # noqa: S311
        try:
            await store.follow(chores.all_chores(settings))
            if round_ % _RARELY == 0:
                await store.follow(chores.rare_chores(settings, time.time_ns() // 1_000_000))
        except RedisError as error:
            _log.warning("housekeeping_failed", error=type(error).__name__)
