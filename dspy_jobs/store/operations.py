"""Every Redis operation of the product: which script, which arguments, how to read the answer.

`now_ms=None` lets Redis's own clock count, as all processes do; tests pass theirs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from dspy_jobs import names
from dspy_jobs.descriptions import ProgramDescription
from dspy_jobs.messages import MESSAGE_TEMPLATE
from dspy_jobs.problems import problem
from dspy_jobs.settings import JobSettings
from dspy_jobs.store.books import Bill
from dspy_jobs.store.flights import Flight
from dspy_jobs.store.records import (
    Claim,
    NotClaimed,
    QueueNumbers,
    StoredBatch,
    StoredJob,
    Taken,
    gate_of,
    stored_job,
    text_fields,
)
from dspy_jobs.store.script import Operation, script
from dspy_jobs.submissions import DEFAULT_MIN_ITEMS

CANCELED = orjson.dumps(problem("canceled", "The job was canceled before it ended.").model_dump(exclude_none=True))
EXPIRED = orjson.dumps(
    problem("expired", "The job did not start within its expires_in_seconds.").model_dump(exclude_none=True)
)
_WORKER_LOST = orjson.dumps(
    problem("worker_lost", "The worker that held the job was lost.").model_dump(exclude_none=True)
)


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


def _time(now_ms: int | None) -> str:
    return "" if now_ms is None else str(now_ms)


def _text(value: bytes) -> str:
    return value.decode()


def _texts(values: Iterable[bytes]) -> list[str]:
    return [value.decode() for value in values]


def _flat(fields: dict[str, Any]) -> list[Any]:
    return [part for pair in fields.items() for part in pair]


# ---- submit ----------------------------------------------------------------------------------------------------


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
        _time(now_ms), job_id, request, MESSAGE_TEMPLATE, queue_limit, lifetimes.retention, lifetimes.tombstone,
        lifetimes.expires_in, queue, step, "1" if lifetimes.is_sooner else "0", *_flat(fields),
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
        _time(now_ms), head.id, head.step, head.program, head.max_attempts, head.lifetimes.expires_in,
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
        _time(now_ms), head.id, request, queue_limit, total, times.expires_in, len(numbers), *_flat(dict(numbers)),
        *_flat(fields),
    )  # fmt: skip
    return Operation(script("commit_batch"), args, lambda raw: (_text(raw[0]), int(raw[1])))


def discard_staged(batch_id: str, limit: int = 1000) -> Operation[int]:
    """Remove a part of an upload that was refused or abandoned. Answers how many of its items are left."""
    return Operation(script("discard_staged"), (batch_id, limit), int)


def release_jobs(batch_id: str, pointer: int, sizes: Sequence[int], now_ms: int | None = None) -> Operation[int]:
    """Send the batch's next jobs in chunks of these sizes. Answers the new pointer, or -1 if it was not `pointer`."""
    return Operation(script("release_jobs"), (_time(now_ms), batch_id, MESSAGE_TEMPLATE, pointer, *sizes), int)


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
        return Release(_text(raw[0]), *(int(number) for number in raw[1:])) if raw else None

    return Operation(script("read_release"), (_time(now_ms), batch_id), read)


def read_slots(queue: str, now_ms: int | None = None) -> Operation[int]:
    """Read how many threads the live workers of a queue have."""
    return Operation(script("read_slots"), (_time(now_ms), queue), int)


# ---- run -------------------------------------------------------------------------------------------------------


#: Bytes of requests that come along with the jobs of one message.
_REQUEST_BYTES = 262_144


def take_jobs(worker: str, ids: Sequence[str], now_ms: int | None = None) -> Operation[list[Taken]]:
    """Take the jobs of a received message that still wait; each at most once, however often it is delivered."""

    def read(raw: list[Any]) -> list[Taken]:
        at, rows = raw
        return [_taken(row, int(at)) for row in rows]

    return Operation(script("take_jobs"), (_time(now_ms), worker, _REQUEST_BYTES, *ids), read)


def _taken(row: list[Any], at: int) -> Taken:
    job_id, attempts, batch, program, model, variant, leader, request = row
    return Taken(
        id=_text(job_id), attempts=int(attempts), batch=_text(batch), program=_text(program), model=_text(model),
        variant=_text(variant), leader=_text(leader), request=request, at=at,
    )  # fmt: skip


def claim_job(
    worker: str,
    job_id: str,
    nonce: str,
    may_yield: bool = False,
    probe_seconds: float = 60,
    now_ms: int | None = None,
    flight: Flight | None = None,
    with_request: bool = True,
) -> Operation[Claim | NotClaimed]:
    """Start an attempt of a taken job, unless its queue's gate is closed.

    Args:
        worker: who has taken the job.
        job_id: the job.
        nonce: the caller's own for this claim: repeating the operation with it claims the same attempt.
        may_yield: let a more urgent message through first.
        probe_seconds: how long the fleet waits for this job to settle a half-open circuit, should it be the probe.
        now_ms: the time, for tests.
        flight: the answer it is after, for jobs that may share one.
        with_request: whether the claim is to hold the request; false where `take_jobs` has brought it.
    """

    def read(raw: list[Any]) -> Claim | NotClaimed:
        if raw[0] == b"gated":
            return _gated(raw)
        if raw[0] in (b"following", b"answered"):
            return NotClaimed(_text(raw[0]), leader=_text(raw[1]))
        if raw[0] != b"claimed":
            return NotClaimed(_text(raw[0]))
        program, model, max_attempts, tries, created, limited, fallen, answered, variant = raw[5]
        return Claim(
            id=job_id, attempt=int(raw[1]), started_at=int(raw[2]), batch=_text(raw[3]),
            request=orjson.loads(raw[4] or b"{}"), program=_text(program), model=_text(model),
            max_attempts=int(max_attempts), tries=int(tries or 0), created_at=int(created),
            limited=int(limited or 0), fallen=tuple(_text(fallen).split(",")) if fallen else (),
            is_probe=raw[6] == job_id.encode(), answered=int(answered or 0), variant=_text(variant or b""),
        )  # fmt: skip

    #: Milliseconds within which only as many threads give way as urgent messages wait.
    yields_lifetime = 200
    args = (
        _time(now_ms), worker, job_id, nonce, EXPIRED, "1" if may_yield else "0", yields_lifetime,
        int(probe_seconds * 1000), *(flight or Flight()).args(), "1" if with_request else "0",
    )  # fmt: skip
    return Operation(script("claim_job"), args, read)


def _gated(raw: list[Any]) -> NotClaimed:
    reason, queue, model, fallen = (_text(part) for part in (raw[1], *raw[3:6]))
    return NotClaimed("gated", reason, int(raw[2]) / 1000, queue, (model, *fallen.split(",")) if fallen else (model,))


def finish_job(
    worker: str,
    claim: Claim,
    status: str,
    outcome: bytes,
    bill: Bill,
    now_ms: int | None = None,
    use: str = "",
    last_record: bytes = b"",
) -> Operation[bool]:
    """Publish an attempt's outcome, once. False if the claim is stale: another attempt has the job.

    `use` says how it came by its output: `miss` or `bypass` of the cache; '' without an output. `last_record`, if any,
    takes the place of the last one in the journal, which stays for a retry by hand.
    """
    args = (_time(now_ms), worker, claim.id, claim.attempt, status, outcome, use, last_record, *bill.args())
    return Operation(script("finish_job"), args, lambda raw: raw == b"finished")


def retry_later(
    worker: str,
    claim: Claim,
    attempt: bytes,
    delay_seconds: float,
    wait_reason: str,
    bill: Bill,
    counter: Literal["tries", "limited", "none"] = "tries",
    fall_back_to: str = "",
    now_ms: int | None = None,
) -> Operation[str]:
    """Keep an attempt that did not end the job and queue the job after a wait, on another model if one is named.

    Answers `delayed`, `canceled` or `stale`. `counter` is what the attempt counts as.
    """
    delay = int(delay_seconds * 1000)
    args = (
        _time(now_ms), worker, claim.id, claim.attempt, attempt, delay, wait_reason, CANCELED,
        counter, fall_back_to, *bill.args(),
    )  # fmt: skip
    return Operation(script("retry_later"), args, _text)


def hand_back(worker: str, ids: Sequence[str], chunk_size: int, now_ms: int | None = None) -> Operation[int]:
    """Give taken jobs that did not start back to the queue, to be next."""
    return Operation(script("hand_back"), (_time(now_ms), worker, MESSAGE_TEMPLATE, chunk_size, *ids), int)


# ---- keep going --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Renewal:
    """What a worker learns when it renews its lease."""

    to_stop: list[str]
    """Jobs it must stop."""
    closed: dict[str, tuple[str, float]]
    """Its closed queues: why, and for how many seconds (0: look again)."""


def renew_worker(
    worker: str, lease_seconds: float, description: bytes, queues: Sequence[str], now_ms: int | None = None
) -> Operation[Renewal]:
    """Say that a worker lives."""

    def read(raw: list[Any]) -> Renewal:
        closed = {_text(raw[1][i]): (_text(raw[1][i + 1]), int(raw[1][i + 2]) / 1000) for i in range(0, len(raw[1]), 3)}
        return Renewal(_texts(raw[0]), closed)

    args = (_time(now_ms), worker, int(lease_seconds * 1000), description, *queues)
    return Operation(script("renew_worker"), args, read)


def retire_worker(worker: str, queues: Sequence[str]) -> Operation[int]:
    """Say that a worker consumes nothing more."""
    return Operation(script("retire_worker"), (worker, *queues), int)


def recover_lost(
    max_losses: int, limit: int = 200, now_ms: int | None = None, grace_seconds: float = 0
) -> Operation[tuple[int, int]]:
    """Queue again what lost workers held. Answers (recovered, failed for good).

    `grace_seconds` is how long live workers get to renew their leases after a time in which nobody called this, as
    when Redis was away; calls must come at least twice in it.
    """
    grace = int(grace_seconds * 1000)
    args = (_time(now_ms), MESSAGE_TEMPLATE, limit, max_losses, _WORKER_LOST, CANCELED, grace)
    return Operation(script("recover_lost"), args, lambda raw: (int(raw[0]), int(raw[1])))


def wake_delayed(limit: int = 500, now_ms: int | None = None) -> Operation[int]:
    """Send jobs whose wait is over. Answers how many."""
    return Operation(script("wake_delayed"), (_time(now_ms), MESSAGE_TEMPLATE, limit), int)


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
        return Chores(*(_texts(ids) for ids in raw))

    return Operation(script("find_chores"), (_time(now_ms), stale_ms, limit), read)


# ---- change ------------------------------------------------------------------------------------------------------


def cancel_job(job_id: str, now_ms: int | None = None) -> Operation[tuple[str, str]]:
    """Cancel a job. Answers (`missing | canceled | canceling | finished`, its status)."""
    args = (_time(now_ms), job_id, CANCELED)
    return Operation(script("cancel_job"), args, lambda raw: (_text(raw[0]), _text(raw[1])))


def retry_jobs(
    ids: Sequence[str], lifetimes: Lifetimes, chunk_size: int = 1, now_ms: int | None = None
) -> Operation[tuple[int, str]]:
    """Queue ended jobs again. Answers (requeued, status of the first that was refused or '')."""
    args = (_time(now_ms), MESSAGE_TEMPLATE, lifetimes.expires_in, chunk_size, *ids)
    return Operation(script("retry_jobs"), args, lambda raw: (int(raw[0]), _text(raw[1])))


def erase_job(job_id: str) -> Operation[str]:
    """Erase an ended job's inputs and outputs. Answers `erased`, `missing`, or the status that forbids it."""
    return Operation(script("erase_job"), (job_id,), _text)


def pause_batch(batch_id: str, now_ms: int | None = None) -> Operation[str]:
    """Pause a batch. Answers its status before, or `missing`."""
    return Operation(script("pause_batch"), (_time(now_ms), batch_id), _text)


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
    args = (_time(now_ms), batch_id, MESSAGE_TEMPLATE, chunk_size, limit, "1" if unpause else "0", *_flat(limits))
    return Operation(script("resume_batch"), args, lambda raw: (_text(raw[0]), int(raw[1])))


def cancel_batch(
    batch_id: str, position: int = 0, limit: int = 500, now_ms: int | None = None
) -> Operation[tuple[str, int]]:
    """One step of canceling a batch. Answers (status before or `missing`, next position or -1 when through)."""
    args = (_time(now_ms), batch_id, CANCELED, position, limit)
    return Operation(script("cancel_batch"), args, lambda raw: (_text(raw[0]), int(raw[1])))


# ---- read --------------------------------------------------------------------------------------------------------


def read_rows(ids: Sequence[str]) -> Operation[list[list[Any]]]:
    """Read jobs as the script gives them, for `stored_job` to make something of."""
    return Operation(script("read_jobs"), ("", "1", *ids), lambda raw: raw)


def read_jobs(
    ids: Sequence[str], shared: dict[str, Any] | None = None, now_ms: int | None = None
) -> Operation[list[StoredJob | None]]:
    """Read jobs whole. `shared` is what their common batch shares, if the caller has read it already."""

    def read(raw: list[Any]) -> list[StoredJob | None]:
        return [stored_job(job_id, job, shared) for job_id, job in zip(ids, raw, strict=True)]

    return Operation(script("read_jobs"), (_time(now_ms), "0" if shared is not None else "1", *ids), read)


def read_batch(batch_id: str, now_ms: int | None = None) -> Operation[StoredBatch | None]:
    """Read a batch whole."""

    def read(raw: list[Any]) -> StoredBatch | None:
        if not raw:
            return None
        request = orjson.loads(raw[1]) if raw[1] else None
        return StoredBatch(batch_id, text_fields(raw[0]), request, int(raw[2]), int(raw[3]), gate_of(raw[4], raw[5]))

    return Operation(script("read_batch"), (_time(now_ms), batch_id), read)


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs a listing wants; an empty string means any."""

    status: str = ""
    program: str = ""
    model: str = ""
    variant: str = ""
    batch: str = ""


def list_jobs(after: str, limit: int, wanted: JobFilter, scan: int = 2000) -> Operation[tuple[str, list[str]]]:
    """Look through at most `scan` of the newest jobs before `after`. Answers (where to go on or '', matching ids)."""
    args = (after, limit, scan, wanted.status, wanted.program, wanted.model, wanted.variant, wanted.batch)
    return Operation(script("list_jobs"), args, lambda raw: (_text(raw[0]), _texts(raw[1:])))


def read_queues(queues: Sequence[str], now_ms: int | None = None) -> Operation[list[QueueNumbers]]:
    """Read the numbers of queues."""

    def read(raw: list[Any]) -> list[QueueNumbers]:
        return [
            QueueNumbers(
                name, int(q[0]), int(q[1]), None if q[2] is None else int(q[2]), int(q[3]), gate_of(q[4], q[5])
            )
            for name, q in zip(queues, raw, strict=True)
        ]

    return Operation(script("read_queues"), (_time(now_ms), *queues), read)


def description_of(raw: bytes) -> ProgramDescription:
    """A program's description as a worker published it."""
    return ProgramDescription.model_validate_json(raw)
