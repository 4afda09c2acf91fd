"""Which programs have failed lately, by totals that this process remembers: a bug that was deployed shows nowhere else.

Redis keeps totals since ever. How they grew tells what has happened lately, and costs no write. A process that has
just started knows only what happened since.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from dspy_jobs.counted import Counted

#: Seconds that are looked back.
WINDOW_SECONDS = 600.0
#: Seconds between totals that are kept.
KEEP_SECONDS = 30.0
#: Seconds for which totals are new enough for who asks for health.
FRESH_SECONDS = 2.0

#: Codes by which a job fails as its caller asked it to.
_AS_ASKED = frozenset({"not_cached"})


@dataclass(frozen=True, slots=True)
class ProgramFailures:
    """Jobs of a program on a model that have ended within the time looked back."""

    program: str
    model: str
    ended: int
    failed: int
    codes: dict[str, int]
    """Failed jobs of the model by code, whatever their program: totals know no more."""

    @property
    def share(self) -> float:
        """Failed ones of those that ended."""
        return self.failed / self.ended if self.ended else 0.0


@dataclass(frozen=True, slots=True)
class RecentFailures:
    """What has failed of late."""

    seconds: float = 0.0
    """How long the time looked back is; 0 where nothing is known yet."""
    programs: list[ProgramFailures] = field(default_factory=list)
    """Those of which jobs failed, the most first."""


@dataclass(frozen=True, slots=True)
class _Totals:
    at: float
    ended: Counter[tuple[str, str]]
    """Jobs by program and model, as `failed`."""
    failed: Counter[tuple[str, str]]
    codes: Counter[tuple[str, str]]
    """Failed jobs by model and code."""


class FailureWatch:
    """Totals of the last minutes."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kept: deque[_Totals] = deque()

    def is_due(self, seconds: float = FRESH_SECONDS) -> bool:
        """Whether the last totals are older than that."""
        return not self._kept or self._clock() - self._kept[-1].at >= seconds

    def take(self, counted: Counted) -> None:
        """Remember totals that were just read."""
        now = self._clock()
        if len(self._kept) > 1 and self._kept[-1].at - self._kept[-2].at < KEEP_SECONDS:
            self._kept.pop()
        self._kept.append(_totals(now, counted))
        # One that is older than the window stays, so that the window is filled.
        while len(self._kept) > 2 and self._kept[1].at <= now - WINDOW_SECONDS:
            self._kept.popleft()

    def recent(self) -> RecentFailures:
        """What has failed of late."""
        if len(self._kept) < 2:
            return RecentFailures()
        first, last = self._kept[0], self._kept[-1]
        failed, ended, codes = last.failed - first.failed, last.ended - first.ended, last.codes - first.codes
        found = [
            ProgramFailures(program, model, ended[program, model], number, by_code)
            for (program, model), number in failed.most_common()
            if (by_code := {code: count for (of, code), count in codes.most_common() if of == model})
        ]
        return RecentFailures(last.at - first.at, found)


def _totals(at: float, counted: Counted) -> _Totals:
    totals = _Totals(at, Counter(), Counter(), Counter())
    for work, metrics in counted.of_work.items():
        totals.ended[work.program, work.model] += metrics["jobs"]
        totals.failed[work.program, work.model] += metrics["failed"]
    for (model, code), number in counted.failures.items():
        if code not in _AS_ASKED:
            totals.codes[model, code] += number
    return totals
