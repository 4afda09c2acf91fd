"""How many threads of live workers serve a queue: what chunk sizes go by, and whether anybody is there at all."""

from __future__ import annotations

import asyncio
import time

from dspy_jobs.store import AsyncStore
from dspy_jobs.store.operations import read_slots

#: Seconds an answer is good for.
_FRESH_SECONDS = 2.0


class Capacity:
    """Threads by queue, remembered for a moment."""

    def __init__(self, store: AsyncStore) -> None:
        self._store = store
        self._asked: dict[str, tuple[float, asyncio.Future[int]]] = {}

    async def slots(self, queue: str) -> int:
        """Threads of all live workers of the queue; 0 where there are none."""
        asked_at, answer = self._asked.get(queue, (float("-inf"), None))
        # Thousands may ask at once; they share one question. A failure is not remembered.
        failed = answer is not None and answer.done() and answer.exception() is not None
        if answer is None or failed or time.monotonic() - asked_at > _FRESH_SECONDS:
            answer = asyncio.ensure_future(self._store.run(read_slots(queue)))
            self._asked[queue] = (time.monotonic(), answer)
        return await asyncio.shield(answer)
