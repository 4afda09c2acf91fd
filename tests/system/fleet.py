"""Real worker processes and their callers, for tests of the whole."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson

from dspy_jobs import chunks, names
from dspy_jobs.ids import new_batch_id, new_job_id
from dspy_jobs.settings import Settings
from dspy_jobs.store import SyncStore, operations
from dspy_jobs.store.records import StoredJob
from dspy_jobs.waiting import wait_until

CONFIG = """
[worker]
concurrency = 8
lease_seconds = 2
[programs.qa]
signature = "question -> answer"
[programs.echo]
factory = "tests.programs:echo"
[programs.crash]
factory = "tests.programs:crash"
[programs.sleepy]
factory = "tests.programs:sleepy"
cache = false
[programs.exits]
factory = "tests.programs:exits"
[programs.kills_worker]
factory = "tests.programs:kills_worker"
[programs.devours]
factory = "tests.programs:devours"
[programs.hangs]
factory = "tests.programs:hangs"
[programs.chatty]
factory = "tests.programs:chatty"
[programs.three_steps]
factory = "tests.programs:three_steps"
[programs.chain]
factory = "tests.programs:chain"
"""


class Fleet:
    """Starts worker processes and plays their callers."""

    def __init__(
        self, settings: Settings, store: SyncStore, environ: dict[str, str], log: Path, sandbox: str = ""
    ) -> None:
        self.sandbox = sandbox
        self.settings, self.store, self.environ, self._log = settings, store, environ, log
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, *module: str) -> subprocess.Popen[bytes]:
        """Start a worker, or a module that is one and its arguments, and wait until it consumes."""
        with self._log.open("ab") as log:
            command = [sys.executable, "-m", *(module or ("worker",))]
            process = subprocess.Popen(command, env=self.environ, stdout=log, stderr=log, cwd=self._log.parent)
        self.processes.append(process)
        assert wait_until(lambda: self._consumes(process.pid), 60), self.log()
        return process

    def end(self) -> None:
        """Kill what still runs."""
        for process in self.processes:
            if process.poll() is None:
                os.kill(process.pid, signal.SIGKILL)
            process.wait(10)

    def log(self) -> str:
        """What the workers said."""
        return self._log.read_text()

    def _consumes(self, pid: int) -> bool:
        return bool(self.worker_id(pid))

    def worker_id(self, pid: int) -> str:
        """The id of the worker with that process id, or an empty text."""
        workers = self.store.redis.zrange(names.queue_workers(names.queue("sandbox")), 0, -1)
        return next((worker.decode() for worker in workers if f"-{pid}-".encode() in worker), "")

    def running_on(self, worker: str) -> int:
        """Jobs that run on a worker."""
        held = [raw.decode() for raw in self.store.redis.smembers(names.worker_held(worker))]
        return sum(job is not None and job.status == "running" for job in self.store.run(operations.read_jobs(held)))

    def results(self, batch_id: str) -> int:
        """Length of a batch's list of results."""
        return int(self.store.redis.llen(names.batch_results(batch_id)))

    def workers(self) -> int:
        """Live workers of the sandbox's queue."""
        return self.store.run(operations.read_queues([names.queue("sandbox")]))[0].workers

    def submit(self, program: str, timeout_seconds: float | None = None, model: str = "sandbox", **inputs: Any) -> str:
        """Queue a job."""
        job_id = new_job_id()
        fields = {"program": program, "model": model, "max_attempts": 3}
        request: dict[str, Any] = {"inputs": inputs}
        if timeout_seconds:
            request["timeout_seconds"] = timeout_seconds
        lifetimes = operations.Lifetimes.of(self.settings.jobs)
        self.store.run(
            operations.submit_job(
                job_id, orjson.dumps(request), names.queue(model), 3, fields, lifetimes, 100_000
            )
        )  # fmt: skip
        return job_id

    def submit_batch(self, program: str, items: list[dict[str, Any]], model: str = "sandbox") -> str:
        """Queue a batch."""
        limits = self.settings.jobs
        lifetimes = operations.Lifetimes.of(limits)
        head = operations.BatchHead(
            new_batch_id(), names.queue(model), 6, program, model, limits.max_attempts, lifetimes
        )
        rows = [(new_job_id(), orjson.dumps({"inputs": inputs})) for inputs in items]
        for at in range(0, len(rows), 500):
            self.store.run(operations.stage_items(head, rows[at : at + 500]))
        self.store.run(operations.commit_batch(head, orjson.dumps({"program": program}), len(rows), 100_000))
        pointer = 0
        while 0 <= pointer < len(rows):
            sizes = chunks.chunk_sizes(len(rows) - pointer, 8, 32, 2000)
            pointer = self.store.run(operations.release_jobs(head.id, pointer, sizes))
        return head.id

    def read(self, job_id: str) -> StoredJob:
        """The job as it now stands."""
        job = self.store.run(operations.read_jobs([job_id]))[0]
        assert job is not None
        return job

    def wait(self, job_id: str, *statuses: str, seconds: float = 60) -> StoredJob:
        """The job once it is in one of the states."""
        assert wait_until(lambda: self.read(job_id).status in statuses, seconds), (self.read(job_id), self.log())
        return self.read(job_id)

    def batch(self, batch_id: str) -> dict[str, str]:
        """The batch's fields."""
        batch = self.store.run(operations.read_batch(batch_id))
        assert batch is not None
        return batch.fields

    def count(self, batch_id: str, name: str) -> int:
        """One of the batch's counts."""
        return int(self.batch(batch_id)[name])

    def jobs_of(self, batch_id: str) -> list[StoredJob]:
        """Every job of a batch, whole."""
        ids = [raw.decode() for raw in self.store.redis.lrange(names.batch_jobs(batch_id), 0, -1)]
        return [job for job in self.store.run(operations.read_jobs(ids)) if job is not None]

    def wait_for_batch(self, batch_id: str, seconds: float = 90) -> dict[str, str]:
        """The batch's fields once it has ended."""
        assert wait_until(lambda: self.batch(batch_id)["status"] == "ended", seconds), (
            self.batch(batch_id),
            self.log(),
        )
        return self.batch(batch_id)


def measured(store: SyncStore, labels: str) -> int:
    """How many values workers have counted under a histogram's name and labels."""
    sums = {field.decode(): int(number) for field, number in store.redis.hgetall(names.METRICS).items()}
    return sum(n for field, n in sums.items() if field.startswith(f"{labels}|") and not field.endswith("|sum"))
