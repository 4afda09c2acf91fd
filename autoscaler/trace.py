"""A trace: what arrived when, or what the metric was, as a CSV file tells it.

Columns: ``t`` (seconds from the start, never falling) and either ``arrivals`` (jobs that arrive at that moment) with
``service_seconds`` (how long each runs), or ``work`` (the metric itself from that moment on).
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_ARRIVALS = {"t", "arrivals", "service_seconds"}
_WORK = {"t", "work"}


class TraceError(ValueError):
    """A trace cannot be used; the message names the file and the line."""


@dataclass(frozen=True)
class Arrival:
    """Jobs that arrive at one moment and run equally long; times in seconds."""

    t: float
    jobs: int
    service_seconds: float


@dataclass(frozen=True)
class Level:
    """The metric from a moment on."""

    t: float
    work: float


@dataclass(frozen=True)
class Trace:
    """Either of the two kinds; the other one is empty."""

    arrivals: tuple[Arrival, ...] = ()
    levels: tuple[Level, ...] = ()

    @property
    def end(self) -> float:
        """The time of the last row."""
        times = [row.t for row in self.arrivals] + [row.t for row in self.levels]
        return max(times, default=0.0)


def read_trace(path: Path) -> Trace:
    """Read a CSV file; raises TraceError."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.DictReader(line for line in file if not line.startswith("#"))
            columns = set(rows.fieldnames or ())
            if columns == _ARRIVALS:
                return Trace(arrivals=tuple(_arrivals(rows, path)))
            if columns == _WORK:
                return Trace(levels=tuple(_levels(rows, path)))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TraceError(f"{path}: cannot be read: {error}") from error
    raise TraceError(f"{path}: the columns must be t, arrivals and service_seconds, or t and work")


def _arrivals(rows: csv.DictReader[str], path: Path) -> Iterator[Arrival]:
    for t, row, place in _in_order(rows, path):
        jobs = _number(row, "arrivals", place)
        if jobs != int(jobs):
            raise TraceError(f"{place}: arrivals {jobs} is no whole number of jobs")
        yield Arrival(t, int(jobs), _number(row, "service_seconds", place))


def _levels(rows: csv.DictReader[str], path: Path) -> Iterator[Level]:
    for t, row, place in _in_order(rows, path):
        yield Level(t, _number(row, "work", place))


def _in_order(rows: csv.DictReader[str], path: Path) -> Iterator[tuple[float, dict[str, str], str]]:
    before = 0.0
    for row in rows:
        place = f"{path}: line {rows.line_num}"
        t = _number(row, "t", place)
        if t < before:
            raise TraceError(f"{place}: t goes back from {before:g} to {t:g}")
        before = t
        yield t, row, place


def _number(row: dict[str, str], column: str, place: str) -> float:
    try:
        value = float(row[column])
    except (TypeError, ValueError):
        raise TraceError(f"{place}: {column} {row[column]!r} is no number") from None
    if not 0 <= value < float("inf"):
        raise TraceError(f"{place}: {column} {value:g} must be 0 or more, and finite")
    return value
