"""Spans of the API: of a request, which FastAPI makes itself, and of what it sends to the workers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi.telemetry import TelemetryConfig
from starlette.types import Scope

from dspy_jobs import telemetry
from dspy_jobs.telemetry import KEPT_WITH_SENDER, NO_SPAN, OWN_TRACES, Attributes, Span


def of_requests() -> TelemetryConfig:
    """What FastAPI traces, and to where."""
    return {
        "tracing": telemetry.is_on(),
        "tracer_provider": telemetry.provider(),
        "operation_spans": False,
        "exclude": _begins_no_trace,
        "metrics": False,
        "logs": False,
        "auto_configure": False,
    }


def _begins_no_trace(scope: Scope) -> bool:
    """Whether nobody will ask for a request's trace: polls, probes and scrapes would bury the rest.

    A caller who is in a trace gets all of it.
    """
    return scope.get("method") == "GET" and not is_in_trace(scope)


def is_in_trace(scope: Scope) -> bool:
    """Whether a request belongs to a trace of its caller's, who has decided whether that is kept."""
    return any(name == b"traceparent" for name, _ in scope["headers"])


def sending_job(job_id: str, queue: str, fields: Mapping[str, Any]) -> Span:
    """The span that sends a job with these fields."""
    if not telemetry.is_on():
        return NO_SPAN
    named = {f"dspy_jobs.{name}": fields.get(name) for name in ("program", "variant", "model")}
    return _sending(queue, {"messaging.message.id": job_id, **named})


def sending_batch(batch_id: str, queue: str, program: str) -> Span:
    """The span that takes a batch in and sends its jobs."""
    attributes = {"dspy_jobs.batch.id": batch_id, "dspy_jobs.program": program}
    return _sending(queue, attributes) if telemetry.is_on() else NO_SPAN


def _sending(queue: str, attributes: Attributes) -> Span:
    common = {
        "messaging.system": "celery",
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "messaging.destination.name": queue,
    }
    return telemetry.span(f"send {queue}", "producer", {**common, **attributes})


def carried_by_batch(span: Span, scope: Scope, jobs: int, jobs_per_trace: int) -> dict[str, str]:
    """What the record of a batch tells the workers of the span that sent it."""
    carrier = span.carrier
    if not carrier:
        return {}
    span.set({"messaging.batch.message_count": jobs})
    if jobs <= jobs_per_trace:
        return carrier
    return {**carrier, **OWN_TRACES, **(KEPT_WITH_SENDER if is_in_trace(scope) else {})}
