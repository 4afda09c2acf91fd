"""What is shown at one moment: the service as it is, and rates over the last readings. Pure functions."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from dspy_jobs.models import Health
from dspy_jobs.top.samples import Samples, bucket_growth, growth, quantile, summed

#: How a job's end is told by `dspy_predictions_total`.
_ENDS = ("succeeded", "failed", "canceled", "expired")


@dataclass(frozen=True)
class Reading:
    """The service, read once."""

    at: float
    """By a clock that only goes forward, in seconds."""
    health: Health
    samples: Samples | None
    """None where the service could not tell its numbers."""


@dataclass(frozen=True)
class Rates:
    """What went on between two readings. None: not known."""

    seconds: float
    """Time between them; 0 before there are two."""
    jobs_per_second: float | None = None
    """Jobs that ended, however they ended."""
    error_share: float | None = None
    """Failed jobs of those that failed or succeeded."""
    cached_share: float | None = None
    """Answers from the cache, or of an equal job's run, of all that were looked for there."""
    dollars_per_minute: float | None = None
    unpriced_per_minute: float | None = None
    """Calls whose cost is not known."""


@dataclass(frozen=True)
class ProgramTimes:
    """How long jobs of a program ran that ended between two readings."""

    name: str
    jobs: int
    p50_seconds: float
    p95_seconds: float


@dataclass(frozen=True)
class Frame:
    """One moment."""

    health: Health
    rates: Rates
    programs: list[ProgramTimes]
    """The slowest first."""
    pace: list[float]
    """Jobs a second between each two successive readings, the last one last."""

    def as_json(self) -> dict[str, Any]:
        """The same as plain data."""
        return {
            **self.health.model_dump(mode="json", exclude_unset=True),
            "rates": asdict(self.rates),
            "slowest_programs": [asdict(program) for program in self.programs],
        }


class History:
    """The readings of the last seconds, from which rates are made."""

    def __init__(self, window_seconds: float) -> None:
        self._window = window_seconds
        self._readings: deque[Reading] = deque()

    def add(self, reading: Reading) -> Frame:
        """Take another reading; what the service looks like by it."""
        self._readings.append(reading)
        # One that is older than the window stays, so that the window is filled.
        while len(self._readings) > 2 and self._readings[1].at <= reading.at - self._window:
            self._readings.popleft()
        first = self._readings[0]
        return Frame(reading.health, _rates(first, reading), _programs(first, reading), list(self._pace()))

    def _pace(self) -> Iterator[float]:
        for before, now in pairwise(self._readings):
            ended = _ended(before, now, _ENDS)
            if ended is not None and now.at > before.at:
                yield ended / (now.at - before.at)


def _rates(before: Reading, now: Reading) -> Rates:
    seconds = now.at - before.at
    ended = _ended(before, now, _ENDS)
    if seconds <= 0 or before.samples is None or now.samples is None:
        return Rates(0.0)
    failed, succeeded = _ended(before, now, ("failed",)), _ended(before, now, ("succeeded",))
    cost = _grown(before, now, "dspy_prediction_cost_total")
    unpriced = _grown(before, now, "dspy_unpriced_calls_total")
    return Rates(
        seconds=seconds,
        jobs_per_second=None if ended is None else ended / seconds,
        error_share=_share(failed, summed((failed, succeeded))),
        cached_share=_cached_share(before, now),
        dollars_per_minute=None if cost is None else 60 * cost / seconds,
        unpriced_per_minute=None if unpriced is None else 60 * unpriced / seconds,
    )


def _ended(before: Reading, now: Reading, statuses: tuple[str, ...]) -> float | None:
    return summed(_grown(before, now, "dspy_predictions_total", status=status) for status in statuses)


def _cached_share(before: Reading, now: Reading) -> float | None:
    name = "dspy_cache_operations_total"
    taken = (("memory", "hit"), ("redis", "hit"), ("flight", "coalesced"))
    found = summed(_grown(before, now, name, level=level, operation=operation) for level, operation in taken)
    missed = _grown(before, now, name, level="redis", operation="miss")
    return _share(found, summed((found, missed)))


def _grown(before: Reading, now: Reading, name: str, **labels: str) -> float | None:
    if before.samples is None or now.samples is None:
        return None
    return growth(before.samples.total(name, **labels), now.samples.total(name, **labels))


def _share(part: float | None, whole: float | None) -> float | None:
    return part / whole if part is not None and whole else None


def _programs(before: Reading, now: Reading) -> list[ProgramTimes]:
    if before.samples is None or now.samples is None:
        return []
    name = "dspy_prediction_duration_seconds"
    earlier, later = (samples.buckets(name, "program") for samples in (before.samples, now.samples))
    found = []
    for program, buckets in later.items():
        grown = bucket_growth(earlier.get(program, {}), buckets)
        p50, p95 = quantile(grown, 0.5), quantile(grown, 0.95)
        if p50 is not None and p95 is not None:
            found.append(ProgramTimes(program, round(max(grown.values())), p50, p95))
    return sorted(found, key=lambda program: (-program.p95_seconds, program.name))
