"""One leader at a time: a key in Redis that its owner keeps renewing and anybody else only finds taken."""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Callable
from typing import Any

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
        place: str = "",
    ) -> None:
        """``place`` is where its owner's workers can be seen, for others to compare with their own; empty: nowhere."""
        self._client: Any = client  # redis-py's types are those of a client that may decode its answers
        self._lock = client.lock(name, timeout=seconds, thread_local=False)
        self._name, self._seconds, self._clock, self._place = name, seconds, clock, place
        self._until = self._next = float("-inf")
        self._other: str | None = None

    @property
    def is_held(self) -> bool:
        """Whether it is ours at this moment, by our own clock."""
        return self._clock() < self._until

    @property
    def leader(self) -> str | None:
        """The place of another who has it, as found last; None if nobody has, or Redis could not be asked."""
        return None if self._other is None else self._other.rpartition(" ")[0]

    @property
    def holder(self) -> str | None:
        """Who that is, for people: host and process number."""
        if self._other is None:
            return None
        host, _, rest = self._other.rpartition(" ")[2].partition("/")
        return f"{host} process {rest.partition('/')[0]}" if rest else self._other

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
        began, self._other = self._clock(), None
        try:
            is_ours = self._renewed() or bool(self._lock.acquire(blocking=False, token=self._token()))
            self._until = began + self._seconds if is_ours else float("-inf")
            self._other = None if is_ours else self._read()
        except RedisError as error:
            log.warning("redis_unavailable", error=str(error))

    def _token(self) -> str:
        return f"{self._place} {socket.gethostname()}/{os.getpid()}/{uuid.uuid4()}"

    def _read(self) -> str | None:
        token: bytes | None = self._client.get(self._name)
        return None if token is None else token.decode(errors="replace")

    def _renewed(self) -> bool:
        """Renew it if the key still has our token; a Redis that lost its data has nobody's."""
        if self._until == float("-inf"):
            return False
        try:
            return bool(self._lock.reacquire())
        except LockError:
            return False


class NoLease:
    """The leadership of one who changes nothing: it takes no lease from anybody and needs none."""

    is_held = True
    leader = holder = None

    def keep(self) -> bool:
        """Always."""
        return True

    def give_up(self) -> None:
        """Nothing."""
