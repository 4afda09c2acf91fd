"""Totals that never go back, however long the service lives: what metrics show of jobs, money, tokens and failures.

The books of a day tell clients apart and are forgotten after `costs.retention_days`. Before that they are folded into
the hash `dj:counted`, client by client into one; what the books do not tell is counted there from the start. A total is
what is folded plus what stands in books that are still open.

| field of `dj:counted` | counts |
|---|---|
| `{model}|{variant}|{program}|{metric}` | the books' metrics; jobs that were `canceled` or have `expired` |
| `error|{model}|{code}` | jobs that failed |
| `attempts|{model}|{outcome}` | attempts that did not end their job: `retried`, `fell_back` or `recovered` |
| `recovered|{queue}` | jobs taken back from lost workers |
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from dspy_jobs import names
from dspy_jobs.stored_numbers import integers

#: What may become of an attempt that does not end its job.
ATTEMPT_OUTCOMES = ("retried", "fell_back", "recovered")

#: Hashes of counts as Redis holds them.
Counts = Mapping[bytes, bytes]


class Work(NamedTuple):
    """What jobs are told apart by. No variant is ''."""

    program: str
    model: str
    variant: str


@dataclass(frozen=True, slots=True)
class Counted:
    """Everything counted so far."""

    of_work: dict[Work, Counter[str]] = field(default_factory=dict)
    """The books' metrics and `canceled` and `expired`."""
    failures: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Failed jobs by model and code."""
    attempts: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By model and outcome."""
    recovered: Counter[str] = field(default_factory=Counter)
    """Jobs by queue."""

    def add(self, parts: tuple[str, ...], amount: int) -> None:
        """Add a field's amount; one that this version does not know is passed over, as a newer version's may be."""
        match parts:
            case (model, variant, program, metric):
                self.of_work.setdefault(Work(program, model, variant), Counter())[metric] += amount
            case ("error", model, code):
                self.failures[model, code] += amount
            case ("attempts", model, outcome):
                self.attempts[model, outcome] += amount
            case ("recovered", queue):
                self.recovered[queue] += amount


def counted(folded: Counts, open_books: Iterable[Counts]) -> Counted:
    """The totals, from `dj:counted` and the open books of each day."""
    totals = Counted()
    for name, value in integers(names.COUNTED, folded).items():
        totals.add(tuple(name.split("|")), value)
    for books in open_books:
        for name, value in integers("dj:costs", books).items():
            *work, _client, metric = name.split("|")
            totals.add((*work, metric), value)
    return totals
