"""What model calls have cost: the books of single days, summed up by day, model, variant, program or client.

The books of a day are a hash of integers, `{model}|{variant}|{program}|{client}|{metric}`. Sums are sums of integers.
What is not known adds nothing and is counted: calls without a price, calls without tokens, attempts whose worker was
lost before it could say what it had called, and cached jobs of which nobody knows what they saved. `complete` says of
each row whether there was no call without a price and no lost attempt.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

from dspy_jobs.money import dollars

#: By what costs can be told apart, in the order in which rows are sorted.
GROUPS = ("day", "model", "variant", "program", "client")

#: Days one report can span.
MOST_DAYS = 400

#: Sums as they are shown, and the metric of the books each is.
_SUMS = {
    "calls": "calls",
    "input_tokens": "input_tokens",
    "output_tokens": "output_tokens",
    "cached_input_tokens": "cached_input_tokens",
    "reasoning_tokens": "reasoning_tokens",
    "cost_nanos": "cost",
    "unpriced_calls": "unpriced",
    "estimated_calls": "estimated",
    "untokened_calls": "untokened",
    "jobs": "jobs",
    "failed": "failed",
    "saved_nanos": "saved",
    "unsaved_jobs": "unsaved",
    "lost_attempts": "lost",
}


@dataclass(frozen=True, slots=True)
class Span:
    """Days in UTC, both ends included."""

    first: date
    last: date

    @property
    def days(self) -> int:
        """How many there are; less than one where the ends are the wrong way round."""
        return (self.last - self.first).days + 1

    def __iter__(self) -> Iterator[date]:
        return (self.first + timedelta(days=number) for number in range(self.days))


def book_day(day: date) -> str:
    """A day as the keys of its books have it."""
    return day.strftime("%Y%m%d")


def book_month(day: date) -> str:
    """A day's month as the keys of its books have it."""
    return day.strftime("%Y%m")


@dataclass(slots=True)
class Costs:
    """The books of some days, summed up by groups."""

    group_by: tuple[str, ...]
    _rows: defaultdict[tuple[str, ...], Counter[str]] = field(default_factory=lambda: defaultdict(Counter))

    def add(self, day: date, books: Mapping[bytes, bytes]) -> None:
        """Add the books of a day as Redis holds them."""
        for name, value in books.items():
            model, variant, program, client, metric = name.decode().split("|")
            known = {"day": day.isoformat(), "model": model, "variant": variant, "program": program, "client": client}
            self._rows[tuple(known[group] for group in self.group_by)][metric] += int(value)

    def rows(self) -> list[dict[str, Any]]:
        """The sums of each group, sorted by the groups' names. No variant is null."""
        return [
            {**{group: value or None for group, value in zip(self.group_by, names, strict=True)}, **_figures(sums)}
            for names, sums in sorted(self._rows.items())
        ]

    def total(self) -> dict[str, Any]:
        """The sums over all groups."""
        return _figures(self._sum())

    @property
    def complete(self) -> bool:
        """Whether the cost of every call is known."""
        return _is_complete(self._sum())

    def _sum(self) -> Counter[str]:
        total: Counter[str] = Counter()
        for sums in self._rows.values():
            total.update(sums)
        return total


def _is_complete(sums: Counter[str]) -> bool:
    return not (sums["unpriced"] or sums["lost"])


def _figures(sums: Counter[str]) -> dict[str, Any]:
    shown = {name: sums[metric] for name, metric in _SUMS.items()}
    return {
        **shown,
        "cost_usd": dollars(shown["cost_nanos"]),
        "cached": sums["hit"] + sums["coalesced"],
        "saved_usd": dollars(shown["saved_nanos"]),
        "complete": _is_complete(sums),
    }
