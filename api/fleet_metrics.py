"""What all workers have measured, those long gone too, as Redis holds the sums: the same from every API process."""

from __future__ import annotations

from collections.abc import Awaitable, Iterator, Mapping, Sequence
from typing import cast

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from api.resources import Resources
from dspy_jobs import names
from dspy_jobs.measures import metrics_of


async def fleet_measures(resources: Resources) -> Collector:
    """Read the sums of all workers."""
    found = await cast("Awaitable[dict[bytes, bytes]]", resources.store.redis.hgetall(names.METRICS))
    return FleetCollector({field.decode(): int(value) for field, value in found.items()})


class FleetCollector(Collector):
    """Histograms and counters of all workers together."""

    def __init__(self, totals: Mapping[str, int]) -> None:
        self._totals = totals

    def collect(self) -> Iterator[Metric]:
        """The metric families."""
        return metrics_of(self._totals)


class Merged(Collector):
    """Several collectors as one: what they have of one family stands together, for a family may be named but once."""

    def __init__(self, collectors: Sequence[Collector]) -> None:
        self._collectors = collectors

    def collect(self) -> Iterator[Metric]:
        """The metric families, in the order in which they are met."""
        families: dict[str, Metric] = {}
        for collector in self._collectors:
            for family in collector.collect():
                known = families.setdefault(family.name, family)
                if known is not family:
                    known.samples.extend(family.samples)
        yield from families.values()
