"""What all workers have measured, those long gone too, as Redis holds the sums: the same from every API process."""

from __future__ import annotations

from collections.abc import Awaitable, Iterator, Mapping
from typing import cast

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from api.metrics.labels import Expected, expected_of, first_of
from api.resources import Resources
from dspy_jobs import names
from dspy_jobs.measures import (
    CACHE_OPERATIONS,
    CACHE_USES,
    LM_CALL_DURATION,
    PREDICTION_DURATION,
    QUEUE_WAIT,
    SUM,
    metrics_of,
)
from dspy_jobs.stored_numbers import integers


async def read_measures(resources: Resources) -> Collector:
    """Read the sums of all workers; what they may yet measure is 0."""
    expected = await expected_of(resources)
    found = await cast("Awaitable[dict[bytes, bytes]]", resources.store.redis.hgetall(names.METRICS))
    return MeasuresCollector(dict.fromkeys(expected_fields(expected), 0) | integers(names.METRICS, found))


def expected_fields(expected: Expected) -> Iterator[str]:
    """Fields of `dj:metrics` that make every counter and histogram there may be."""
    yield from map(CACHE_OPERATIONS.field, CACHE_USES)
    runs = ((work.program, work.model) for work in expected.work)
    calls = ((model, outcome) for model in expected.models for outcome in ("ok", "error"))
    waits = ((model,) for model in expected.models)
    for family, labels in ((PREDICTION_DURATION, runs), (LM_CALL_DURATION, calls), (QUEUE_WAIT, waits)):
        for some in first_of(labels, len(family.bounds) + 3):  # beside its bounds a histogram has +Inf, sum and count
            yield family.field(some, SUM)


class MeasuresCollector(Collector):
    """Histograms and counters of all workers together."""

    def __init__(self, totals: Mapping[str, int]) -> None:
        self._totals = totals

    def collect(self) -> Iterator[Metric]:
        """The metric families."""
        return metrics_of(self._totals)
