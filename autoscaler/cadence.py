"""When each of the two loops runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

#: ``--horizontal-pod-autoscaler-sync-period`` of the controller manager, in seconds.
HPA_SYNC_SECONDS = 15.0


class Due(NamedTuple):
    """Which loops run now."""

    keda: bool
    hpa: bool


@dataclass(frozen=True)
class Periods:
    """Seconds between the runs of either loop, and how much later than KEDA's the HPA's first one comes."""

    keda: float
    hpa: float
    hpa_offset: float = 0.0

    @classmethod
    def local(cls, polling_interval: float) -> Periods:
        """Ours: the HPA's part runs as often as the metric is polled, if that is more often than in a cluster."""
        return cls(polling_interval, min(polling_interval, HPA_SYNC_SECONDS))

    @classmethod
    def cluster(cls, polling_interval: float, hpa_offset: float = 0.0) -> Periods:
        """A cluster's: KEDA polls, the HPA syncs every 15 s, neither knows of the other."""
        return cls(polling_interval, HPA_SYNC_SECONDS, hpa_offset)


class Cadence:
    """Two fixed rhythms. Missed beats are left out, not made up for."""

    def __init__(self, periods: Periods, start: float) -> None:
        self._periods, self._start = periods, start
        self._polls = self._syncs = 0

    @property
    def next_time(self) -> float:
        """When either loop is due again, on the clock of ``start``."""
        return min(self._next_poll, self._next_sync)

    def due(self, now: float) -> Due:
        """Which loops are due now; each due one counts as run."""
        due = Due(now >= self._next_poll, now >= self._next_sync)
        if due.keda:
            self._polls = _beats(now - self._start, self._periods.keda)
        if due.hpa:
            self._syncs = _beats(now - self._start - self._periods.hpa_offset, self._periods.hpa)
        return due

    # Multiplied, not added up: equal periods must stay in step whatever floats do.
    @property
    def _next_poll(self) -> float:
        return self._start + self._polls * self._periods.keda

    @property
    def _next_sync(self) -> float:
        return self._start + self._periods.hpa_offset + self._syncs * self._periods.hpa


def _beats(elapsed: float, period: float) -> int:
    return int(elapsed // period) + 1
