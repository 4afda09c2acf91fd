"""Where a trigger's value comes from: one source a trigger, each of which gives a number or says why it cannot.

A failed read is a failed read and never 0, which would send a busy fleet home: it raises ReadingError. One answer that
KEDA takes for 0, an empty Prometheus result without ``ignoreNullValues``, is a failed read here as well, for it is what
an outage looks like; with ``ignoreNullValues: "true"`` written out it is 0.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import httpx
import orjson
import redis
import yaml
from prometheus_client.core import Sample
from prometheus_client.parser import text_string_to_metric_families
from redis.exceptions import RedisError

from autoscaler.scaled_object import TriggerSource
from autoscaler.value_location import LocationError, number_at, parse_location

#: ``KEDA_HTTP_DEFAULT_TIMEOUT``, in seconds.
_TIMEOUT_SECONDS = 3.0

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_SELECTOR = re.compile(r'\s*([a-zA-Z_:][\w:]*)\s*(?:\{((?:\s*\w+\s*=\s*"[^"]*"\s*,?)*)\}\s*)?', re.ASCII)
_LABEL = re.compile(r'(\w+)\s*=\s*"([^"]*)"', re.ASCII)


class ReadingError(Exception):
    """One read failed; the message says why."""


class UnusableTrigger(ValueError):
    """A trigger that cannot be read from where we run; the message says what to do."""


class Source(Protocol):
    """Reads one trigger."""

    def read(self) -> float:
        """The value now; raises ReadingError."""
        ...


class Document(Protocol):
    """A JSON document about the queues that can be fetched anew each time."""

    def fetch(self) -> Mapping[str, Any]:
        """The document now; raises ReadingError."""
        ...


class DocumentValue:
    """A number out of a document that others may read as well."""

    def __init__(self, document: Document, location: str) -> None:
        parse_location(location)
        self._document, self._location = document, location

    def read(self) -> float:
        """The number at the location now; raises ReadingError."""
        return _located(self._document.fetch(), self._location)


class HttpDocument:
    """Our own service's account of its queues, asked for over HTTP; anything but 200 is a failure."""

    def __init__(self, url: str, timeout: str | None = None) -> None:
        """``timeout`` is a trigger's, in its spelling."""
        self._url, self._client = url, _http_client({"timeout": timeout} if timeout else {})

    def fetch(self) -> Mapping[str, Any]:
        """The document now; raises ReadingError."""
        document = _json(_get(self._client, self._url).content)
        if not isinstance(document, dict):
            raise ReadingError(f"{self._url} did not answer with an object")
        return document


class MetricsApi:
    """A ``metrics-api`` trigger: one HTTP GET, one number out of the answer; anything but 200 is a failure."""

    def __init__(self, source: TriggerSource) -> None:
        """Raises UnusableTrigger if it needs what only a cluster has."""
        metadata = source.metadata
        _refuse_cluster_only(source)
        self._url = metadata["url"]
        self._read_body = _BODIES.get(metadata.get("format", "json"), _refuse_format)(metadata["valueLocation"])
        self._client = _http_client(metadata)

    def read(self) -> float:
        """The number in the answer; raises ReadingError."""
        return self._read_body(_get(self._client, self._url).content)


class Prometheus:
    """A ``prometheus`` trigger: an instant query whose answer is one element."""

    def __init__(self, source: TriggerSource) -> None:
        """Raises UnusableTrigger if it needs what only a cluster has."""
        _refuse_cluster_only(source)
        self._url = source.metadata["serverAddress"].rstrip("/") + "/api/v1/query"
        self._query = source.metadata["query"]
        self._empty_is_zero = source.metadata.get("ignoreNullValues") == "true"
        self._client = _http_client(source.metadata)

    def read(self) -> float:
        """The query's one number; raises ReadingError."""
        answer = _json(_get(self._client, self._url, {"query": self._query}).content)
        values = _sample_values(answer)
        if len(values) == 1:
            return values[0]
        if not values and self._empty_is_zero:
            return 0.0
        raise ReadingError(f"the query gave {len(values)} elements, not one")


class RedisLength:
    """A ``redis`` trigger: how much is in a list; KEDA's script takes hashes, sorted sets and sets as well."""

    def __init__(self, client: redis.Redis, key: str) -> None:
        self._client: Any = client  # redis-py's types are those of a client that may decode its answers
        self._key = key

    def read(self) -> float:
        """How many entries it has, 0 if there is no such key; raises ReadingError."""
        try:
            return float(self._length())
        except RedisError as error:
            raise ReadingError(f"Redis: {error}") from error

    def _length(self) -> int:
        kind = self._client.type(self._key).decode()
        count: Callable[[str], Any] | None = {
            "none": lambda _: 0,
            "list": self._client.llen,
            "hash": self._client.hlen,
            "zset": self._client.zcard,
            "set": self._client.scard,
        }.get(kind)
        if count is None:
            raise ReadingError(f"{self._key} is a {kind}, which has no length to scale on")
        return int(count(self._key))


def redis_client(metadata: Mapping[str, str], variable: Callable[[str], str | None]) -> redis.Redis:
    """A client for the address in a redis trigger. ``variable`` looks up what a ``...FromEnv`` field names.

    Raises:
        UnusableTrigger: there is no address, or a variable is not set.
    """

    def given(name: str) -> str | None:
        named = metadata.get(f"{name}FromEnv")
        if named is None:
            return metadata.get(name)
        if (value := variable(named)) is None:
            raise UnusableTrigger(f"{name}FromEnv: {named} is not set here; set it or use --direct")
        return value

    host, _, port = (given("address") or f"{given('host') or ''}:{given('port') or ''}").rpartition(":")
    if not host or not port.isdigit():
        raise UnusableTrigger("no address is given outside of a cluster; use --direct to read our own Redis")
    return redis.Redis(
        host=host,
        port=int(port),
        db=int(metadata.get("databaseIndex", "0")),
        username=given("username"),
        password=given("password"),
        ssl=metadata.get("enableTLS") == "true",
        ssl_cert_reqs="none" if metadata.get("unsafeSsl") == "true" else "required",
        socket_timeout=_TIMEOUT_SECONDS,
        socket_connect_timeout=_TIMEOUT_SECONDS,
    )


def seconds_of(duration: str) -> float:
    """A trigger's timeout: milliseconds as a bare number, or Go's way of writing a duration, such as ``1m30s``."""
    if duration.isdigit():
        return int(duration) / 1000
    return sum(float(number) * _UNITS[unit] for number, unit in re.findall(r"([\d.]+)(ms|s|m|h)", duration))


def _http_client(metadata: Mapping[str, str]) -> httpx.Client:
    """Proxies of the environment do not stand between us and a metric, as they do not in KEDA's own clients."""
    timeout = seconds_of(metadata["timeout"]) if "timeout" in metadata else _TIMEOUT_SECONDS
    return httpx.Client(timeout=timeout, verify=metadata.get("unsafeSsl") != "true", trust_env=False)


def _refuse_cluster_only(source: TriggerSource) -> None:
    metadata = source.metadata
    if metadata.get("aggregateFromKubeServiceEndpoints") == "true":
        raise UnusableTrigger("aggregateFromKubeServiceEndpoints needs a cluster; remove it")
    if source.authentication_ref or metadata.get("authMode") or metadata.get("authModes"):
        raise UnusableTrigger("its credentials are in the cluster and not known here")


def _get(client: httpx.Client, url: str, parameters: Mapping[str, str] | None = None) -> httpx.Response:
    try:
        answer = client.get(url, params=parameters)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ReadingError(f"{url}: {type(error).__name__}: {error}") from error
    if answer.status_code != httpx.codes.OK:
        raise ReadingError(f"{url} answered {answer.status_code}")
    return answer


def _json(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ReadingError(f"the answer is no JSON: {error}") from error


def _located(document: Any, location: str) -> float:
    try:
        return number_at(document, location)
    except LocationError as error:
        raise ReadingError(str(error)) from error


def _in_json(location: str) -> Callable[[bytes], float]:
    _check_location(location)
    return lambda body: _located(_json(body), location)


def _in_yaml(location: str) -> Callable[[bytes], float]:
    _check_location(location)

    def read(body: bytes) -> float:
        try:
            document = yaml.safe_load(body)
        except yaml.YAMLError as error:
            raise ReadingError(f"the answer is no YAML: {error}") from error
        return _located(document, location)

    return read


def _check_location(location: str) -> None:
    try:
        parse_location(location)
    except LocationError as error:
        raise UnusableTrigger(str(error)) from error


def _in_prometheus_text(selector: str) -> Callable[[bytes], float]:
    """``name{label="x"}``: equality only, as in KEDA."""
    found = _SELECTOR.fullmatch(selector)
    if found is None:
        raise UnusableTrigger(f'valueLocation {selector!r} is no selector; write one such as name{{label="x"}}')
    name, labels = found[1], dict(_LABEL.findall(found[2] or ""))

    def read(body: bytes) -> float:
        for sample in _samples(body):
            if sample.name == name and labels.items() <= sample.labels.items():
                return _finite(float(sample.value))
        raise ReadingError(f"the answer has no {selector}")

    return read


def _samples(body: bytes) -> list[Sample]:
    try:
        families = list(text_string_to_metric_families(body.decode()))
    except ValueError as error:
        raise ReadingError(f"the answer is not in Prometheus' text format: {error}") from error
    return [sample for family in families for sample in family.samples]


def _refuse_format(_: str) -> Callable[[bytes], float]:
    raise UnusableTrigger('format "xml" is not read here; use "json"')


_BODIES: Mapping[str, Callable[[str], Callable[[bytes], float]]] = {
    "json": _in_json,
    "yaml": _in_yaml,
    "prometheus": _in_prometheus_text,
}


def _sample_values(answer: Any) -> list[float]:
    """The numbers of an instant query's answer, a vector's or a scalar's."""
    try:
        data = answer["data"]
        found = [data["result"]] if data["resultType"] == "scalar" else [one["value"] for one in data["result"]]
        return [_finite(float(value)) for _, value in found]
    except (KeyError, TypeError, ValueError) as error:
        raise ReadingError(f"the answer is no instant query's: {type(error).__name__}") from error


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ReadingError(f"the value is {value}")
    return value
