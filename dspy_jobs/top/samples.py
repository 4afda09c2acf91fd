"""Numbers for Prometheus as `GET /metrics` writes them, summed as one asks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from math import isfinite
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families

#: Counts of a histogram by upper bound in seconds, each with those below it.
Buckets = Mapping[float, float]


class Sample(NamedTuple):
    """A number with its labels."""

    labels: Mapping[str, str]
    value: float


class Samples:
    """All samples of a scrape."""

    def __init__(self, text: str) -> None:
        """Reads Prometheus's text format.

        Raises:
            ValueError: it is none.
        """
        self._samples: defaultdict[str, list[Sample]] = defaultdict(list)
        self._known: set[str] = set()
        for family in text_string_to_metric_families(text):
            self._known |= {family.name, f"{family.name}_total"}
            for sample in family.samples:
                if isfinite(sample.value):
                    self._samples[sample.name].append(Sample(sample.labels, sample.value))

    def total(self, name: str, **labels: str) -> float | None:
        """The sum of the samples with these labels; None where there is no such metric."""
        if name not in self._known:
            return None
        return sum(value for having, value in self._samples[name] if labels.items() <= having.items())

    def buckets(self, name: str, by: str) -> dict[str, Buckets]:
        """A histogram's counts by a label, summed over the others."""
        found: defaultdict[str, defaultdict[float, float]] = defaultdict(lambda: defaultdict(float))
        for labels, value in self._samples[f"{name}_bucket"]:
            with suppress(KeyError, ValueError):  # a bucket without a bound is none
                found[labels.get(by, "")][float(labels["le"])] += value
        return {label: dict(counts) for label, counts in found.items()}


def growth(before: float | None, now: float | None) -> float | None:
    """By how much a counter grew; one that is smaller than before began anew. None where it is not there."""
    if now is None or before is None:
        return None
    return now - before if now >= before else now


def bucket_growth(before: Buckets, now: Buckets) -> Buckets:
    """What was observed in between."""
    if any(now.get(bound, 0) < count for bound, count in before.items()):
        return now
    return {bound: count - before.get(bound, 0) for bound, count in now.items()}


def quantile(counts: Buckets, share: float) -> float | None:
    """The value below which that share of the observations lies, as Prometheus reckons it; None without any.

    Within a bucket values are taken for evenly spread; what lies above the last bound is told as that bound.
    """
    bounds = sorted(counts)
    total = counts[bounds[-1]] if bounds else 0
    if total <= 0:
        return None
    wanted = share * total
    for (lower, below), (upper, reached) in pairwise([(0.0, 0.0), *((bound, counts[bound]) for bound in bounds)]):
        if reached >= wanted and reached > below:
            return lower if upper == float("inf") else lower + (upper - lower) * (wanted - below) / (reached - below)
    return None


def summed(numbers: Iterable[float | None]) -> float | None:
    """The sum of what is known; None where nothing is."""
    known: Sequence[float] = [number for number in numbers if number is not None]
    return sum(known) if known else None
