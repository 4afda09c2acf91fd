"""A batch in the ledger: put there as the API does it without HTTP in between, sent to the workers, waited for."""

from __future__ import annotations

import time

import orjson

from benchmarks.rig import Rig
from dspy_jobs import chores, names
from dspy_jobs.ids import new_batch_id, new_job_id
from dspy_jobs.states import Priority, WaitReason
from dspy_jobs.store import operations
from dspy_jobs.store.books import Bill
from dspy_jobs.waiting import wait_until

#: Items staged in one step, as the API does.
_GROUP = 500

#: The worker whose attempts failed.
_NOBODY = "nobody"


def question(number: int) -> str:
    """The question every contender gets as its n-th."""
    return f"What is {number} plus {number + 1}?"


class Batch:
    """An accepted batch."""

    def __init__(self, rig: Rig, batch_id: str, jobs: int) -> None:
        self.id, self.jobs, self._rig = batch_id, jobs, rig

    @classmethod
    def put(cls, rig: Rig, jobs: int, program: str = "qa", model: str = "sandbox", first: int = 0) -> Batch:
        """Put a batch into the ledger, with the questions from `first` on; nothing of it is sent yet."""
        lifetimes = operations.Lifetimes.of(rig.settings.jobs)
        step = Priority.LOW.step
        head = operations.BatchHead(new_batch_id(), names.queue(model), step, program, model, 5, lifetimes)
        name = "question" if program == "qa" else "text"
        for start in range(0, jobs, _GROUP):
            numbers = range(start, min(start + _GROUP, jobs))
            items = [(new_job_id(), orjson.dumps({"inputs": {name: question(first + n)}})) for n in numbers]
            rig.store.run(operations.stage_items(head, items))
        rig.store.run(operations.commit_batch(head, b"{}", jobs, rig.settings.limits.queued_jobs))
        return cls(rig, head.id, jobs)

    def run(self, bound_seconds: float = 600) -> float:
        """Send it to the workers; answers the seconds until every job has ended.

        Raises:
            RuntimeError: it does not end in time, or a job fails.
        """
        began = time.perf_counter()
        self._rig.store.follow(chores.release(self.id, self._rig.settings.worker.chunk_size))
        return self.wait(began, bound_seconds)

    def delay(self, seconds: float) -> None:
        """Let every job fail a first attempt, without a worker process, and wait so long for its next one."""
        self._rig.store.follow(chores.release(self.id, self._rig.settings.worker.chunk_size))
        found = self._rig.store.redis.lrange(names.batch_jobs(self.id), 0, -1)
        ids = [raw.decode() for raw in found if isinstance(raw, bytes)]
        for start in range(0, len(ids), _GROUP):
            group = ids[start : start + _GROUP]
            take = operations.take_jobs(_NOBODY, group)
            claims = self._rig.store.run_all([take, *(operations.claim_job(_NOBODY, i, i) for i in group)])[1:]
            waits = [
                operations.retry_later(_NOBODY, claim, b"{}", seconds, WaitReason.RETRY_SCHEDULED, Bill())
                for claim in claims
            ]
            self._rig.store.run_all(waits)

    def wait(self, began: float, bound_seconds: float = 600) -> float:
        """Seconds since `began` (of `time.perf_counter`) when every job has ended.

        Raises:
            RuntimeError: it does not end in time, or a job fails.
        """
        has_ended = wait_until(lambda: self._field("status") == "ended", bound_seconds)
        seconds = time.perf_counter() - began
        succeeded = int(self._field("succeeded"))
        if not has_ended or succeeded != self.jobs:
            raise RuntimeError(f"{succeeded} of {self.jobs} jobs succeeded within {bound_seconds:g} s")
        return seconds

    def _field(self, name: str) -> str:
        value = self._rig.store.redis.hget(names.batch(self.id), name)
        assert isinstance(value, bytes)
        return value.decode()
