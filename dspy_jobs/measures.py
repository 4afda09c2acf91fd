"""What processes measure, and the hash `dj:metrics` in which it adds up over all workers there have ever been.

A field of the hash is `{family}|{label}…|{part}` and its value an integer, so sums never drift. Of a counter the part
is `total`. Of a histogram it is the upper bound of a bucket, with the number of values in this bucket alone, or `sum`,
with microseconds.

Bounds are part of the names, so that releases with other bounds may write side by side: what was counted below a bound
that is not known here counts from the next larger one on that is, which is true, if less exact. Families that are not
known here are not shown.

Labels take configured names and fixed words only, whatever a job says; the rest is `other`. So the hash grows with what
was ever configured, never with what callers send. What is configured no longer keeps its fields and is shown as long
as they are there: it stands still. Counted as `other` instead it would make that leap now, and fall when the
configuration is taken back. `DEL dj:metrics` forgets all of it, which to Prometheus is a counter's restart.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import isnan

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric

#: In the place of a label's value that is not one of the known.
OTHER = "other"

#: The part of a counter, and that of a histogram which it has even before any value.
_TOTAL, SUM = "total", "sum"
_INFINITE = "+Inf"

#: By labels, then by part.
_Rows = dict[tuple[str, ...], dict[str, int]]


@dataclass(frozen=True, slots=True)
class Family:
    """A counter or, with bounds, a histogram of seconds."""

    name: str
    """Without `_total`."""
    meaning: str
    labels: tuple[str, ...]
    bounds: tuple[float, ...] = ()
    """Upper bounds of the buckets, but for the infinite one."""
    per: float = 1
    """Of a counter how many of what is counted make one of what is shown."""

    def field(self, labels: Iterable[str], part: str = _TOTAL) -> str:
        """The field of the hash."""
        return "|".join((self.name, *labels, part))


PREDICTION_DURATION = Family(
    "dspy_prediction_duration_seconds",
    "Run time of the attempt that ended a job.",
    ("program", "model"),
    (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300),
)
QUEUE_WAIT = Family(
    "dspy_queue_wait_seconds",
    "From a job's submission to its first start.",
    ("model",),
    (0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 21600, 86400),
)
LM_CALL_DURATION = Family(
    "dspy_lm_call_duration_seconds",
    "Model calls until they were answered (ok) or failed (error).",
    ("model", "outcome"),
    (0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120, 300, 600),
)
REDIS_DURATION = Family(
    "dspy_redis_duration_seconds",
    "Round trips of the ledger's operations.",
    ("process",),
    (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
CACHE_OPERATIONS = Family(
    "dspy_cache_operations", "Uses of the response cache: memory, then redis.", ("level", "operation")
)
#: Levels of the response cache and what each may do.
CACHE_USES = (
    ("memory", "hit"), ("memory", "miss"), ("memory", "store"), ("redis", "hit"), ("redis", "miss"),
    ("redis", "store"), ("redis", "error"), ("redis", "corrupt"), ("redis", "skip"),
)  # fmt: skip

#: All that workers add up in `dj:metrics`.
FAMILIES = (PREDICTION_DURATION, QUEUE_WAIT, LM_CALL_DURATION, REDIS_DURATION, CACHE_OPERATIONS)


class Durations:
    """Counts the values of a histogram for one set of labels, in this process. Thread-safe.

    In integers, and with one lock held for the shortest time: a value is noted many times a job.
    """

    __slots__ = ("_bounds", "_counts", "_fields", "_lock", "_micros", "_sum_field")

    def __init__(self, family: Family, *labels: str) -> None:
        self._bounds = family.bounds
        self._counts = [0] * (len(family.bounds) + 1)
        self._fields = [family.field(labels, part) for part in (*(f"{b:g}" for b in family.bounds), _INFINITE)]
        self._sum_field = family.field(labels, SUM)
        self._micros = 0
        self._lock = threading.Lock()

    def observe(self, seconds: float) -> None:
        """Note a value. A negative one, as between two clocks, counts as 0."""
        seconds = max(0.0, seconds)
        bucket, micros = bisect_left(self._bounds, seconds), round(seconds * 1e6)
        with self._lock:
            self._counts[bucket] += 1
            self._micros += micros

    def add_to(self, totals: dict[str, int]) -> None:
        """Put everything noted so far under its fields."""
        with self._lock:
            counts, totals[self._sum_field] = self._counts.copy(), self._micros
        totals.update((field, count) for field, count in zip(self._fields, counts, strict=True) if count)


def metrics_of(totals: Mapping[str, int], families: Sequence[Family] = FAMILIES) -> Iterator[Metric]:
    """What fields and their values make of these families; one without values is named all the same."""
    rows = _rows(totals, {family.name: family for family in families})
    for family in families:
        yield _histogram(family, rows[family.name]) if family.bounds else _counter(family, rows[family.name])


def _rows(totals: Mapping[str, int], families: Mapping[str, Family]) -> Mapping[str, _Rows]:
    """By family. What another release wrote and this one cannot read is left out."""
    rows: dict[str, _Rows] = defaultdict(lambda: defaultdict(dict))
    for field, value in totals.items():
        name, _, rest = field.partition("|")
        *labels, part = rest.split("|")
        family = families.get(name)
        if family and len(labels) == len(family.labels):
            rows[name][tuple(labels)][part] = value
    return rows


def _counter(family: Family, rows: _Rows) -> Metric:
    metric = CounterMetricFamily(family.name, family.meaning, labels=family.labels)
    for labels, parts in sorted(rows.items()):
        metric.add_metric(labels, parts.get(_TOTAL, 0) / family.per)
    return metric


def _histogram(family: Family, rows: _Rows) -> Metric:
    metric = HistogramMetricFamily(family.name, family.meaning, labels=family.labels)
    bounds = [*(str(float(bound)) for bound in family.bounds), _INFINITE]  # as prometheus_client has them
    for labels, parts in sorted(rows.items()):
        counts = [0] * len(bounds)
        for part, number in parts.items():
            if (bound := _bound(part)) is not None:
                counts[bisect_left(family.bounds, bound)] += number
        metric.add_metric(labels, list(zip(bounds, accumulate(counts), strict=True)), parts.get(SUM, 0) / 1e6)
    return metric


def _bound(part: str) -> float | None:
    try:
        bound = float(part)
    except ValueError:
        return None
    return None if isnan(bound) else bound
