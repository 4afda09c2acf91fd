"""What scripts do to jobs by themselves: whoever runs one tells of it, for no worker's outcome line does.

Such scripts answer a row for each job: `tell` in _schema.lua makes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from dspy_jobs import job_lines
from dspy_jobs.ids import made_at
from dspy_jobs.job_lines import UNKNOWN, UNUSED, JobLine
from dspy_jobs.states import JobStatus
from dspy_jobs.store.wire import texts

#: What became of a job, and the code of the problem it was given.
_CODES = {
    JobStatus.CANCELED: "canceled",
    JobStatus.EXPIRED: "expired",
    JobStatus.FAILED: "worker_lost",
    JobStatus.QUEUED: "worker_lost",
}


def tell_of(rows: Iterable[Sequence[bytes]]) -> None:
    """One log line for each row: how a job ended, or that it is queued again."""
    for row in rows:
        job_id, became, before, batch, program, variant, model, attempt, started, now = texts(row)
        ids = {"job_id": job_id, **({"batch_id": batch} if batch else {}), "attempt": int(attempt)}
        line = JobLine(program=program, variant=variant or None, model=model)
        line |= waits(job_id, int(started or now), int(now))
        line |= UNKNOWN if before == JobStatus.RUNNING else UNUSED
        line |= JobLine(cache=None, code=_CODES[JobStatus(became)])
        if became == JobStatus.QUEUED:
            job_lines.tell_requeued(ids, line)
        else:
            job_lines.tell_ended(became, ids, line)


def waits(job_id: str, started: int, ended: int) -> JobLine:
    """How long a job waited, and took in all, by the time in its id (all in milliseconds since 1970)."""
    made = made_at(job_id)
    if made is None:
        return JobLine(wait_seconds=None, total_seconds=None)
    # Whoever made the id has another clock than Redis.
    return JobLine(wait_seconds=max(0, started - made) / 1000, total_seconds=max(0, ended - made) / 1000)
