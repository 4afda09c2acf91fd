"""Operations on what is counted for metrics; none of them looks at a job."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dspy_jobs import names
from dspy_jobs.counted import Counted, counted
from dspy_jobs.settings import Settings
from dspy_jobs.states import CircuitState
from dspy_jobs.store.script import Operation, script
from dspy_jobs.store.wire import time_of
from dspy_jobs.stored_numbers import integers

#: Entries of today's books that stay open: more than a fleet with one client comes to, few enough to be read each time.
MOST_OPEN = 2000

#: A circuit's state as `read_fleet` answers it, by its number.
CIRCUIT_STATES = (CircuitState.CLOSED, CircuitState.HALF_OPEN, CircuitState.OPEN)


def names_of(settings: Settings) -> list[str]:
    """Names that a configuration gives to models, programs and variants, as `dj:known_names` has them."""
    programs = settings.programs.items()
    variants = [f"{name}|{variant}" for name, program in programs for variant in program.variants]
    return [f"model {name}" for name in settings.models] + [
        f"program {name}" for name in (*settings.programs, *variants)
    ]


def fold_books(
    known_names: Sequence[str] = (), most_open: int = MOST_OPEN, limit: int = 1000, now_ms: int | None = None
) -> Operation[bool]:
    """Fold about `limit` entries of books that are over into the totals. Answers whether there are more.

    Anybody may run it at any time. `known_names` are kept from now on, for a name that metrics show today must not
    become another's tomorrow, when it is configured no more.
    """
    args = (time_of(now_ms), most_open, limit, *known_names)
    return Operation(script("fold_books"), args, bool)


def read_counted() -> Operation[Counted]:
    """Read all totals, at one moment."""

    def read(raw: list[Any]) -> Counted:
        folded, *open_books = map(_pairs, raw)
        return counted(folded, open_books)

    return Operation(script("read_counted"), (), read)


@dataclass(frozen=True, slots=True)
class Fleet:
    """Models and workers at this moment."""

    circuits: dict[str, CircuitState]
    """Each queue's circuit."""
    workers: dict[str, int]
    """Live workers that consume each queue."""
    draining: int
    """Live workers that finish what they have and take no more."""
    threads: int = 0
    """Jobs that the other workers can run at once."""


def read_fleet(queues: Sequence[str], now_ms: int | None = None) -> Operation[Fleet]:
    """Read the circuits and workers of queues."""

    def read(raw: list[Any]) -> Fleet:
        rows, draining, threads = raw
        circuits = {queue: CIRCUIT_STATES[row[0]] for queue, row in zip(queues, rows, strict=True)}
        return Fleet(circuits, {queue: row[1] for queue, row in zip(queues, rows, strict=True)}, draining, threads)

    return Operation(script("read_fleet"), (time_of(now_ms), *queues), read)


@dataclass(frozen=True, slots=True)
class Spending:
    """The budgets workers keep to, and what is spent of them. Money is nano-dollars."""

    limits: dict[str, int]
    """As in the hash `dj:budgets`; empty while no worker has published it."""
    spent: dict[str, dict[str, int]]
    """By client, `*` for all, for the present `day` and `month`; only clients that have a budget."""


def read_spending(now_ms: int | None = None) -> Operation[Spending]:
    """Read the budgets."""

    def read(raw: list[Any]) -> Spending:
        limits, day, month = (integers(names.BUDGETS, _pairs(flat)) for flat in raw)
        return Spending(limits, {"day": day, "month": month})

    return Operation(script("read_spending"), (time_of(now_ms),), read)


def _pairs(flat: Iterable[bytes]) -> Mapping[bytes, bytes]:
    """A hash as a script answers it."""
    values = iter(flat)
    return dict(zip(values, values, strict=True))
