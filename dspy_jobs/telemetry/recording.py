"""Spans that are recorded and sent: the one module that imports OpenTelemetry.

A job's spans have ids made of its own id and the attempt's number, so that any worker can point at the spans of earlier
attempts without having been told of them. OpenTelemetry's globals are left to users' programs.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar, Token
from hashlib import blake2b
from types import TracebackType
from typing import Any, Self, TypeVar

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Span as RecordedSpan
from opentelemetry.sdk.trace import SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    ParentBased,
    Sampler,
    SamplingResult,
    TraceIdRatioBased,
)
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, StatusCode, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.re import parse_env_headers

from dspy_jobs import __version__
from dspy_jobs.settings import TracingSettings
from dspy_jobs.telemetry import KEPT_WITH_SENDER, OWN_TRACES, Attributes, Carrier, Kind, Place, Span, Value

#: Earlier attempts a span points at, the latest ones.
_MOST_LINKS = 10
#: Characters of an attribute.
_LONGEST_VALUE = 500
#: Where a collector takes traces, below its address.
_PATH = "/v1/traces"

T = TypeVar("T")

_KINDS = {"producer": SpanKind.PRODUCER, "consumer": SpanKind.CONSUMER, "client": SpanKind.CLIENT}
_W3C = TraceContextTextMapPropagator()

#: Trace and span id of the next span of this thread.
_chosen: ContextVar[tuple[int, int] | None] = ContextVar("chosen_ids", default=None)
#: Whether it is kept, if that was decided before; None leaves it to the sampler.
_decided: ContextVar[bool | None] = ContextVar("decided", default=None)


class Recorder:
    """Makes spans and sends those that are kept from a thread of its own; if that falls behind, some are lost."""

    def __init__(
        self, settings: TracingSettings, process: str, headers: str | None, exporter: SpanExporter | None
    ) -> None:
        ratio = settings.sample_ratio
        self.provider = TracerProvider(
            # OpenTelemetry's own variables decide where the settings do not.
            sampler=None if ratio is None else ParentBased(TraceIdRatioBased(ratio)),
            resource=_resource(settings, process),
            shutdown_on_exit=False,  # that would wait half a minute for a collector that does not answer
            id_generator=_Ids(),
            span_limits=SpanLimits(max_span_attribute_length=_LONGEST_VALUE),
        )
        self.provider.sampler = _Decided(self.provider.sampler)
        self.provider.add_span_processor(_WithoutQuery())
        self.provider.add_span_processor(BatchSpanProcessor(exporter or _exporter(settings, headers)))
        self._tracer = self.provider.get_tracer("dspy_jobs", __version__)

    def end(self, seconds: float) -> None:
        """Send what is left, for so many seconds at most."""
        flusher = threading.Thread(target=self.provider.shutdown, name="last spans", daemon=True)
        flusher.start()
        flusher.join(seconds)

    def ids(self) -> dict[str, str]:
        """Ids of the span under way here, if it is kept."""
        found = trace.get_current_span().get_span_context()
        if not found.is_valid or not found.trace_flags.sampled:
            return {}
        return {"trace_id": trace.format_trace_id(found.trace_id), "span_id": trace.format_span_id(found.span_id)}

    def carrier(self) -> dict[str, str]:
        """What must be passed on for others to continue from the span under way here."""
        return _carrier(None)

    def span(self, name: str, kind: Kind, attributes: Attributes, within: Span) -> Span:
        """A span below the one under way here, else below `within`."""
        parent = None
        if isinstance(within, _Recorded) and not trace.get_current_span().get_span_context().is_valid:
            parent = trace.set_span_in_context(within.inner)
        return self._begun(name, kind, attributes, parent)

    def attempt_span(self, name: str, attributes: Attributes, place: Place) -> Span:
        """An attempt's span, of a trace of the job's own unless it is known who sent it."""
        sender = _sender(place.request)
        is_kept = None
        if sender is None or place.request.get("traces") == OWN_TRACES["traces"]:
            parent, trace_id = Context(), _number(place.job_id, 16)
            if sender and KEPT_WITH_SENDER.items() <= place.request.items():
                is_kept = sender.trace_flags.sampled
        else:
            parent, trace_id = trace.set_span_in_context(NonRecordingSpan(sender), Context()), sender.trace_id
        links = _earlier(place, trace_id)
        if sender and sender.trace_id != trace_id:
            links.append(Link(sender))
        with _with(_decided, is_kept), _with(_chosen, (trace_id, _span_number(place.job_id, place.attempt))):
            return self._begun(name, "consumer", attributes, parent, links)

    def _begun(
        self, name: str, kind: Kind, attributes: Attributes, parent: Context | None, links: Sequence[Link] = ()
    ) -> Span:
        return _Recorded(self._tracer.start_span(name, parent, _KINDS[kind], _known(attributes), links))


class _Recorded(Span):
    """A span of OpenTelemetry's."""

    def __init__(self, inner: trace.Span) -> None:
        self.inner = inner
        self._token: Token[Context] | None = None
        self._ending = threading.Lock()

    @property
    def carrier(self) -> dict[str, str]:
        return _carrier(trace.set_span_in_context(self.inner, Context()))

    def set(self, attributes: Attributes) -> None:
        if self.inner.is_recording():  # OpenTelemetry complains of what comes after the end
            self.inner.set_attributes(_known(attributes))

    def event(self, name: str, attributes: Attributes) -> None:
        if self.inner.is_recording():
            self.inner.add_event(name, _known(attributes))

    def fail(self, kind: str) -> None:
        if self.inner.is_recording():
            self.inner.set_attribute("error.type", kind)
            self.inner.set_status(StatusCode.ERROR)

    def end(self) -> None:
        # A thread that was given up ends it once more, should it return after all.
        if self._ending.acquire(blocking=False):
            self.inner.end()

    def __enter__(self) -> Self:
        self._token = contexts.attach(trace.set_span_in_context(self.inner))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        assert self._token is not None, "it was entered"
        contexts.detach(self._token)
        if error is not None:
            self.fail(_kind_of(error))
        self.end()


class _Ids(RandomIdGenerator):
    """Random ids, unless others were chosen."""

    def generate_trace_id(self) -> int:
        """The id of a trace that begins."""
        ids = _chosen.get()
        return ids[0] if ids else super().generate_trace_id()

    def generate_span_id(self) -> int:
        """The id of a span."""
        ids = _chosen.get()
        return ids[1] if ids else super().generate_span_id()


class _WithoutQuery(SpanProcessor):
    """Takes the values out of requests' queries: a batch sent as lines has its metadata there."""

    def on_start(self, span: RecordedSpan, parent_context: Context | None = None) -> None:  # noqa: ARG002
        """Leave the parameters' names."""
        query = (span.attributes or {}).get("url.query")
        if isinstance(query, str):
            names = (parameter.partition("=")[0] for parameter in query.split("&"))
            span.set_attribute("url.query", "&".join(f"{name}=REDACTED" for name in names))


class _Decided(Sampler):
    """Keeps a trace that begins if somebody has decided so, else if the other sampler does."""

    def __init__(self, other: Sampler) -> None:
        self._other = other

    def should_sample(self, *args: Any, **kwargs: Any) -> SamplingResult:
        """Whether a span is kept."""
        is_kept = _decided.get()
        sampler = self._other if is_kept is None else ALWAYS_ON if is_kept else ALWAYS_OFF
        return sampler.should_sample(*args, **kwargs)

    def get_description(self) -> str:
        """As the other's."""
        return self._other.get_description()


@contextmanager
def _with(variable: ContextVar[T | None], value: T | None) -> Iterator[None]:
    before = variable.set(value)
    try:
        yield
    finally:
        variable.reset(before)


def _carrier(context: Context | None) -> dict[str, str]:
    carrier: dict[str, str] = {}
    _W3C.inject(carrier, context)
    return carrier


def _sender(carrier: Carrier) -> SpanContext | None:
    """The span that sent a job, if its record tells."""
    given = {name: carrier[name] for name in ("traceparent", "tracestate") if isinstance(carrier.get(name), str)}
    found = trace.get_current_span(_W3C.extract(given, Context())).get_span_context()
    return found if found.is_valid else None


def _earlier(place: Place, trace_id: int) -> list[Link]:
    numbers = range(max(1, place.attempt - _MOST_LINKS), place.attempt)
    return [Link(_context_of(trace_id, place.job_id, number), {"dspy_jobs.attempt": number}) for number in numbers]


def _context_of(trace_id: int, job_id: str, attempt: int) -> SpanContext:
    flags = TraceFlags(TraceFlags.SAMPLED)
    return SpanContext(trace_id, _span_number(job_id, attempt), is_remote=True, trace_flags=flags)


def _span_number(job_id: str, attempt: int) -> int:
    return _number(f"{job_id}/{attempt}", 8)


def _number(text: str, size: int) -> int:
    """A number of so many bytes, always the same for a text; never 0, which is no id."""
    return int.from_bytes(blake2b(text.encode(), digest_size=size).digest()) or 1


def _known(attributes: Attributes) -> dict[str, Value]:
    return {name: value for name, value in attributes.items() if value is not None}


def _kind_of(error: BaseException) -> str:
    """How something failed: a problem's code, an engine's, or else the exception's class."""
    code = getattr(getattr(error, "problem", error), "code", None)
    return code if isinstance(code, str) and code else type(error).__qualname__


def _resource(settings: TracingSettings, process: str) -> Resource:
    found = dict(Resource.create().attributes)  # with what OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME say
    named = str(found.get("service.name", ""))
    default = f"dspy-jobs-{process}" if named.startswith("unknown_service") else named
    ours = {
        "service.namespace": "dspy-jobs",
        "service.version": __version__,
        "service.instance.id": f"{socket.gethostname()}-{os.getpid()}",
    }
    return Resource({**ours, **found, "service.name": settings.service_name or default})


def _exporter(settings: TracingSettings, headers: str | None) -> SpanExporter:
    address = settings.endpoint and settings.endpoint.rstrip("/").removesuffix(_PATH) + _PATH
    return OTLPSpanExporter(endpoint=address, headers=parse_env_headers(headers, liberal=True) if headers else None)
