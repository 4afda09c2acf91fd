"""When this worker takes a message: only with a thread free to run it, and never from a closed queue.

Celery's threads pool would take messages ahead and let them wait inside the process, out of reach of more urgent
ones and of other workers. Here kombu asks, before each blocking pop, which queues to pop from; the answer is none
while every thread is busy. Nothing is taken ahead, so nothing has to be given back, and acknowledgement emulation
(a second command after each pop) is switched off: the jobs' own records say who has what.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from celery.concurrency.thread import TaskPool
from kombu.asynchronous import get_event_loop
from kombu.utils.scheduling import round_robin_cycle

from worker.gates import Gates


class FreeThreads:
    """How many of the pool's threads have nothing to do. One a process, as the pool is."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.count = 0
        self.total = 0
        """Threads there are; 0 before the pool has started."""

    def add(self, number: int) -> None:
        """Count threads that became free, or busy if negative."""
        with self._lock:
            self.count += number


free_threads = FreeThreads()

#: The gates of this process's queues; kombu makes `OpenQueues` itself, so it finds them here.
gates = Gates()


class Pulse:
    """When kombu last asked which queues are open: at least once a second while it consumes.

    While Redis is away it cannot ask, which is not its fault: `restart` when Redis is back.
    """

    def __init__(self) -> None:
        self._at = time.monotonic()

    def beat(self) -> None:
        """Kombu asked."""
        self._at = time.monotonic()

    restart = beat

    def age(self) -> float:
        """Seconds since then."""
        return time.monotonic() - self._at


pulse = Pulse()


class ThreadPool(TaskPool):
    """Celery's thread pool, which also wakes the consumer when a thread becomes free."""

    def on_start(self) -> None:
        """Every thread is free."""
        free_threads.total = self.limit
        free_threads.add(self.limit)

    def on_apply(self, *args: Any, **options: Any) -> Any:
        """Hand a message to a thread."""
        free_threads.add(-1)
        result = super().on_apply(*args, **options)
        result.f.add_done_callback(_thread_became_free)
        return result


def _thread_became_free(_: Any) -> None:
    free_threads.add(1)
    if hub := get_event_loop():
        # Any callback wakes the event loop, which then asks `OpenQueues` again.
        hub.call_soon(int)


class OpenQueues(round_robin_cycle):
    """The queues kombu may pop from now, each in its turn."""

    def consume(self, n: int) -> list[str]:
        """At most `n` queues; none while every thread is busy, never a closed one."""
        pulse.beat()
        if free_threads.count <= 0:
            return []
        return [queue for queue in self.items[:n] if gates.may_consume(queue)]
