"""What this process counts of itself: requests, round trips to Redis, its memory, files and processor time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from dspy_jobs.measures import OTHER, REDIS_DURATION, Durations, Family, metrics_of

REQUEST_DURATION = Family(
    "dspy_http_request_duration_seconds",
    "Requests until they were answered whole.",
    ("method", "route", "status"),
    (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
#: As nginx has it: the caller went away before there was an answer.
_CLIENT_GONE = 499


class OwnMetrics(Collector):
    """This process's own numbers, since it began."""

    def __init__(self) -> None:
        self.redis_durations = Durations(REDIS_DURATION, "api")
        self._requests: dict[tuple[str, str, int], Durations] = {}
        self._process = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self._process)

    def count_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request that is over; status 0 if nothing was answered. `route` is one of few: a template."""
        labels = (method if method in _METHODS else OTHER, route, status or _CLIENT_GONE)
        durations = self._requests.get(labels)
        if durations is None:
            durations = self._requests[labels] = Durations(REQUEST_DURATION, *map(str, labels))
        durations.observe(seconds)

    def collect(self) -> Iterator[Metric]:
        """The metric families."""
        noted: dict[str, int] = {}
        for durations in (self.redis_durations, *self._requests.values()):
            durations.add_to(noted)
        requests, redis = metrics_of(noted, (REQUEST_DURATION, REDIS_DURATION))
        yield from (_counts(requests), requests, redis)
        yield from self._process.collect()


def _counts(requests: Metric) -> Metric:
    """How many requests there were: whoever measures their times has counted them."""
    family = CounterMetricFamily("dspy_http_requests", "Answered requests.", labels=REQUEST_DURATION.labels)
    for labels, value in _counted(requests):
        family.add_metric(labels, value)
    return family


def _counted(requests: Metric) -> Iterable[tuple[list[str], float]]:
    for sample in requests.samples:
        if sample.name.endswith("_count"):
            yield [sample.labels[label] for label in REQUEST_DURATION.labels], sample.value
