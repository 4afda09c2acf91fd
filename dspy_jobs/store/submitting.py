"""Operations that accept jobs and batches, and send a batch's jobs to the workers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dspy_jobs import names
from dspy_jobs.settings import JobSettings
from dspy_jobs.store.script import Operation, script
from dspy_jobs.store.wire import flat, text, time_of
from dspy_jobs.submissions import DEFAULT_MIN_ITEMS


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """How long a job's keys live, in milliseconds."""

    expires_in: int
    retention: int
    tombstone: int
    is_sooner: bool = False
    """Whether the job must start sooner than others."""

    @classmethod
    def of(cls, jobs: JobSettings, expires_in_seconds: float | None = None) -> Lifetimes:
        """The configured lifetimes, with the caller's time to start if it gave one."""
        expires = jobs.expires_in_seconds if expires_in_seconds is None else expires_in_seconds
        return cls(
            int(expires * 1000),
            int(jobs.retention_seconds * 1000),
            int(jobs.tombstone_seconds * 1000),
            expires < jobs.expires_in_seconds,
        )


def submit_job(
    job_id: str,
    request: bytes,
    queue: str,
    step: int,
    fields: dict[str, Any],
    lifetimes: Lifetimes,
    queue_limit: int,
    now_ms: int | None = None,
) -> Operation[tuple[bool, int]]:
    """Accept a job: its record and its message in one step. Answers (accepted, creation time or jobs queued)."""
    args = (
        time_of(now_ms), job_id, request, queue_limit, lifetimes.retention, lifetimes.tombstone,
        lifetimes.expires_in, queue, step, "1" if lifetimes.is_sooner else "0", *flat(fields),
    )  # fmt: skip
    return Operation(script("submit_job"), args, lambda raw: (raw[0] == b"accepted", int(raw[1])))


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """What pauses a batch; None where nothing does."""

    cost_nanos: int | None = None
    error_rate: float | None = None
    min_items: int = DEFAULT_MIN_ITEMS
    """Jobs that must have run before the error rate counts."""

    def fields(self) -> dict[str, Any]:
        """As the batch's hash has them."""
        limits = {"limit_cost": self.cost_nanos, "limit_error_rate": self.error_rate, "limit_min_items": self.min_items}
        return {name: value for name, value in limits.items() if value is not None}


@dataclass(frozen=True, slots=True)
class BatchHead:
    """What the store must know of a batch while its items arrive. Items without a route go to its queue and model."""

    id: str
    queue: str
    step: int
    program: str
    model: str
    max_attempts: int
    lifetimes: Lifetimes
    client: str = "default"
    limits: BatchLimits | None = None


@dataclass(frozen=True, slots=True)
class Route:
    """Where a job goes: the variant of its program that runs it, if there are any, and the model."""

    variant: str
    model: str

    @property
    def queue(self) -> str:
        """The queue of the model."""
        return names.queue(self.model)


def stage_items(
    head: BatchHead, items: Sequence[tuple[str, bytes]], now_ms: int | None = None, routes: Sequence[Route] = ()
) -> Operation[int]:
    """Write items (id, request) of an upload that is not yet a batch. Answers how many it has so far.

    `routes` are those of the items, one each; without any all go where the head says.
    """
    table = list(dict.fromkeys(routes))
    places = {route: number for number, route in enumerate(table, 1)}
    numbers = [places[route] for route in routes] or [1] * len(items)
    rows = [(route.variant, route.queue, route.model) for route in table] or [("", head.queue, head.model)]
    args = (
        time_of(now_ms), head.id, head.step, head.program, head.max_attempts, head.lifetimes.expires_in,
        head.lifetimes.retention, head.lifetimes.tombstone, head.client, len(rows),
        *(part for row in rows for part in row),
        *(part for item, number in zip(items, numbers, strict=True) for part in (*item, number)),
    )  # fmt: skip
    return Operation(script("stage_items"), args, int)


def commit_batch(
    head: BatchHead,
    request: bytes,
    total: int,
    queue_limit: int,
    now_ms: int | None = None,
    queued: Mapping[str, int] | None = None,
) -> Operation[tuple[str, int]]:
    """Make a staged upload a batch: `("accepted", time)`, `("queue_full", queued)` or `("lost", items found)`.

    `queued` is how many of its jobs each queue gets; without it the head's queue gets them all.
    """
    times = head.lifetimes
    fields = {
        "program": head.program, "model": head.model, "priority": head.step, "retention": times.retention,
        "tombstone": times.tombstone, "expires_in": times.expires_in, "client": head.client,
        **(head.limits.fields() if head.limits else {}),
    }  # fmt: skip
    numbers = queued or {head.queue: total}
    args = (
        time_of(now_ms), head.id, request, queue_limit, total, times.expires_in, len(numbers), *flat(dict(numbers)),
        *flat(fields),
    )  # fmt: skip
    return Operation(script("commit_batch"), args, lambda raw: (text(raw[0]), int(raw[1])))


def discard_staged(batch_id: str, limit: int = 1000) -> Operation[int]:
    """Remove a part of an upload that was refused or abandoned. Answers how many of its items are left."""
    return Operation(script("discard_staged"), (batch_id, limit), int)


def release_jobs(batch_id: str, pointer: int, sizes: Sequence[int], now_ms: int | None = None) -> Operation[int]:
    """Send the batch's next jobs in chunks of these sizes. Answers the new pointer, or -1 if it was not `pointer`."""
    return Operation(script("release_jobs"), (time_of(now_ms), batch_id, pointer, *sizes), int)


@dataclass(frozen=True, slots=True)
class Release:
    """How far the jobs of a batch have been sent."""

    status: str
    released: int
    total: int
    parked: int
    slots: int
    """Threads of the live workers of its queues."""


def read_release(batch_id: str, now_ms: int | None = None) -> Operation[Release | None]:
    """Read how far a batch has been sent; None where there is no such batch."""

    def read(raw: list[Any]) -> Release | None:
        return Release(text(raw[0]), *(int(number) for number in raw[1:])) if raw else None

    return Operation(script("read_release"), (time_of(now_ms), batch_id), read)


def read_slots(queue: str, now_ms: int | None = None) -> Operation[int]:
    """Read how many threads the live workers of a queue have."""
    return Operation(script("read_slots"), (time_of(now_ms), queue), int)
