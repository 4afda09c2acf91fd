"""A real `python -m worker` process: Celery, threads, signals, and Celery's own result backend."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from celery import Celery
from celery.result import AsyncResult

from dspy_jobs import chunks, names
from dspy_jobs.errors import JobFailed
from dspy_jobs.ids import new_batch_id, new_job_id
from dspy_jobs.messages import MESSAGE_TEMPLATE
from dspy_jobs.redis_url import celery_url
from dspy_jobs.settings import Settings
from dspy_jobs.store import SyncStore, operations
from dspy_jobs.store.records import StoredJob
from dspy_jobs.waiting import wait_until

pytestmark = pytest.mark.system

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
[programs.exits]
factory = "tests.programs:exits"
"""


class Fleet:
    """Starts worker processes and plays their callers."""

    def __init__(self, settings: Settings, store: SyncStore, environ: dict[str, str], log: Path) -> None:
        self.settings, self.store, self._environ, self._log = settings, store, environ, log
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> subprocess.Popen[bytes]:
        """Start a worker and wait until it consumes."""
        before = self.workers()
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "worker"], env=self._environ, stdout=log, stderr=log, cwd=self._log.parent
            )
        self.processes.append(process)
        assert wait_until(lambda: self.workers() > before, 30), self._log.read_text()
        return process

    def workers(self) -> int:
        """Live workers of the sandbox's queue."""
        return self.store.run(operations.read_queues([names.queue("sandbox")]))[0].workers

    def submit(self, program: str, **inputs: Any) -> str:
        """Queue a job."""
        job_id = new_job_id()
        fields = {"program": program, "model": "sandbox", "max_attempts": 3}
        lifetimes = operations.Lifetimes.of(self.settings.jobs)
        request = orjson.dumps({"inputs": inputs})
        self.store.run(operations.submit_job(job_id, request, names.queue("sandbox"), 3, fields, lifetimes, 100_000))
        return job_id

    def submit_batch(self, program: str, items: list[dict[str, Any]]) -> str:
        """Queue a batch."""
        lifetimes = operations.Lifetimes.of(self.settings.jobs)
        head = operations.BatchHead(new_batch_id(), names.queue("sandbox"), 6, program, "sandbox", 3, lifetimes)
        rows = [(new_job_id(), orjson.dumps({"inputs": inputs})) for inputs in items]
        self.store.run(operations.stage_items(head, rows))
        self.store.run(operations.commit_batch(head, orjson.dumps({"program": program}), len(rows), 100_000))
        self.store.run(operations.release_jobs(head.id, 0, chunks.chunk_sizes(len(rows), 8, 32, len(rows))))
        return head.id

    def read(self, job_id: str) -> StoredJob:
        """The job as it now stands."""
        job = self.store.run(operations.read_jobs([job_id]))[0]
        assert job is not None
        return job

    def wait(self, job_id: str, *statuses: str) -> StoredJob:
        """The job once it is in one of the states."""
        assert wait_until(lambda: self.read(job_id).status in statuses, 30), (self.read(job_id), self._log.read_text())
        return self.read(job_id)

    def wait_for_batch(self, batch_id: str) -> dict[str, str]:
        """The batch's fields once it has ended."""

        def fields() -> dict[str, str]:
            batch = self.store.run(operations.read_batch(batch_id))
            assert batch is not None
            return batch.fields

        assert wait_until(lambda: fields()["status"] == "ended", 60), fields()
        return fields()


@pytest.fixture
def fleet(
    write_config: Callable[..., Settings], store: SyncStore, child_environ: dict[str, str], tmp_path: Path
) -> Iterator[Fleet]:
    """A fleet without workers yet."""
    settings = write_config(CONFIG)
    environ = {**child_environ, "DSPY_JOBS_CONFIG": str(settings.source)}
    fleet = Fleet(settings, store, environ, tmp_path / "worker.log")
    yield fleet
    for process in fleet.processes:
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
        process.wait(10)


@pytest.fixture
def celery_app(redis_url: str) -> Celery:
    """Any Celery app of a user's, with nothing of ours but the address."""
    return Celery("users", broker=celery_url(redis_url), backend=celery_url(redis_url), set_as_current=False)


def test_async_result_agrees_with_the_record(fleet: Fleet, celery_app: Celery) -> None:
    """`AsyncResult(job_id).get()` gives the output the job's record has, asked before or after the job ended."""
    early = fleet.submit("qa", question="early?")
    fleet.start()
    output = AsyncResult(early, app=celery_app).get(timeout=20)
    job = fleet.wait(early, "succeeded")
    assert job.outcome is not None
    assert output == job.outcome["result"]
    assert AsyncResult(early, app=celery_app).get(timeout=5) == output


def test_async_result_raises_what_failed(fleet: Fleet, celery_app: Celery) -> None:
    """A failed job raises `JobFailed` with the problem's code, through Celery's own result backend."""
    fleet.start()
    with pytest.raises(JobFailed, match="program_error"):
        AsyncResult(fleet.submit("crash", text="t"), app=celery_app).get(timeout=20)


def test_programs_that_leave_do_not_take_threads_with_them(fleet: Fleet) -> None:
    """More calls of `sys.exit` than there are threads leave the worker running other jobs."""
    fleet.start()
    leaving = [fleet.submit("exits", text="t") for _ in range(20)]
    for job_id in leaving:
        assert fleet.wait(job_id, "failed").outcome["problem"]["code"] == "program_error"  # type: ignore[index]
    fleet.wait(fleet.submit("echo", text="still here"), "succeeded")


def test_sigterm_finishes_what_runs_and_hands_back_the_rest(fleet: Fleet) -> None:
    """A stopping worker ends its running jobs, gives its remainder back at once and exits 0."""
    first = fleet.start()
    batch = fleet.submit_batch("sleepy", [{"text": "0.5"}] * 40)
    assert wait_until(lambda: _count(fleet, batch, "running") == 8, 20)
    first.terminate()
    assert first.wait(20) == 0
    assert _count(fleet, batch, "running") == 0
    assert _count(fleet, batch, "succeeded") >= 8
    assert fleet.workers() == 0
    fleet.start()
    assert fleet.wait_for_batch(batch)["succeeded"] == "40"


def test_a_killed_workers_jobs_run_elsewhere(fleet: Fleet) -> None:
    """After SIGKILL another worker queues again what the dead one ran and held, and every count stays exact."""
    first = fleet.start()
    batch = fleet.submit_batch("sleepy", [{"text": "0.4"}] * 60)
    assert wait_until(lambda: _count(fleet, batch, "running") == 8, 20)
    first.kill()
    fleet.start()
    fields = fleet.wait_for_batch(batch)
    assert fields["succeeded"] == "60"
    assert fleet.store.redis.llen(names.batch_results(batch)) == 60


def test_the_message_is_one_celery_would_make(fleet: Fleet) -> None:
    """An unmodified Celery app finds task, id and arguments in our template where its own messages have them."""
    filled = MESSAGE_TEMPLATE.replace("@ID@", "job_1").replace("@TAG@", "7").replace("@ARGS@", '\\"job_1\\"')
    message = orjson.loads(filled)
    theirs = Celery("theirs").amqp.as_task_v2("job_1", names.TASK, args=[["job_1"]], kwargs={})
    assert orjson.loads(message["body"])[:2] == [theirs.body[0], theirs.body[1]]
    assert {key: theirs.headers[key] for key in ("task", "id", "root_id", "lang")} == {
        key: message["headers"][key] for key in ("task", "id", "root_id", "lang")
    }


def _count(fleet: Fleet, batch_id: str, name: str) -> int:
    batch = fleet.store.run(operations.read_batch(batch_id))
    assert batch is not None
    return int(batch.fields[name])
