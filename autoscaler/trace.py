"""A trace: what arrived when, or what the metric was, as a CSV file tells it.

Columns: ``t`` (seconds from the start, never falling) and either ``arrivals`` (how many jobs arrive at that moment, not
a rate) with ``service_seconds`` (how long each runs), or ``work`` (the metric itself from that moment on). Lines that
are blank or begin with ``#`` are left out.
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


@dataclass(frozen=True)
class _Row:
    """One row's fields, and where it stands for whoever has to mend it."""

    fields: dict[str, str]
    place: str

    def number(self, column: str) -> float:
        """The value in a column; raises TraceError."""
        text = self.fields[column]
        try:
            value = float(text)
        except ValueError:
            raise TraceError(f"{self.place}: {column} {text!r} is no number") from None
        if not 0 <= value < float("inf"):
            raise TraceError(f"{self.place}: {column} {value:g} must be 0 or more, and finite")
        return value


def read_trace(path: Path) -> Trace:
    """Read a CSV file; raises TraceError."""
    try:
        columns, rows = _rows(path)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TraceError(f"{path}: cannot be read: {error}") from error
    if columns not in (_ARRIVALS, _WORK):
        raise TraceError(f"{path}: the columns must be t, arrivals and service_seconds, or t and work")
    if not rows:
        raise TraceError(f"{path}: holds no row; add one under the columns")
    if columns == _ARRIVALS:
        return Trace(arrivals=tuple(map(_arrival, _in_order(rows))))
    return Trace(levels=tuple(Level(row.number("t"), row.number("work")) for row in _in_order(rows)))


def _rows(path: Path) -> tuple[set[str], list[_Row]]:
    """The names of the columns, and the rows. Spreadsheets put a byte order mark and spaces where nobody sees them."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        numbered = [(number, line) for number, line in enumerate(file, 1) if line.strip() and line.lstrip()[0] != "#"]
    table = [[cell.strip() for cell in cells] for cells in csv.reader(line for _, line in numbered)]
    columns = table[0] if table else []
    rows = list[_Row]()
    for (number, _), cells in zip(numbered[1:], table[1:], strict=False):
        place = f"{path}: line {number}"
        if len(cells) != len(columns):
            raise TraceError(f"{place}: has {len(cells)} values for {len(columns)} columns")
        rows.append(_Row(dict(zip(columns, cells, strict=True)), place))
    return set(columns), rows


def _arrival(row: _Row) -> Arrival:
    jobs = row.number("arrivals")
    if jobs != int(jobs):
        raise TraceError(f"{row.place}: arrivals {jobs} is no whole number of jobs")
    return Arrival(row.number("t"), int(jobs), row.number("service_seconds"))


def _in_order(rows: list[_Row]) -> Iterator[_Row]:
    before = 0.0
    for row in rows:
        t = row.number("t")
        if t < before:
            raise TraceError(f"{row.place}: t goes back from {before:g} to {t:g}")
        before = t
        yield row
