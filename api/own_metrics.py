"""What this process counts of itself: requests, round trips to Redis, its memory, files and processor time."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

_REQUEST_LABELS = ("method", "route", "status")
_REQUEST_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_REDIS_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
#: Stands for whatever has no name of its own, so that no caller can make new series.
OTHER = "other"
#: As nginx has it: the caller went away before there was an answer.
_CLIENT_GONE = 499


class OwnMetrics:
    """This process's own numbers, in a registry of their own."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # they would double the number of series
        self.registry = CollectorRegistry()
        self._request_seconds = Histogram(
            "dspy_http_request_duration_seconds",
            "Time until a request was answered whole.",
            _REQUEST_LABELS,
            buckets=_REQUEST_SECONDS,
            registry=self.registry,
        )
        self.registry.register(_Requests(self._request_seconds))
        redis_seconds = Histogram(
            "dspy_redis_duration_seconds",
            "Time of a round trip to Redis.",
            ("process",),
            buckets=_REDIS_SECONDS,
            registry=self.registry,
        )
        self.redis_seconds = redis_seconds.labels("api")
        #: By the labels: to look them up anew each time would cost as much again.
        self._known: dict[tuple[str, str, int], Histogram] = {}
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)

    def count_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request that is over; status 0 if nothing was answered. `route` is one of few: a template."""
        labels = (method if method in _METHODS else OTHER, route, status or _CLIENT_GONE)
        found = self._known.get(labels)
        if found is None:
            found = self._known[labels] = self._request_seconds.labels(*labels)
        found.observe(seconds)


class _Requests(Collector):
    """How many requests there were; the histogram of their times counts them already."""

    def __init__(self, seconds: Histogram) -> None:
        self._seconds = seconds

    def collect(self) -> Iterator[Metric]:
        requests = CounterMetricFamily("dspy_http_requests", "Answered requests.", labels=_REQUEST_LABELS)
        for family in self._seconds.collect():
            for sample in family.samples:
                if sample.name.endswith("_count"):
                    requests.add_metric([sample.labels[label] for label in _REQUEST_LABELS], sample.value)
        yield requests
