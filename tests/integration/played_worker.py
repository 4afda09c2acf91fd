"""A worker played by hand over the store's operations, so that the HTTP process is tested without DSPy."""

from __future__ import annotations

from collections.abc import Iterable

import orjson

from dspy_jobs import names, outcomes
from dspy_jobs.outcomes import Attempt, Reused, Usage
from dspy_jobs.problems import problem
from dspy_jobs.store import SyncStore
from dspy_jobs.store.books import Bill, BilledCall
from dspy_jobs.store.operations import (
    claim_job,
    finish_job,
    renew_worker,
    retry_later,
    take_jobs,
)
from dspy_jobs.store.records import Claim

MODEL = "sandbox"
_ID = "played-worker"


class PlayedWorker:
    """Takes jobs by their ids and ends them as told."""

    def __init__(self, store: SyncStore) -> None:
        self._store = store

    def appear(self, concurrency: int = 4) -> None:
        """Say that the worker lives and consumes the model's queue."""
        description = b'{"concurrency": %d}' % concurrency
        self._store.run(renew_worker(_ID, 60, description, [names.queue(MODEL)]))

    def start(self, job_id: str) -> Claim:
        """Take and claim a job."""
        self._store.run(take_jobs(_ID, [job_id]))
        claim = self._store.run(claim_job(_ID, job_id, job_id))
        assert isinstance(claim, Claim), claim
        return claim

    def succeed(self, job_id: str, answer: str = "42") -> None:
        """Run a job to its success."""
        claim = self.start(job_id)
        outcome = outcomes.success(job_id, {"answer": answer}, _attempt(claim), "v1", Reused("miss", "0" * 40))
        assert self._store.run(finish_job(_ID, claim, "succeeded", outcome, _SPENT))

    def succeed_all(self, ids: Iterable[str]) -> None:
        """Run jobs to their success, one after the other."""
        for job_id in ids:
            self.succeed(job_id)

    def fail(self, job_id: str, code: str = "program_error") -> None:
        """Run a job to its failure."""
        self.end_failed(self.start(job_id), code)

    def end_failed(self, claim: Claim, code: str, status: str = "failed") -> None:
        """End a running job with a problem."""
        attempt = _attempt(claim, code)
        assert self._store.run(finish_job(_ID, claim, status, outcomes.failure(claim.id, attempt, "v1"), _SPENT))

    def fail_for_now(self, job_id: str, delay_seconds: float) -> None:
        """Run a job to a failure that will be tried again."""
        claim = self.start(job_id)
        record = orjson.dumps(_attempt(claim, "server").as_record())
        self._store.run(retry_later(_ID, claim, record, delay_seconds, "retry_scheduled", _SPENT))

    def jobs_of(self, batch_id: str) -> list[str]:
        """A batch's job ids in input order."""
        return [job_id.decode() for job_id in self._store.redis.lrange(names.batch_jobs(batch_id), 0, -1)]


_SPENT = Bill([BilledCall(10, 2, None, None, 1500)])


def _attempt(claim: Claim, code: str | None = None) -> Attempt:
    return Attempt(
        number=claim.attempt,
        model=claim.model,
        started_at=claim.started_at,
        ended_at=claim.started_at + 5,
        error=problem(code, "as played") if code else None,
        usage=Usage(10, 2, 1),
        cost_nanos=1500,
    )
