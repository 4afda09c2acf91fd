"""The worker's own thread for what must go on whatever its jobs do: its lease, cancellations, retries, recovery.

It has its own Redis connection, so that 128 busy threads cannot keep it from saying that the worker lives.
"""

from __future__ import annotations

import os
import socket
import threading

import orjson
import structlog
from redis.exceptions import RedisError

from dspy_jobs import chores
from dspy_jobs.store import SyncStore, operations
from worker.chunk import ChunkRunner

log = structlog.get_logger("worker")

#: Seconds between rounds. A cancellation or a due retry waits this long at most.
ROUND_SECONDS = 0.5


class Housekeeping(threading.Thread):
    """Renews this worker's lease and does a share of the work any live process may do."""

    def __init__(self, chunk_runner: ChunkRunner, store: SyncStore, queues: list[str]) -> None:
        super().__init__(name="housekeeping", daemon=True)
        self._chunk_runner = chunk_runner
        self._store = store
        self._queues = queues
        self._ended = threading.Event()

    def run(self) -> None:
        """Rounds until told to end, also while Redis is away."""
        while not self._ended.is_set():
            try:
                self.round()
            except RedisError as error:
                log.warning("redis_unreachable", error=str(error))
            self._ended.wait(ROUND_SECONDS)

    def end(self) -> None:
        """Stop after the present round and leave the fleet."""
        self._ended.set()
        self.join(timeout=5)
        try:
            self._store.run(operations.retire_worker(self._chunk_runner.worker_id, self._queues))
        except RedisError as error:
            log.warning("redis_unreachable", error=str(error))

    def round(self) -> None:
        """One round: say that this worker lives, stop what was canceled, do what dead processes left."""
        runner = self._chunk_runner.runner
        queues = [] if self._chunk_runner.is_draining.is_set() else self._queues
        lease = runner.settings.worker.lease_seconds
        renewal = operations.renew_worker(runner.worker_id, lease, self._description(), queues)
        for job_id in self._store.run(renewal):
            self._chunk_runner.stop(job_id)
        self._store.follow(chores.all_chores(runner.settings))

    def _description(self) -> bytes:
        return orjson.dumps(
            {
                "id": self._chunk_runner.worker_id,
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "concurrency": self._chunk_runner.runner.settings.worker.concurrency,
                "queues": self._queues,
                "running": len(self._chunk_runner.running),
                "draining": self._chunk_runner.is_draining.is_set(),
            }
        )
