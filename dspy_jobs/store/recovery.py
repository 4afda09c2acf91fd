"""Operations that put right what a dying process, a lost message or a stopping worker leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from dspy_jobs.ids import first_batch_id, first_job_id
from dspy_jobs.store import endings
from dspy_jobs.store.script import Operation, script
from dspy_jobs.store.verdicts import CANCELED, EXPIRED, WORKER_LOST, WORKER_STOPPED
from dspy_jobs.store.wire import text, texts, time_of

log = structlog.get_logger("jobs")


def recover_lost(
    max_losses: int, limit: int = 200, now_ms: int | None = None, grace_seconds: float = 0
) -> Operation[tuple[int, int]]:
    """Queue again what lost workers held. Answers (recovered, failed for good).

    `grace_seconds` is how long live workers get to renew their leases after a time in which nobody called this, as
    when Redis was away; calls must come at least twice in it.
    """

    def read(raw: list[Any]) -> tuple[int, int]:
        recovered, failed, rows, workers = raw
        for worker, jobs in workers:
            log.warning("worker_lost", worker=text(worker), jobs=int(jobs))
        endings.tell_of(rows)
        return int(recovered), int(failed)

    grace = int(grace_seconds * 1000)
    args = (time_of(now_ms), limit, max_losses, WORKER_LOST, CANCELED, grace)
    return Operation(script("recover_lost"), args, read)


def wake_delayed(limit: int = 500, now_ms: int | None = None) -> Operation[int]:
    """Send jobs whose wait is over. Answers how many."""
    return Operation(script("wake_delayed"), (time_of(now_ms), limit), int)


@dataclass(frozen=True, slots=True)
class Chores:
    """Batches that a dead process may have left half done."""

    canceling: list[str]
    releasing: list[str]
    abandoned: list[str]
    """Uploads to which nothing was added for long."""


def find_chores(stale_ms: int, limit: int = 50, now_ms: int | None = None) -> Operation[Chores]:
    """Find batches with work left; `stale_ms` is the age of an abandoned upload."""

    def read(raw: list[list[bytes]]) -> Chores:
        return Chores(*(texts(ids) for ids in raw))

    return Operation(script("find_chores"), (time_of(now_ms), stale_ms, limit), read)


def surrender_jobs(worker: str, limit: int = 500, now_ms: int | None = None) -> Operation[int]:
    """Give back up to `limit` of the jobs a stopping worker holds, running or not. Answers how many went back."""
    args = (time_of(now_ms), worker, limit, WORKER_STOPPED, CANCELED)
    return Operation(script("surrender_jobs"), args, _number)


def expire_due(limit: int, usual_seconds: float, queues: Sequence[str], now_ms: int | None = None) -> Operation[int]:
    """End jobs that did not start in time. Answers how many were looked at; `limit` or more means there are more.

    `usual_seconds` is the time to start of jobs whose callers asked for nothing else.
    """
    args = (time_of(now_ms), EXPIRED, limit, int(usual_seconds * 1000), *queues)
    return Operation(script("expire_due"), args, _number)


def _number(raw: list[Any]) -> int:
    number, rows = raw
    endings.tell_of(rows)
    return int(number)


def trim_index(oldest_ms: int, limit: int = 500, share: float = 0.0) -> Operation[int]:
    """Forget up to `limit` ids made before a time whose records are gone; `share`, 0 to 1, says where to look."""
    args = (first_job_id(oldest_ms), first_batch_id(oldest_ms), limit, share)
    return Operation(script("trim_index"), args, int)


def resend_lost(queue: str, grace_seconds: float = 5, limit: int = 200, now_ms: int | None = None) -> Operation[int]:
    """Send jobs again whose message has vanished for at least `grace_seconds`. Answers how many."""
    args = (time_of(now_ms), queue, int(grace_seconds * 1000), limit)
    return Operation(script("resend_lost"), args, int)
