"""Books calls while their attempt runs, so that a worker that dies takes neither their cost nor their answers along."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import redis
import structlog
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from dspy_jobs.store import SyncStore
from dspy_jobs.store.books import Bill, Booked, book_late, record_calls
from dspy_jobs.store.records import Claim

log = structlog.get_logger("worker")

#: Sends one bill of an attempt, with all that it used so far (JSON).
#: None: Redis is away; the calls are booked with the next bill.
Book = Callable[[Bill, bytes], Booked | None]

#: Seconds a booking may wait for Redis, and for a connection: a job's next call waits as long.
_WAIT_SECONDS = 1.0
#: Seconds without bookings after one that failed. What was answered meanwhile is booked afterwards.
_PAUSE_SECONDS = 5.0
_CONNECTIONS = 8


class Bookkeeper:
    """Sends bills from every thread of this process. Never raises and never waits long."""

    def __init__(self, store: SyncStore, worker_id: str) -> None:
        self._store = store
        self._worker_id = worker_id
        self._closed_until = 0.0

    def book_for(self, claim: Claim) -> Book:
        """How one attempt's calls are booked."""
        return partial(self._book, claim)

    def book_late_for(self, claim: Claim) -> Callable[[Bill], None]:
        """How calls are booked that are answered after the attempt has ended."""
        return partial(self._book_late, claim)

    def _book_late(self, claim: Claim, bill: Bill) -> None:
        log.warning("call_answered_late", job_id=claim.id, attempt=claim.attempt)
        try:
            self._store.run(book_late(claim.id, bill))
        except RedisError as error:
            log.error("call_not_booked", job_id=claim.id, error=str(error))  # no bug of ours

    def _book(self, claim: Claim, bill: Bill, so_far: bytes) -> Booked | None:
        if time.monotonic() < self._closed_until:
            return None
        try:
            return self._store.run(record_calls(self._worker_id, claim, bill, so_far))
        except RedisError as error:
            self._closed_until = time.monotonic() + _PAUSE_SECONDS
            log.warning("calls_not_booked_yet", job_id=claim.id, error=str(error))
            return None


def impatient_store(url: str, observe: Callable[[float], None] = lambda _: None) -> SyncStore:
    """A store that gives up soon; `observe` is told of its round trips."""
    pool = redis.BlockingConnectionPool.from_url(
        url,
        max_connections=_CONNECTIONS,
        timeout=_WAIT_SECONDS,
        socket_timeout=_WAIT_SECONDS,
        socket_connect_timeout=_WAIT_SECONDS,
        retry=Retry(NoBackoff(), 0),
    )
    return SyncStore(redis.Redis(connection_pool=pool), observe)
