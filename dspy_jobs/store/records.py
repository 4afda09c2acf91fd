"""Jobs, batches and queues as Redis holds them, before they become what HTTP shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson


@dataclass(frozen=True, slots=True)
class Gate:
    """A closed queue: a `WaitReason`, and until when (ms since 1970; None: until somebody or something opens it)."""

    reason: str
    until: int | None


@dataclass(frozen=True, slots=True)
class StoredJob:
    """A job read whole. Times are milliseconds since 1970."""

    id: str
    fields: dict[str, str]
    request: dict[str, Any] | None
    """What the caller gave, over what its batch shares; None once erased or past its retention."""
    outcome: dict[str, Any] | None
    attempts: list[dict[str, Any]]
    rank: int | None
    """Jobs that wait before it in its queue, if it waits."""
    workers: int
    """Live workers that consume its queue; only known for a queued job."""
    paused: str
    """Why its batch is paused, a `PauseReason`; '' if it is not. Only known for a queued job."""
    gate: Gate | None = None
    """Why its queue is closed, if it is; only known for a queued job."""

    @property
    def status(self) -> str:
        """A `JobStatus`."""
        return self.fields["status"]

    @property
    def is_gone(self) -> bool:
        """Whether it was here and its inputs and outputs no longer are."""
        return self.request is None


@dataclass(frozen=True, slots=True)
class StoredBatch:
    """A batch read whole."""

    id: str
    fields: dict[str, str]
    request: dict[str, Any] | None
    results: int
    """Length of its list of results."""
    workers: int
    gate: Gate | None = None
    """Why its queue is closed, if it is."""

    @property
    def status(self) -> str:
        """A `BatchStatus`."""
        return self.fields["status"]


@dataclass(frozen=True, slots=True)
class Claim:
    """A job this worker now runs, under the fencing token `attempt`."""

    id: str
    attempt: int
    started_at: int
    """Milliseconds since 1970, by Redis's clock."""
    created_at: int
    batch: str
    program: str
    model: str
    request: dict[str, Any]
    """What the caller gave for this job alone; what its batch shares is read separately."""
    max_attempts: int
    tries: int
    """Failed attempts before this one since it was last submitted, retried by hand or fell back."""
    limited: int
    """Attempts before this one that met a provider's rate limit; they do not count as tries."""
    fallen: tuple[str, ...]
    """Models it has left for this one."""
    is_probe: bool
    """Whether this attempt may call a model whose circuit is half-open."""
    answered: int = 0
    """Model calls of earlier attempts whose answers are kept for this one."""
    variant: str = ""
    """The variant of its program it runs; empty if it has none."""
    first_started_at: int = 0
    """When its first attempt began."""


@dataclass(frozen=True, slots=True)
class Taken:
    """A job a worker took from a message; it has not started."""

    id: str
    attempts: int
    """Attempts so far."""
    batch: str
    program: str
    model: str
    variant: str
    leader: str
    """The job whose answer is this one's too; '' if it followed none."""
    request: bytes
    """What the caller gave for this job alone (JSON); empty if it was too large to come along."""
    at: int
    """When it was taken, in milliseconds since 1970 by Redis's clock."""


@dataclass(frozen=True, slots=True)
class NotClaimed:
    """Why a job was not claimed.

    `gone`, `parked`, `expired`, `urgent` (someone more urgent goes first), `gated`, `following` (it waits for the
    answer of another job like it) or `answered` (another job like it has just been answered).
    """

    reason: str
    gate: str = ""
    """Why the queue is closed."""
    seconds: float = 0.0
    """For how long; 0 means until it is looked at again."""
    queue: str = ""
    """The closed queue."""
    models: tuple[str, ...] = ()
    """The job's model and those it has left for it."""
    leader: str = ""
    """The job whose answer is this one's too."""


@dataclass(frozen=True, slots=True)
class QueueNumbers:
    """A queue at this moment."""

    name: str
    queued: int
    running: int
    oldest: int | None
    """When the oldest waiting message was sent, in milliseconds since 1970."""
    workers: int
    gate: Gate | None = None


def gate_of(reason: bytes | None, until: int | bytes) -> Gate | None:
    """A gate as the scripts answer it."""
    return Gate(reason.decode(), int(until) or None) if reason else None


def text_fields(flat: list[bytes]) -> dict[str, str]:
    """A hash as `HGETALL` answers it inside a script."""
    return {flat[i].decode(): flat[i + 1].decode() for i in range(0, len(flat), 2)}


def stored_job(job_id: str, raw: list[Any], shared: dict[str, Any] | None = None) -> StoredJob | None:
    """A job from `read_jobs.lua`; `shared` is what its batch shares if the script was not asked for it."""
    if not raw:
        return None
    flat, request, outcome, attempts, batch_request, rank, workers, paused, gate, until = raw
    own = orjson.loads(request) if request else None
    if own is not None:
        own = {**(orjson.loads(batch_request) if batch_request else shared or {}), **own}
    return StoredJob(
        id=job_id,
        fields=text_fields(flat),
        request=own,
        outcome=orjson.loads(outcome) if outcome else None,
        attempts=[orjson.loads(attempt) for attempt in attempts],
        rank=rank,
        workers=workers,
        paused=paused.decode(),
        gate=gate_of(gate, until),
    )
