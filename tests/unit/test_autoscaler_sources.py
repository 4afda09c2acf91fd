"""Each trigger gives a number or says why it cannot; nothing that failed is 0."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from autoscaler_doubles import SCALED_OBJECT, scaled_object
from http_stand_in import StandIn, stand_in

from autoscaler.observer import direct_observer, is_own, remote_observer
from autoscaler.scaled_object import TriggerSource
from autoscaler.sources import (
    HttpDocument,
    MetricsApi,
    Prometheus,
    ReadingError,
    RedisLength,
    UnusableTrigger,
    redis_client,
    seconds_of,
)
from dspy_jobs.store import connect


@pytest.fixture
def server() -> Iterator[StandIn]:
    """A server to ask."""
    with stand_in() as scene:
        yield scene


def metrics_api(server: StandIn, **more: str) -> MetricsApi:
    """A trigger that asks the server."""
    metadata = {"url": f"{server.url}/m", "valueLocation": "work", "targetValue": "8", **more}
    return MetricsApi(TriggerSource(type="metrics-api", metadata=metadata))


def prometheus(server: StandIn, **more: str) -> Prometheus:
    """A trigger that queries the server."""
    metadata = {"serverAddress": server.url, "query": "sum(up)", "threshold": "1", **more}
    return Prometheus(TriggerSource(type="prometheus", metadata=metadata))


@pytest.mark.parametrize(
    ("form", "location", "body"),
    [
        ("json", "a.work", b'{"a": {"work": 7}}'),
        ("yaml", "a.work", b"a:\n  work: 7\n"),
        ("prometheus", 'work{queue="q"}', b'# TYPE work gauge\nwork{queue="p"} 1\nwork{queue="q",x="y"} 7\n'),
    ],
)
def test_a_number_is_read_in_each_format(server: StandIn, form: str, location: str, body: bytes) -> None:
    """JSON, YAML and Prometheus' text give the number at their kind of location."""
    server.answer("/m", body)
    assert metrics_api(server, format=form, valueLocation=location).read() == 7


@pytest.mark.parametrize(
    ("status", "body"), [(503, {"work": 1}), (200, b"no json"), (200, {"work": None}), (200, {}), (204, b"")]
)
def test_any_other_answer_is_a_failure(server: StandIn, status: int, body: Any) -> None:
    """Only 200 with a number counts; KEDA would hold as well."""
    server.answer("/m", body, status)
    with pytest.raises(ReadingError):
        metrics_api(server).read()


def test_a_server_that_is_away_is_a_failure() -> None:
    """A refused connection is not an idle queue."""
    with pytest.raises(ReadingError, match="ConnectError"):
        HttpDocument("http://127.0.0.1:1/v1/autoscale").fetch()


@pytest.mark.parametrize(
    "more", [{"format": "xml"}, {"valueLocation": "a|b"}, {"format": "prometheus", "valueLocation": "a{b}"},
             {"authMode": "bearer"}, {"aggregateFromKubeServiceEndpoints": "true"}],
)  # fmt: skip
def test_what_cannot_be_read_here_is_refused_at_the_start(server: StandIn, more: dict[str, str]) -> None:
    """Better an error now than a failed read for ever."""
    with pytest.raises(UnusableTrigger):
        metrics_api(server, **more)


def vector(*values: str) -> dict[str, Any]:
    """An instant query's answer."""
    return {"status": "success", "data": {"resultType": "vector", "result": [{"value": [0, one]} for one in values]}}


def test_a_query_is_one_element(server: StandIn) -> None:
    """One element is the value, several are a failure, and so is what is not finite."""
    for answer, value in ((vector("12.5"), 12.5), ({"data": {"resultType": "scalar", "result": [0, "3"]}}, 3)):
        server.answer("/api/v1/query", answer)
        assert prometheus(server).read() == value
    assert server.asked[0][1] == "/api/v1/query?query=sum%28up%29"
    for answer in (vector("1", "2"), vector("NaN"), {"data": None}):
        server.answer("/api/v1/query", answer)
        with pytest.raises(ReadingError):
            prometheus(server).read()


def test_an_empty_result_is_zero_only_if_that_is_written(server: StandIn) -> None:
    """An outage gives an empty result as well, so nobody gets the 0 without asking for it."""
    server.answer("/api/v1/query", vector())
    assert prometheus(server, ignoreNullValues="true").read() == 0
    for more in ({}, {"ignoreNullValues": "false"}):
        with pytest.raises(ReadingError):
            prometheus(server, **more).read()


@pytest.mark.parametrize(("text", "seconds"), [("3000", 3), ("3s", 3), ("1m30s", 90), ("250ms", 0.25), ("1.5h", 5400)])
def test_a_timeout_is_milliseconds_or_a_duration(text: str, seconds: float) -> None:
    """As Go writes it."""
    assert seconds_of(text) == seconds


def test_addresses_of_redis() -> None:
    """An address, host and port, and what the environment names; without any the trigger cannot be used."""
    variables: Mapping[str, str] = {"ADDRESS": "redis:6380", "WORD": "secret"}
    client = redis_client({"addressFromEnv": "ADDRESS", "passwordFromEnv": "WORD", "databaseIndex": "2"}, variables.get)
    given = client.connection_pool.connection_kwargs
    assert (given["host"], given["port"], given["db"], given["password"]) == ("redis", 6380, 2, "secret")
    assert redis_client({"host": "h", "port": "1"}, variables.get).connection_pool.connection_kwargs["host"] == "h"
    for metadata in ({}, {"addressFromEnv": "MISSING"}, {"address": "nowhere"}):
        with pytest.raises(UnusableTrigger):
            redis_client(metadata, variables.get)


def test_a_redis_that_is_away_is_a_failure() -> None:
    """An unreachable list is not an empty one."""
    with pytest.raises(ReadingError):
        RedisLength(connect("redis://127.0.0.1:1"), "list").read()


class Document:
    """Counts how often it is fetched."""

    def __init__(self, content: dict[str, Any] | None) -> None:
        self.content, self.fetched = content, 0

    def fetch(self) -> dict[str, Any]:
        """The content, or a failure."""
        self.fetched += 1
        if self.content is None:
            raise ReadingError("away")
        return self.content


TWO = (
    SCALED_OBJECT
    + """
    - type: metrics-api
      name: waiting
      metadata: {url: "https://elsewhere/v1/autoscale/", valueLocation: waiting, targetValue: "1"}
"""
)


@pytest.mark.parametrize(("content", "values"), [({"work": 3, "waiting": 2}, {3.0, 2.0}), (None, {None})])
def test_our_own_document_is_fetched_once_a_look(content: dict[str, Any] | None, values: set[float | None]) -> None:
    """Two triggers over our own service see the same moment, and the same failure."""
    document = Document(content)
    observer = direct_observer(scaled_object(TWO), document, connect("redis://127.0.0.1:1"))
    first, second = observer.observe(), observer.observe()
    assert set(first.values.values()) == set(second.values.values()) == values
    assert document.fetched == 2
    assert set(first.problems) == (set() if content else {"s0", "waiting"})
    assert first.details == (content or {})


def test_another_address_takes_the_place_of_our_services(server: StandIn) -> None:
    """Where the cluster's names mean nothing the same file is read with an address of one's own."""
    server.answer("/v1/autoscale", {"work": 5})
    reading = remote_observer(
        scaled_object(), connect("redis://127.0.0.1:1"), f"{server.url}/v1/autoscale", lambda _: None
    ).observe()
    assert reading.values == {"s0": 5.0}
    assert reading.details == {"work": 5.0}


@pytest.mark.parametrize(
    ("url", "own"), [("http://api.jobs.svc:8080/v1/autoscale", True), ("http://x/metrics?v1/autoscale", False)]
)
def test_our_own_service_is_known_by_its_path(url: str, own: bool) -> None:
    """Its host has another name in each world."""
    assert is_own(url) is own
