"""Medians and spreads of repeated measurements, and ratios of contenders that took turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median, quantiles


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of some samples with the lowest and the highest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> Spread:
        """The spread of at least one sample."""
        if not samples:
            raise ValueError("no samples: measure at least one round")
        return cls(median(samples), min(samples), max(samples))

    def text(self, digits: int = 0) -> str:
        """As it stands in a table: the median, and the extremes where there are any."""
        middle = f"{self.median:,.{digits}f}"
        if self.low == self.high:
            return middle
        return f"{middle} ({self.low:,.{digits}f}–{self.high:,.{digits}f})"


def paired_ratios(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Ours over theirs, round by round: both met the same state of the machine, so noise cancels."""
    if len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} rounds against {len(theirs)}: contenders must take turns")
    return Spread.of([mine / other for mine, other in zip(ours, theirs, strict=True)])


def percentile(samples: Sequence[float], percent: int) -> float:
    """The value that `percent` of the samples do not exceed (inclusive method)."""
    if len(samples) < 2:
        raise ValueError("a percentile needs two samples at least")
    return quantiles(samples, n=100, method="inclusive")[percent - 1]
