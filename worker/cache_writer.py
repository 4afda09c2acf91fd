"""Writes outputs to the cache's Redis from a thread of its own, many in one round trip, so that no job waits for it.

What is written is already in the worker's memory, and for half a minute in the ledger for equal jobs of other workers.
A worker killed in between loses a few stored outputs, never a result.
"""

from __future__ import annotations

import threading
from collections import deque

from dspy_jobs.cache_entry import CacheEntry
from worker.response_cache import ResponseCache, Stored

#: Outputs in one round trip, and seconds in which they gather: to wake for each would cost what it saves.
_GROUP = 64
_GATHER_SECONDS = 0.05
#: Outputs that may wait; beyond that the oldest are not stored, for the cache's Redis does not keep up.
_MOST_WAITING = 10_000


class CacheWriter(threading.Thread):
    """Takes outputs from every thread of this process."""

    def __init__(self, cache: ResponseCache) -> None:
        super().__init__(name="cache-writer", daemon=True)
        self._cache = cache
        self._waiting: deque[Stored] = deque(maxlen=_MOST_WAITING)
        self._wake = threading.Event()
        self._ending = threading.Event()

    def put(self, key: str, entry: CacheEntry) -> None:
        """Keep an output: in memory at once, in Redis soon.

        Raises:
            TypeError: the output holds something JSON cannot express.
        """
        if stored := self._cache.keep(key, entry):
            self._waiting.append(stored)
            self._wake.set()

    def run(self) -> None:
        """Write until told to end, then what is left."""
        while not self._ending.is_set() or self._waiting:
            self._wake.wait()
            self._ending.wait(_GATHER_SECONDS)
            self._wake.clear()
            while group := self._next_group():
                self._cache.store(group)

    def end(self) -> None:
        """Write what waits and stop."""
        self._ending.set()
        self._wake.set()
        self.join(timeout=5)

    def _next_group(self) -> list[Stored]:
        return [self._waiting.popleft() for _ in range(min(_GROUP, len(self._waiting)))]
