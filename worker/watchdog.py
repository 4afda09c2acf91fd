"""Ends a worker that no longer consumes, so that its supervisor starts a fresh one.

Celery has had bugs after which a worker reconnects but takes nothing more, and a user's program may block so many
threads for ever that none is left. Both look healthy from outside.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable

import structlog

from worker import consumption
from worker.chunk import ChunkRunner
from worker.farewell import end_process

log = structlog.get_logger("worker")

#: Seconds without a question for open queues, which kombu asks each second while it consumes; longer than its longest
#: wait between two attempts to reconnect.
STALLED_SECONDS = 60.0
#: Seconds a worker that is of no use gets to end by itself, before and after it is told a second time.
END_SECONDS = 30.0
#: Share of the threads that may be stuck in programs that never return.
STUCK_SHARE = 0.25


class Watchdog(threading.Thread):
    """Looks every second whether the worker is of use."""

    def __init__(self, chunk_runner: ChunkRunner, before_exit: Callable[[], None]) -> None:
        super().__init__(name="watchdog", daemon=True)
        self._before_exit = before_exit
        self._chunk_runner = chunk_runner

    def run(self) -> None:
        """Look until something is wrong, then stop the worker as SIGTERM would: its jobs go back."""
        consumption.pulse.restart()  # loading the programs may have taken long
        while not (reason := self._what_is_wrong()):
            time.sleep(1)
        if not self._chunk_runner.is_draining.is_set():
            log.error("worker_stalled", worker=self._chunk_runner.worker_id, reason=reason)
            self._end()

    def _end(self) -> None:
        """End the worker once nothing runs, however long a drain may take: stuck threads would keep it that long."""
        drain_seconds = self._chunk_runner.runner.settings.worker.drain_seconds
        latest = time.monotonic() + drain_seconds
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(min(END_SECONDS, drain_seconds))
        while self._chunk_runner.running and time.monotonic() < latest:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)
        # The handler needs a main thread that runs; where even that is stuck, nothing but this ends the process.
        time.sleep(END_SECONDS)
        end_process(os.EX_SOFTWARE, self._before_exit)

    def _what_is_wrong(self) -> str:
        return "draining" if self._chunk_runner.is_draining.is_set() else stalled(self._chunk_runner)


def is_consumer_alive() -> bool:
    """Whether kombu has asked for messages lately."""
    return consumption.pulse.age() <= STALLED_SECONDS


def stalled(chunk_runner: ChunkRunner) -> str:
    """Why a worker that consumes is of no use; empty if it is."""
    if not is_consumer_alive():
        return "the consumer no longer asks for messages"
    stuck = chunk_runner.stuck_threads
    if stuck >= max(1, chunk_runner.runner.settings.worker.concurrency * STUCK_SHARE):
        return f"{stuck} threads are stuck in programs"
    return ""
