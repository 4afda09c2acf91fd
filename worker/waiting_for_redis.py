"""Use of Redis by threads that have something to keep: they wait while it is away."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import redis
import structlog
from redis.exceptions import BusyLoadingError, ConnectionError, OutOfMemoryError, ReadOnlyError, TimeoutError

log = structlog.get_logger("worker")

T = TypeVar("T")

#: Seconds between tries while Redis is away.
_RECONNECT_SECONDS = 0.25


def until_there(client: redis.Redis, use: Callable[[], T]) -> T:
    """Use Redis, waiting while it is away or full: what is done may be repeated, and no outcome may be lost."""
    while True:
        try:
            return use()
        except (ConnectionError, TimeoutError, OutOfMemoryError, ReadOnlyError, BusyLoadingError) as error:
            log.warning("redis_unavailable", error=str(error))
            if isinstance(error, ReadOnlyError):
                # A replica after a failover: new connections find the new primary.
                client.connection_pool.disconnect(inuse_connections=False)
            time.sleep(_RECONNECT_SECONDS)
