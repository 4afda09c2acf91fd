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

from dspy_jobs import chunks, names
from dspy_jobs.store import SyncStore, operations
from worker.chunk import ChunkRunner

log = structlog.get_logger("worker")

#: Seconds between rounds. A cancellation or a due retry waits this long at most.
ROUND_SECONDS = 0.5
#: Jobs of a batch released in one step, so that no script runs long.
RELEASE_STEP = 2000


class Housekeeping(threading.Thread):
    """Renews this worker's lease and does a share of the work any live process may do."""

    def __init__(self, chunk_runner: ChunkRunner, store: SyncStore, queues: list[str]) -> None:
        super().__init__(name="housekeeping", daemon=True)
        self._chunk_runner = chunk_runner
        self._store = store
        self._queues = queues
        self._ended = threading.Event()

    def run(self) -> None:
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
        """One round: say that this worker lives, stop what was canceled, wake, recover, release."""
        runner = self._chunk_runner.runner
        settings = runner.settings
        queues = [] if self._chunk_runner.is_draining.is_set() else self._queues
        to_stop, _, (recovered, failed) = self._store.run_all(
            [
                operations.renew_worker(
                    runner.worker_id, settings.worker.lease_seconds, self._description(), queues
                ),
                operations.wake_delayed(),
                operations.recover_lost(settings.jobs.max_worker_losses),
            ]
        )
        for job_id in to_stop:
            self._chunk_runner.stop(job_id)
        if recovered or failed:
            log.warning("jobs_recovered", recovered=recovered, failed=failed)
        self._release()

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

    def _release(self) -> None:
        """Go on with batches whose API process died between accepting them and sending their messages."""
        worker = self._chunk_runner.runner.settings.worker
        for raw in self._store.redis.smembers(names.RELEASING):  # type: ignore[union-attr]
            batch = self._store.run(operations.read_batch(raw.decode()))
            if batch is None:
                self._store.redis.srem(names.RELEASING, raw)
                continue
            pointer, total = int(batch.fields["released"]), int(batch.fields["total"])
            sizes = chunks.chunk_sizes(
                total - pointer, worker.concurrency * batch.workers, worker.chunk_size, RELEASE_STEP
            )
            if sizes and batch.status == "in_progress":
                self._store.run(operations.release_jobs(batch.id, pointer, sizes))
