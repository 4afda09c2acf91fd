"""`GET /metrics`: numbers for Prometheus, read when they are asked for.

Every API process reports the same numbers of the whole service, so any one of them may be scraped; beside them each
tells what it counts of itself alone (`dspy_http_*`, `dspy_redis_*`, `process_*`, `python_*`). While Redis does not
answer it tells these alone, and `dspy_redis_up` is 0: of the service Prometheus shows a gap then, where a zero would
read as an idle one, and of the API that it is up, which it is.

Label values are names that the configuration or the code knows; whatever else is found in Redis is `other`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeout
from starlette.requests import Request
from starlette.responses import Response

from api.metrics.budgets import read_budgets
from api.metrics.demand import DemandCollector, read_queues
from api.metrics.ledger import read_ledger
from api.metrics.memory import read_memory
from api.metrics.models import read_models
from api.metrics.workers import read_measures
from api.problems import is_unavailability
from api.reading import header, query
from api.resources import Resources, resources_of

__all__ = ["SOURCES", "DemandCollector", "Merged", "Source", "get_metrics", "written"]

_log = structlog.get_logger("api")

#: Reads what some metrics are made of; afterwards they are made without any input or output.
Source = Callable[[Resources], Awaitable[Collector]]

#: Seconds Redis gets: less than a scraper waits, for an answer that says what is wrong is better than none.
_PATIENCE_SECONDS = 2.0


async def get_metrics(request: Request) -> Response:
    """All metrics, in the format the scraper asks for."""
    resources = resources_of(request)
    query(request, ())
    return await written(await _read_or_own(resources), header(request, b"accept"))


async def written(collectors: Sequence[Collector], accept: str) -> Response:
    """Metrics as text: in another thread, for ten thousand lines take a tenth of a second that others would wait."""
    registry = CollectorRegistry()
    registry.register(Merged(collectors))
    encode, media_type = choose_encoder(accept)
    return Response(await asyncio.to_thread(encode, registry), media_type=media_type)


async def _read_or_own(resources: Resources) -> Sequence[Collector]:
    """All there is to tell, or what this process knows without Redis."""
    try:
        return [*await _read(resources), _RedisUp(True)]
    except RedisError as error:
        if not is_unavailability(error):
            raise
        _log.warning("redis_failed", error=type(error).__name__)
        return [resources.own_metrics, _RedisUp(False)]


class _RedisUp(Collector):
    def __init__(self, is_up: bool) -> None:
        self._is_up = is_up

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("dspy_redis_up", "Whether the queue's Redis has answered this scrape.", self._is_up)


async def _own(resources: Resources) -> Collector:
    return resources.own_metrics


#: Where metrics come from, in the order they are shown. A family may come from several.
SOURCES: tuple[Source, ...] = (
    read_queues, read_ledger, read_measures, read_models, read_budgets, read_memory, _own,
)  # fmt: skip


async def _read(resources: Resources) -> Sequence[Collector]:
    """Ask all sources at once: together their questions make one round trip or two.

    Raises:
        redis.exceptions.RedisError: Redis is unreachable or takes too long.
    """
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            return await asyncio.gather(*(source(resources) for source in SOURCES))
    except TimeoutError:
        raise RedisTimeout("the metrics could not be read in time") from None


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
