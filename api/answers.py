"""Answers, built from bytes: serializing is what an API spends its time on."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from api.reading import header
from dspy_jobs.problems import Problem

#: Seconds after which a caller may try again what could not be answered.
RETRY_SECONDS = "1"


def json_answer(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer."""
    return Response(orjson.dumps(content), status, headers, "application/json")


def tagged_answer(request: Request, content: Any, headers: dict[str, str]) -> Response:
    """A JSON answer with an `ETag`, or 304 where the caller has it already (RFC 9110, weak comparison)."""
    body = orjson.dumps(content)
    tag = f'"{blake2b(body, digest_size=12).hexdigest()}"'
    headers["etag"] = tag
    given = header(request, b"if-none-match")
    if given and (given.strip() == "*" or tag in (t.strip().removeprefix("W/") for t in given.split(","))):
        return Response(None, 304, headers)
    return Response(body, 200, headers, "application/json")


def problem_answer(scope: Scope, problem: Problem, headers: Mapping[str, str] | None = None) -> Response:
    """A problem as `application/problem+json`, with where it happened and the request's id."""
    content = problem.model_dump(exclude_none=True)
    content["instance"] = scope["path"]
    content["request_id"] = scope["request_id"]
    headers = dict(headers or {})
    if problem.status in (429, 503):
        headers.setdefault("retry-after", RETRY_SECONDS)
    return Response(orjson.dumps(content), problem.status, headers, "application/problem+json")
