"""The one line in which the log tells how a job ended, or an attempt that did not end it.

Each outcome has one line, written by the process whose script made it known. Sums over the lines are sums over
attempts: what an earlier attempt used stands in its own line. Where that process, or its connection to Redis, dies at
that very moment the line may be missing; the books and the job's record never are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

import structlog

from dspy_jobs.states import JobStatus

log = structlog.get_logger("jobs")


class JobLine(TypedDict, total=False):
    """What is told of an attempt beside its ids. None is unknown, which is not zero."""

    program: str
    variant: str | None
    model: str
    wait_seconds: float | None
    """From the job's submission to its first start, or to its end if it never started."""
    run_seconds: float | None
    """Of this attempt; 0 where the job ended without one."""
    total_seconds: float | None
    """From the job's submission to this end."""
    input_tokens: int | None
    output_tokens: int | None
    calls: int | None
    """Model calls that were answered."""
    cost_usd: float | None
    cache: str | None
    """`hit`, `miss`, `coalesced` or `bypass`; None for a job that ended without having asked."""
    code: str | None
    """Of the problem; None for success."""
    exception: str
    """Type of what a program, or this code, raised; only with the codes `program_error` and `unexpected`."""
    raised_at: str
    """Where, as file:line."""
    inputs: str
    """Only with `log_content`, as `output` and `detail`."""
    output: str
    detail: str


#: What a job used that ended without an attempt.
UNUSED = JobLine(run_seconds=0.0, input_tokens=0, output_tokens=0, calls=0, cost_usd=0.0)
#: What an attempt used that nobody could tell of.
UNKNOWN = JobLine(run_seconds=None, input_tokens=None, output_tokens=None, calls=None, cost_usd=None)


def tell_ended(status: str, ids: Mapping[str, Any], line: JobLine) -> None:
    """A job has ended; `status` is its `JobStatus`."""
    if status == JobStatus.SUCCEEDED:
        log.info("job_succeeded", **ids, **line)
    elif status == JobStatus.FAILED:
        log.warning("job_failed", **ids, **line)
    elif status == JobStatus.CANCELED:
        log.info("job_canceled", **ids, **line)
    else:
        log.warning("job_expired", **ids, **line)


def tell_retrying(ids: Mapping[str, Any], line: JobLine) -> None:
    """An attempt failed, and the job is queued again."""
    log.info("job_retrying", **ids, **line)


def tell_requeued(ids: Mapping[str, Any], line: JobLine) -> None:
    """An attempt was cut short, because its worker was lost or stopped, and the job is queued again."""
    log.warning("job_requeued", **ids, **line)


def tell_discarded(ids: Mapping[str, Any], line: JobLine) -> None:
    """An outcome came too late: the job is another attempt's, or has ended."""
    log.warning("job_outcome_discarded", **ids, **line)
