"""What the jobs of a batch share, read once a process: it never changes while the batch lives."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

import orjson
import redis

from dspy_jobs import names

#: Batches remembered. A worker meets few at a time; each is about a kilobyte.
_REMEMBERED = 256


class BatchRequests:
    """A small memory of batches' shared requests, safe for threads."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client
        self._known: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, batch_id: str) -> dict[str, Any]:
        """What the batch shares; empty if its retention is over."""
        with self._lock:
            if batch_id in self._known:
                self._known.move_to_end(batch_id)
                return self._known[batch_id]
        raw = self._redis.get(names.batch_request(batch_id))
        shared: dict[str, Any] = orjson.loads(raw) if raw else {}
        with self._lock:
            self._known[batch_id] = shared
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return shared
