"""Operations by which the fleet knows its workers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dspy_jobs.store.script import Operation, script
from dspy_jobs.store.wire import flat, text, texts, time_of

#: Milliseconds for which the number of a worker's last report is kept: as long as what it says of itself.
_REPORTED_MS = 86_400_000


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
        closed = {text(raw[1][i]): (text(raw[1][i + 1]), int(raw[1][i + 2]) / 1000) for i in range(0, len(raw[1]), 3)}
        return Renewal(texts(raw[0]), closed)

    args = (time_of(now_ms), worker, int(lease_seconds * 1000), description, *queues)
    return Operation(script("renew_worker"), args, read)


def report_measures(worker: str, number: int, additions: Mapping[str, int]) -> Operation[bool]:
    """Add to what all workers have measured. Reports count from 1; one that was added before adds nothing."""
    args = (worker, number, _REPORTED_MS, *flat(dict(additions)))
    return Operation(script("report_measures"), args, bool)


def retire_worker(worker: str, queues: Sequence[str]) -> Operation[int]:
    """Say that a worker consumes nothing more."""
    return Operation(script("retire_worker"), (worker, *queues), int)
