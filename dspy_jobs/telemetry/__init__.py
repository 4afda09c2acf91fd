"""Traces: spans of requests, jobs and model calls, sent to an OpenTelemetry collector where that is switched on.

OpenTelemetry is imported in `recording.py` alone, and only in a process that calls `start` with tracing switched on; in
all others every span is `NO_SPAN`, which does nothing. Spans hold names, ids and numbers: never what a caller gave,
what a model said or what an exception's message tells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias

from dspy_jobs.logs import carry_ids
from dspy_jobs.settings import ConfigurationError, Settings, secret

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

    from dspy_jobs.telemetry.recording import Recorder

Value: TypeAlias = str | bool | int | float | Sequence[str]
#: Of a span or event; None is left out.
Attributes: TypeAlias = Mapping[str, Value | None]
#: Holds the W3C trace context under `traceparent` and `tracestate`, perhaps among other things.
Carrier: TypeAlias = Mapping[str, Any]
Kind: TypeAlias = Literal["producer", "consumer", "client"]

#: Seconds a stopping process waits for its last spans to be taken.
FLUSH_SECONDS = 3.0

#: In the record of a batch: its jobs are traces of their own.
OWN_TRACES = {"traces": "own"}
#: Beside it: they are kept if the trace of the batch is, for its caller has decided.
KEPT_WITH_SENDER = {"traces_kept": "with_sender"}


class Span:
    """A span, as a context manager. This one stands where nothing is traced, and does nothing."""

    @property
    def carrier(self) -> dict[str, str]:
        """What must be passed on for others to continue from here; empty where nothing is traced."""
        return {}

    def set(self, attributes: Attributes) -> None:
        """Add attributes."""

    def event(self, name: str, attributes: Attributes) -> None:
        """Add something that happened."""

    def fail(self, kind: str) -> None:
        """Say that it failed, and how: a code or the name of a class."""

    def end(self) -> None:
        """End it; a second time changes nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


NO_SPAN = Span()


@dataclass(frozen=True, slots=True)
class Place:
    """Where an attempt of a job belongs."""

    job_id: str
    attempt: int
    request: Carrier
    """The job's request record, over what its batch shares."""


_recorder: Recorder | None = None


def check(settings: Settings) -> None:
    """Refuse tracing that cannot work.

    Raises:
        ConfigurationError: OpenTelemetry is not installed, or the headers are missing.
    """
    if not settings.tracing.enabled:
        return
    try:
        import dspy_jobs.telemetry.recording  # noqa: F401
    except ImportError:
        raise ConfigurationError(
            'tracing.enabled needs OpenTelemetry, which is not installed: pip install "dspy-jobs[tracing]"'
        ) from None
    _headers(settings)


def start(settings: Settings, process: str, exporter: SpanExporter | None = None) -> None:
    """Trace from now on, if that is switched on; `exporter` takes the place of the collector in tests.

    Raises:
        ConfigurationError: it cannot work.
    """
    global _recorder  # noqa: PLW0603  # one a process, as long as it runs
    check(settings)
    if settings.tracing.enabled and _recorder is None:
        from dspy_jobs.telemetry.recording import Recorder

        _recorder = Recorder(settings.tracing, process, _headers(settings), exporter)
        carry_ids(_ids)


def stop(seconds: float = FLUSH_SECONDS) -> None:
    """Send what is left, for so many seconds at most, and trace no more."""
    global _recorder
    stopped, _recorder = _recorder, None
    if stopped:
        stopped.end(seconds)


def is_on() -> bool:
    """Whether this process traces: whoever would have to make attributes asks first."""
    return _recorder is not None


def provider() -> TracerProvider | None:
    """Makes spans for libraries that bring their own."""
    return _recorder.provider if _recorder else None


def trace_ids() -> dict[str, str]:
    """`trace_id` and `span_id` of the span under way here, in hexadecimal, if there is one and it is kept."""
    return _recorder.ids() if _recorder else {}


def _ids(_: Mapping[str, Any]) -> dict[str, str]:
    return trace_ids()


def current_carrier() -> dict[str, str]:
    """What must be passed on for others to continue from the span under way here."""
    return _recorder.carrier() if _recorder else {}


def span(name: str, kind: Kind, attributes: Attributes, within: Span = NO_SPAN) -> Span:
    """A span below the one under way here, else below `within`: threads of a user's program know of none."""
    return _recorder.span(name, kind, attributes, within) if _recorder else NO_SPAN


def attempt_span(name: str, attributes: Attributes, place: Place) -> Span:
    """An attempt's span: below the span that sent the job, if known, and linked to those of earlier attempts."""
    return _recorder.attempt_span(name, attributes, place) if _recorder else NO_SPAN


def _headers(settings: Settings) -> str | None:
    """What the collector wants to see, such as a key.

    Raises:
        ConfigurationError: the variable that holds them is not set.
    """
    variable = settings.tracing.headers_env
    if variable is None:
        return None
    given = secret(variable)
    if given is None:
        raise ConfigurationError(f"tracing.headers_env: {variable} is not set in the environment")
    return given
