"""One leader at a time: a key in Redis that its owner keeps renewing and anybody else only finds taken."""

from __future__ import annotations

import time
from collections.abc import Callable

import redis
import structlog
from redis.exceptions import LockError, RedisError

log = structlog.get_logger("autoscaler")

#: Seconds a lease lasts without renewal; a second instance takes over after at most this long.
LEASE_SECONDS = 15.0
#: Renewals in the time of a lease, so that a few may fail.
_RENEWALS = 5


class Lease:
    """A lease under one name. The owner's own clock ends it before Redis does, so two never hold it at once."""

    def __init__(
        self,
        client: redis.Redis,
        name: str,
        seconds: float = LEASE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lock = client.lock(name, timeout=seconds, thread_local=False)
        self._seconds, self._clock = seconds, clock
        self._until = self._next = float("-inf")

    @property
    def is_held(self) -> bool:
        """Whether it is ours at this moment, by our own clock."""
        return self._clock() < self._until

    def keep(self) -> bool:
        """Take or renew it, as far as it is time to; whether it is ours. To be called several times a second."""
        if self._clock() >= self._next:
            self._next = self._clock() + self._seconds / _RENEWALS
            self._try()
        return self.is_held

    def give_up(self) -> None:
        """Let the next one have it at once."""
        was_held, self._until = self.is_held, float("-inf")
        if was_held:
            try:
                self._lock.release()
            except (LockError, RedisError) as error:
                log.warning("lease_not_given_up", error=str(error))

    def _try(self) -> None:
        # Counted from before the command: it may have been on its way for a while.
        began = self._clock()
        try:
            is_ours = self._renewed() or bool(self._lock.acquire(blocking=False))
        except RedisError as error:
            log.warning("redis_unavailable", error=str(error))
            return
        self._until = began + self._seconds if is_ours else float("-inf")

    def _renewed(self) -> bool:
        """Renew it if the key still has our token; a Redis that lost its data has nobody's."""
        if self._until == float("-inf"):
            return False
        try:
            return bool(self._lock.reacquire())
        except LockError:
            return False
