"""Operations by which callers change jobs and batches: cancel, retry, erase, pause, resume."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dspy_jobs.store import endings
from dspy_jobs.store.script import Operation, script
from dspy_jobs.store.submitting import Lifetimes
from dspy_jobs.store.verdicts import CANCELED
from dspy_jobs.store.wire import flat, text, time_of


def cancel_job(job_id: str, now_ms: int | None = None) -> Operation[tuple[str, str]]:
    """Cancel a job. Answers (`missing | canceled | canceling | finished`, its status)."""

    def read(raw: list[Any]) -> tuple[str, str]:
        what, status, rows = raw
        endings.tell_of(rows)
        return text(what), text(status)

    return Operation(script("cancel_job"), (time_of(now_ms), job_id, CANCELED), read)


def retry_jobs(
    ids: Sequence[str], lifetimes: Lifetimes, chunk_size: int = 1, now_ms: int | None = None
) -> Operation[tuple[int, str]]:
    """Queue ended jobs again. Answers (requeued, status of the first that was refused or '')."""
    args = (time_of(now_ms), lifetimes.expires_in, chunk_size, *ids)
    return Operation(script("retry_jobs"), args, lambda raw: (int(raw[0]), text(raw[1])))


def erase_job(job_id: str) -> Operation[str]:
    """Erase an ended job's inputs and outputs. Answers `erased`, `missing`, or the status that forbids it."""
    return Operation(script("erase_job"), (job_id,), text)


def pause_batch(batch_id: str, now_ms: int | None = None) -> Operation[str]:
    """Pause a batch. Answers its status before, or `missing`."""
    return Operation(script("pause_batch"), (time_of(now_ms), batch_id), text)


#: New limits of a batch by field (`limit_cost`, `limit_error_rate`, `limit_min_items`); None takes one away.
LimitChange = Mapping[str, int | float | None]


def resume_batch(
    batch_id: str,
    chunk_size: int,
    limit: int = 1000,
    unpause: bool = True,
    now_ms: int | None = None,
    change: LimitChange | None = None,
) -> Operation[tuple[str, int]]:
    """Resume a batch, under new limits if any are given, and send parked jobs.

    Answers (status before or `missing`, parked jobs left), or (`max_cost`, the least limit in nano-dollars) where a
    batch was paused for what it has spent and would be again at once: then nothing is changed.
    Without `unpause` a paused batch stays paused: for going on with a resumption that was cut short.
    """
    limits = {field: "" if value is None else value for field, value in (change or {}).items()}
    args = (time_of(now_ms), batch_id, chunk_size, limit, "1" if unpause else "0", *flat(limits))
    return Operation(script("resume_batch"), args, lambda raw: (text(raw[0]), int(raw[1])))


def cancel_batch(
    batch_id: str, position: int = 0, limit: int = 500, now_ms: int | None = None
) -> Operation[tuple[str, int]]:
    """One step of canceling a batch. Answers (status before or `missing`, next position or -1 when through)."""

    def read(raw: list[Any]) -> tuple[str, int]:
        before, following, rows = raw
        endings.tell_of(rows)
        return text(before), int(following)

    args = (time_of(now_ms), batch_id, CANCELED, position, limit)
    return Operation(script("cancel_batch"), args, read)
