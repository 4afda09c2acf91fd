"""Reads all triggers of a ScaledObject, each from its own source."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import redis

from autoscaler.reading import Reading
from autoscaler.scaled_object import ScaledObject, TriggerSource
from autoscaler.sources import (
    Document,
    DocumentValue,
    HttpDocument,
    MetricsApi,
    Prometheus,
    ReadingError,
    RedisLength,
    Source,
    UnusableTrigger,
    redis_client,
)

#: Path of the service's own answer to how much work there is.
OWN_PATH = "/v1/autoscale"

#: Numbers of our own document that are worth showing beside the metric.
_DETAILS = (
    "work", "work_slots", "waiting", "inflight", "draining", "oldest_wait_seconds", "service_seconds", "concurrency",
)  # fmt: skip


class _Read(NamedTuple):
    """How one trigger's read went."""

    value: float | None
    problem: str
    seconds: float


class Triggers:
    """Every trigger's source, all read at once: an outage must not last longer than the lease of who leads."""

    def __init__(
        self,
        sources: Mapping[str, Source],
        document: OneFetch | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``document`` is fetched once for each observation, however many triggers look into it."""
        self._sources, self._document, self._clock = sources, document, clock
        self._threads = ThreadPoolExecutor(max_workers=len(sources), thread_name_prefix="trigger")

    def observe(self) -> Reading:
        """Read all triggers now."""
        if self._document:
            self._document.forget()
        reads = dict(zip(self._sources, self._threads.map(self._read, self._sources.values()), strict=True))
        return Reading(
            values={name: read.value for name, read in reads.items()},
            problems={name: read.problem for name, read in reads.items() if read.value is None},
            seconds={name: read.seconds for name, read in reads.items()},
            details=self._details(),
        )

    def close(self) -> None:
        """Let the threads end once they have nothing to read any more."""
        self._threads.shutdown(wait=False)

    def _read(self, source: Source) -> _Read:
        began = self._clock()
        try:
            return _Read(source.read(), "", self._clock() - began)
        except ReadingError as error:
            return _Read(None, str(error), self._clock() - began)

    def _details(self) -> Mapping[str, float | None]:
        found = self._document.last if self._document else None
        return {name: _number(found[name]) for name in _DETAILS if name in found} if found else {}


class OneFetch:
    """A document fetched at most once for each observation; a failure is kept as well."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._fetching = threading.Lock()
        self._failure: ReadingError | None = None
        self.last: Mapping[str, Any] | None = None

    def forget(self) -> None:
        """Fetch anew the next time."""
        self._failure = self.last = None

    def fetch(self) -> Mapping[str, Any]:
        """The document of this observation; raises ReadingError."""
        with self._fetching:
            if self._failure:
                raise self._failure
            if self.last is None:
                self.last = self._fetched()
            return self.last

    def _fetched(self) -> Mapping[str, Any]:
        try:
            return self._document.fetch()
        except ReadingError as error:
            self._failure = error
            raise


def direct_observer(target: ScaledObject, document: Document, ledger: redis.Redis) -> Triggers:
    """An observer that reads our own Redis where a trigger names our own service or any Redis.

    Raises:
        UnusableTrigger: a trigger cannot be read from here; the message names it.
    """
    once = OneFetch(document)

    def source_of(trigger: TriggerSource) -> Source:
        if _is_ours(trigger):
            return DocumentValue(once, trigger.metadata["valueLocation"])
        if trigger.type == "redis":
            return RedisLength(ledger, trigger.metadata["listName"])
        return _foreign_source(trigger)

    return Triggers(_named_sources(target, source_of), once)


def remote_observer(
    target: ScaledObject, ledger: redis.Redis, url: str | None, variable: Callable[[str], str | None]
) -> Triggers:
    """An observer that asks whom the triggers name; ``url`` takes the place of our own service's address.

    A Redis whose credentials only the cluster has is ours: ``ledger`` reads it with those of our own settings.
    ``variable`` looks up what ``...FromEnv`` fields name.

    Raises:
        UnusableTrigger: a trigger cannot be read from here; the message names it.
    """
    ours = next((trigger for trigger in target.sources if _is_ours(trigger)), None)
    once = OneFetch(HttpDocument(url or ours.metadata["url"], ours.metadata.get("timeout"))) if ours else None

    def source_of(trigger: TriggerSource) -> Source:
        if once and _is_ours(trigger):
            return DocumentValue(once, trigger.metadata["valueLocation"])
        if trigger.type == "redis":
            client = ledger if trigger.authentication_ref else redis_client(trigger.metadata, variable)
            return RedisLength(client, trigger.metadata["listName"])
        return _foreign_source(trigger)

    return Triggers(_named_sources(target, source_of), once)


def _is_ours(trigger: TriggerSource) -> bool:
    return trigger.type == "metrics-api" and is_own(trigger.metadata["url"])


def _foreign_source(trigger: TriggerSource) -> Source:
    return MetricsApi(trigger) if trigger.type == "metrics-api" else Prometheus(trigger)


def is_own(url: str) -> bool:
    """Whether an address is that of our own service's signal, whatever its host is called in a cluster."""
    return urlsplit(url).path.rstrip("/").endswith(OWN_PATH)


def _named_sources(target: ScaledObject, source_of: Callable[[TriggerSource], Source]) -> dict[str, Source]:
    sources = dict[str, Source]()
    for trigger, source in zip(target.scaling.triggers, target.sources, strict=True):
        try:
            sources[trigger.name] = source_of(source)
        except ValueError as error:
            raise UnusableTrigger(f"trigger {trigger.name!r} ({source.type}): {error}") from error
    return sources


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None
