"""How a worker stops: nothing new, running jobs to their end but not for ever, everything else back to the queue."""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog
from redis.exceptions import RedisError

from dspy_jobs.store import SyncStore, operations, recovery
from worker.chunk import ChunkRunner
from worker.farewell import end_process

log = structlog.get_logger("worker")


class Drain:
    """Begun by the first signal; a second one, or the grace's end, gives everything back and exits at once."""

    def __init__(
        self, chunk_runner: ChunkRunner, store: SyncStore, queues: list[str], before_exit: Callable[[], None]
    ) -> None:
        self._before_exit = before_exit
        self._chunk_runner = chunk_runner
        self._store = store
        self._queues = queues
        self._hurry = threading.Event()

    def begin(self) -> None:
        """Called in a signal handler, so it only sets flags and starts a thread."""
        if self._chunk_runner.is_draining.is_set():
            self._hurry.set()
            return
        self._chunk_runner.is_draining.set()
        threading.Thread(target=self._bounded, name="drain", daemon=True).start()

    def _bounded(self) -> None:
        worker = self._chunk_runner.worker_id
        log.info("worker_draining", worker=worker, running=len(self._chunk_runner.running))
        self._leave()
        self._hurry.wait(self._chunk_runner.runner.settings.worker.drain_seconds)
        # Still here: the process would have ended by itself had every job ended.
        log.warning("worker_gives_back", worker=worker, returned=self._give_back())
        end_process(0, self._before_exit)

    def _leave(self) -> None:
        try:
            self._store.run(operations.retire_worker(self._chunk_runner.worker_id, self._queues))
        except RedisError as error:
            log.warning("redis_unavailable", error=str(error))

    def _give_back(self) -> int:
        returned = 0
        try:
            while step := self._store.run(recovery.surrender_jobs(self._chunk_runner.worker_id)):
                returned += step
            self._leave()
        except RedisError as error:  # the lease will run out instead
            log.warning("redis_unavailable", error=str(error))
        return returned
