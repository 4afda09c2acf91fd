"""What the service says of itself: where to go from here, its limits, its configuration."""

from __future__ import annotations

import re
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from api.answers import json_answer
from api.reading import query
from api.resources import resources_of
from dspy_jobs import __version__

_LINKS = {
    name: f"/{path}"
    for name, path in {
        "docs": "docs", "openapi": "openapi.json", "health": "health", "jobs": "v1/jobs", "batches": "v1/batches",
        "programs": "v1/programs", "queues": "v1/queues", "limits": "v1/limits",
    }.items()
}  # fmt: skip

_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]*@")
_SECRET_PARAMETER = re.compile(r"([?&][^=&]*(?:key|token|secret|password|sig)[^=&]*=)[^&\s]*", re.IGNORECASE)
_SECRET_NAME = re.compile(r"key|token|secret|password|authorization", re.IGNORECASE)
REDACTED = "***"


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
    return json_answer(redacted(resources_of(request).settings.model_dump(mode="json")))


def redacted(value: Any, name: str = "") -> Any:
    """The same with passwords in addresses and values under telling names made unreadable."""
    if isinstance(value, dict):
        return {key: redacted(item, key) for key, item in value.items()}
    if isinstance(value, list):
        return [redacted(item, name) for item in value]
    if not isinstance(value, str):
        return value
    # The name of a key's variable is no secret, and the first thing one looks for.
    if _SECRET_NAME.search(name) and not name.endswith(("_env", "max_tokens")):
        return REDACTED
    return _SECRET_PARAMETER.sub(rf"\1{REDACTED}", _CREDENTIALS.sub(f"{REDACTED}@", value))
