"""Which queues are closed just now, as this worker knows: told by each round and by each claim that was refused."""

from __future__ import annotations

import threading
import time

#: A gate without an end is looked at again after so many seconds, or with the next round.
_LOOK_AGAIN_SECONDS = 0.5


class Gates:
    """Closed queues and when to look at them again. Read in the consumer's loop, so without input or output."""

    def __init__(self) -> None:
        self._closed_until: dict[str, float] = {}
        self._lock = threading.Lock()

    def may_consume(self, queue: str) -> bool:
        """Whether messages of the queue may be taken now."""
        until = self._closed_until.get(queue)
        return until is None or until <= time.monotonic()

    def close(self, queue: str, seconds: float) -> None:
        """Note a closed gate; 0 seconds: its end is not known."""
        with self._lock:
            self._closed_until[queue] = time.monotonic() + (seconds or _LOOK_AGAIN_SECONDS)

    def replace(self, closed: dict[str, float]) -> None:
        """What a round found closed, for how many seconds; whatever it does not name is open."""
        now = time.monotonic()
        with self._lock:
            # A gate without an end holds until a round no longer names it.
            self._closed_until = {
                queue: now + seconds if seconds else float("inf") for queue, seconds in closed.items()
            }
