"""Reads what a process exports over OTLP/HTTP as a collector does: protobuf, decoded by OpenTelemetry's own classes."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.unit.http_stand_in import StandIn


@dataclass(frozen=True)
class Received:
    """A span as it arrived; ids are hexadecimal."""

    service: str
    name: str
    kind: int
    trace: str
    id: str
    parent: str
    links: tuple[str, ...]
    """Ids of the spans it points at."""
    attributes: dict[str, Any]


def received(collector: StandIn) -> list[Received]:
    """Every span that has arrived, in order."""
    found = []
    for method, path, given, body in list(collector.asked):
        headers = {name.lower(): value for name, value in given.items()}
        assert (method, path, headers["content-type"]) == ("POST", "/v1/traces", "application/x-protobuf")
        content = gzip.decompress(body) if headers.get("content-encoding") == "gzip" else body
        for group in ExportTraceServiceRequest.FromString(content).resource_spans:
            service = _plain(group.resource.attributes)["service.name"]
            found += [_span(service, span) for scope in group.scope_spans for span in scope.spans]
    return found


def _span(service: str, span: Span) -> Received:
    links = tuple(link.span_id.hex() for link in span.links)
    ids = (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex())
    return Received(service, span.name, span.kind, *ids, links, _plain(span.attributes))


def _plain(attributes: Any) -> dict[str, Any]:
    pairs: list[KeyValue] = list(attributes)
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(part) for part in value.array_value.values]
    return getattr(value, kind) if kind else None
