"""What all workers have measured, those long gone too, as Redis holds the sums: the same from every API process."""

from __future__ import annotations

from collections.abc import Awaitable, Iterator, Mapping
from typing import cast

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from api.resources import Resources
from dspy_jobs import names
from dspy_jobs.measures import metrics_of


async def read_measures(resources: Resources) -> Collector:
    """Read the sums of all workers."""
    found = await cast("Awaitable[dict[bytes, bytes]]", resources.store.redis.hgetall(names.METRICS))
    return MeasuresCollector({field.decode(): int(value) for field, value in found.items()})


class MeasuresCollector(Collector):
    """Histograms and counters of all workers together."""

    def __init__(self, totals: Mapping[str, int]) -> None:
        self._totals = totals

    def collect(self) -> Iterator[Metric]:
        """The metric families."""
        return metrics_of(self._totals)
