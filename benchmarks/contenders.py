"""Those who take turns at running the same jobs. Each runs in one process that stays up between its turns."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any, Protocol

from benchmarks.batch import Batch, question
from benchmarks.plain_celery import TASK, make_app
from benchmarks.process import Process
from benchmarks.rig import Rig
from dspy_jobs.redis_url import celery_url
from dspy_jobs.store import connect
from dspy_jobs.waiting import wait_until

#: Longest a turn may take.
BOUND_SECONDS = 600.0


class Contender(Protocol):
    """Runs jobs. `process` does the work, so its processor time counts."""

    name: str
    process: Process

    def run(self, jobs: int, model: str) -> float:
        """Seconds from the moment the jobs may start until all have ended."""


class BareDspy:
    """No queue: threads of one process, in one of three ways (see `bare_dspy`)."""

    def __init__(self, process: Process, way: str, name: str) -> None:
        self.process, self.name, self._way = process, name, way

    def run(self, jobs: int, model: str) -> float:
        """See `Contender`."""
        number = next(_orders)
        self.process.ask({"way": self._way, "jobs": jobs, "model": model, "number": number})
        return float(self.process.find(rf'"order":{number},"seconds":([\d.]+)', BOUND_SECONDS))


class PlainCelery:
    """One message a job. All messages wait in Redis before the worker may take the first."""

    def __init__(self, rig: Rig, ack: str, broker: int, backend: int) -> None:
        self.name = f"plain Celery, {ack} acknowledgement"
        self._results = connect(rig.redis_url(backend))
        urls = celery_url(rig.redis_url(broker)), celery_url(rig.redis_url(backend))
        self._app = make_app(*urls, ack)
        self._queue: str = self._app.conf.task_default_queue
        self.process = rig.start("benchmarks.plain_celery", *urls, rig.sandbox_url, ack)
        self.process.find(r"(concurrency: 128)")

    def run(self, jobs: int, model: str) -> float:
        """See `Contender`."""
        self._results.flushdb()
        self._consume("cancel_consumer", lambda queues: not queues)
        # No result handle is kept, so no subscription either: the most a caller can spare Celery.
        with self._app.producer_pool.acquire() as producer:
            for number in range(jobs):
                args = (model, question(number))
                self._app.send_task(TASK, args, producer=producer)
        began = time.perf_counter()
        self._app.control.add_consumer(self._queue)
        if not wait_until(lambda: self._results.dbsize() >= jobs, BOUND_SECONDS):
            raise RuntimeError(f"{self.name}: {self._results.dbsize()} of {jobs} results")
        return time.perf_counter() - began

    def _consume(self, change: str, is_done: Callable[[list[Any]], bool]) -> None:
        getattr(self._app.control, change)(self._queue)

        def done() -> bool:
            answers = self._app.control.inspect(timeout=0.5).active_queues() or {}
            return bool(answers) and all(is_done(queues) for queues in answers.values())

        if not wait_until(done, 30):
            raise RuntimeError(f"{self.name}: {change} had no effect")


class DspyJobs:
    """This project: a batch in the ledger, one worker process as shipped."""

    name = "dspy-jobs"

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self.process = rig.start_worker()

    def run(self, jobs: int, model: str) -> float:
        """See `Contender`."""
        return Batch.put(self._rig, jobs, model=model).run(BOUND_SECONDS)


_orders = itertools.count(1)
