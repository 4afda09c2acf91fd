"""Operations of a worker on the jobs it runs: take, start, end, try again later, give back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import orjson

from dspy_jobs.store.books import Bill
from dspy_jobs.store.flights import Flight
from dspy_jobs.store.records import (
    Claim,
    NotClaimed,
    Taken,
)
from dspy_jobs.store.script import Operation, script
from dspy_jobs.store.verdicts import CANCELED, EXPIRED
from dspy_jobs.store.wire import text, time_of

#: Bytes of requests that come along with the jobs of one message.
_REQUEST_BYTES = 262_144


def take_jobs(worker: str, ids: Sequence[str], now_ms: int | None = None) -> Operation[list[Taken]]:
    """Take the jobs of a received message that still wait; each at most once, however often it is delivered."""

    def read(raw: list[Any]) -> list[Taken]:
        at, rows = raw
        return [_taken(row, int(at)) for row in rows]

    return Operation(script("take_jobs"), (time_of(now_ms), worker, _REQUEST_BYTES, *ids), read)


def _taken(row: list[Any], at: int) -> Taken:
    job_id, attempts, batch, program, model, variant, leader, request = row
    return Taken(
        id=text(job_id), attempts=int(attempts), batch=text(batch), program=text(program), model=text(model),
        variant=text(variant), leader=text(leader), request=request, at=at,
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
            return NotClaimed(text(raw[0]), leader=text(raw[1]))
        if raw[0] != b"claimed":
            return NotClaimed(text(raw[0]))
        program, model, max_attempts, tries, created, limited, fallen, answered, variant, started = raw[5]
        return Claim(
            id=job_id, attempt=int(raw[1]), started_at=int(raw[2]), batch=text(raw[3]),
            request=orjson.loads(raw[4] or b"{}"), program=text(program), model=text(model),
            max_attempts=int(max_attempts), tries=int(tries or 0), created_at=int(created),
            limited=int(limited or 0), fallen=tuple(text(fallen).split(",")) if fallen else (),
            is_probe=raw[6] == job_id.encode(), answered=int(answered or 0), variant=text(variant or b""),
            first_started_at=int(started),
        )  # fmt: skip

    #: Milliseconds within which only as many threads give way as urgent messages wait.
    yields_lifetime = 200
    args = (
        time_of(now_ms), worker, job_id, nonce, EXPIRED, "1" if may_yield else "0", yields_lifetime,
        int(probe_seconds * 1000), *(flight or Flight()).args(), "1" if with_request else "0",
    )  # fmt: skip
    return Operation(script("claim_job"), args, read)


def _gated(raw: list[Any]) -> NotClaimed:
    reason, queue, model, fallen = (text(part) for part in (raw[1], *raw[3:6]))
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
    args = (time_of(now_ms), worker, claim.id, claim.attempt, status, outcome, use, last_record, *bill.args())
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
        time_of(now_ms), worker, claim.id, claim.attempt, attempt, delay, wait_reason, CANCELED,
        counter, fall_back_to, *bill.args(),
    )  # fmt: skip
    return Operation(script("retry_later"), args, text)


def hand_back(worker: str, ids: Sequence[str], chunk_size: int, now_ms: int | None = None) -> Operation[int]:
    """Give taken jobs that did not start back to the queue, to be next."""
    return Operation(script("hand_back"), (time_of(now_ms), worker, chunk_size, *ids), int)
