"""Which workers go when there are too many."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Candidate:
    """A worker that could go: whether it takes jobs yet, how many it has, when it was started (seconds)."""

    name: str
    is_ready: bool
    running: int
    started: float


def victims(candidates: Iterable[Candidate], number: int) -> list[str]:
    """The names of the ones whose end costs least: not ready first, then idle, fewest jobs in flight, newest."""
    ordered = sorted(candidates, key=lambda one: (one.is_ready, one.running, -one.started))
    return [one.name for one in ordered[: max(number, 0)]]
