"""What the service says of itself: where to go from here, its limits, its configuration."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from api.answers import json_answer
from api.reading import query
from api.resources import resources_of
from dspy_jobs import __version__
from dspy_jobs.redaction import redacted

_LINKS = {
    name: f"/{path}"
    for name, path in {
        "docs": "docs", "openapi": "openapi.json", "health": "health", "jobs": "v1/jobs", "batches": "v1/batches",
        "programs": "v1/programs", "queues": "v1/queues", "limits": "v1/limits",
        "budgets": "v1/budgets", "costs": "costs", "autoscale": "v1/autoscale", "metrics": "metrics",
    }.items()
}  # fmt: skip


async def get_root(request: Request) -> Response:
    """Where to go from here."""
    query(request, ())
    return json_answer({"name": "dspy-jobs", "version": __version__, "links": _LINKS})


async def get_limits(request: Request) -> Response:
    """Every limit as configured."""
    query(request, ())
    settings = resources_of(request).settings
    jobs = settings.jobs.model_dump()
    shown = ("timeout_seconds", "max_timeout_seconds", "expires_in_seconds", "max_attempts")
    kept = ("retention_seconds", "tombstone_seconds", "idempotency_seconds")
    return json_answer({**settings.limits.model_dump(), **{name: jobs[name] for name in (*shown, *kept)}})


async def get_config(request: Request) -> Response:
    """The whole configuration, without its secrets."""
    query(request, ())
    return json_answer(redacted(resources_of(request).settings))
