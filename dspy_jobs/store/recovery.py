"""Operations that put right what a dying process, a lost message or a stopping worker leaves."""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from dspy_jobs.ids import first_batch_id, first_job_id
from dspy_jobs.messages import MESSAGE_TEMPLATE
from dspy_jobs.problems import problem
from dspy_jobs.store.operations import CANCELED, EXPIRED
from dspy_jobs.store.script import Operation, script

_STOPPED = orjson.dumps(
    problem("worker_lost", "The worker was told to stop before the attempt ended.").model_dump(exclude_none=True)
)


def surrender_jobs(worker: str, limit: int = 500, now_ms: int | None = None) -> Operation[int]:
    """Give back up to `limit` of the jobs a stopping worker holds, running or not. Answers how many went back."""
    args = ("" if now_ms is None else now_ms, worker, MESSAGE_TEMPLATE, limit, _STOPPED, CANCELED)
    return Operation(script("surrender_jobs"), args, int)


def expire_due(limit: int, usual_seconds: float, queues: Sequence[str], now_ms: int | None = None) -> Operation[int]:
    """End jobs that did not start in time. Answers how many were looked at; `limit` or more means there are more.

    `usual_seconds` is the time to start of jobs whose callers asked for nothing else.
    """
    args = ("" if now_ms is None else now_ms, EXPIRED, limit, int(usual_seconds * 1000), *queues)
    return Operation(script("expire_due"), args, int)


def trim_index(oldest_ms: int, limit: int = 500, share: float = 0.0) -> Operation[int]:
    """Forget up to `limit` ids made before a time whose records are gone; `share`, 0 to 1, says where to look."""
    args = (first_job_id(oldest_ms), first_batch_id(oldest_ms), limit, share)
    return Operation(script("trim_index"), args, int)


def resend_lost(queue: str, grace_seconds: float = 5, limit: int = 200, now_ms: int | None = None) -> Operation[int]:
    """Send jobs again whose message has vanished for at least `grace_seconds`. Answers how many."""
    args = ("" if now_ms is None else now_ms, MESSAGE_TEMPLATE, queue, int(grace_seconds * 1000), limit)
    return Operation(script("resend_lost"), args, int)
