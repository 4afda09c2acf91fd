"""Operations on what says "not now" for a queue: circuits, provider limits, an operator's pause."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

from dspy_jobs import names
from dspy_jobs.settings import BreakerSettings
from dspy_jobs.states import WaitReason
from dspy_jobs.store.script import Operation, script
from dspy_jobs.store.wire import time_of


@dataclass(frozen=True, slots=True)
class FleetCircuit:
    """The fleet's verdict on a model: closed, or open for so many more seconds (0: half-open, one probe at a time)."""

    is_open: bool
    seconds: float = 0.0


def report_calls(
    model: str,
    breaker: BreakerSettings,
    successes: int,
    faults: int,
    *,
    fatal: bool = False,
    probe: str = "",
    now_ms: int | None = None,
) -> Operation[FleetCircuit]:
    """Tell how calls of a model went. `probe` is the id of the job that was let through a half-open circuit."""

    def read(raw: list[Any]) -> FleetCircuit:
        return FleetCircuit(False) if raw[0] == b"closed" else FleetCircuit(True, int(raw[1]) / 1000)

    args = (
        time_of(now_ms), model, names.queue(model), successes, faults, "1" if fatal else "0", probe,
        breaker.failure_threshold, breaker.failure_rate, int(breaker.window_seconds * 1000),
        breaker.success_threshold, int(breaker.reset_seconds * 1000),
    )  # fmt: skip
    return Operation(script("report_calls"), args, read)


def release_probe(model: str, job_id: str) -> Operation[int]:
    """Let another probe: this one's job ended without settling the circuit."""
    return Operation(script("release_probe"), (model, job_id), int)


def rest_circuits(breakers: Mapping[str, BreakerSettings], now_ms: int | None = None) -> Operation[int]:
    """Close circuits, by model, that are half-open and that no job has probed for a window. Answers how many."""
    rows = ((model, names.queue(model), int(breaker.window_seconds * 1000)) for model, breaker in breakers.items())
    return Operation(script("rest_circuits"), (time_of(now_ms), *chain.from_iterable(rows)), int)


def close_gate(queue: str, reason: WaitReason, seconds: float = 0, now_ms: int | None = None) -> Operation[int]:
    """Close a queue for so many seconds, 0 meaning until it is opened. A longer closing stays."""
    args = (time_of(now_ms), queue, reason, int(seconds * 1000))
    return Operation(script("close_gate"), args, int)


def open_gate(queue: str, reason: WaitReason) -> Operation[int]:
    """Open a queue that was closed for a reason; others may still keep it closed. Answers 1 if it was closed."""
    return Operation(script("open_gate"), (queue, reason), int)


def divert_job(worker: str, job_id: str, model: str, now_ms: int | None = None) -> Operation[int]:
    """Send a taken job that did not start to another model's queue. Answers 1 if it went."""
    args = (time_of(now_ms), worker, job_id, model)
    return Operation(script("divert_job"), args, int)
