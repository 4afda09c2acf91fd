"""Answers, built from bytes: serializing is what an API spends its time on."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, NamedTuple

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from api.reading import header
from dspy_jobs.problems import Problem

#: Seconds after which a caller may try again what could not be answered.
RETRY_SECONDS = "1"


class JsonBytes(Response):
    """A JSON answer from bytes. Starlette's own constructor looks for headers that may be missing; here none is."""

    def __init__(self, body: bytes, status: int, headers: Mapping[str, str] | None) -> None:
        self.status_code, self.body, self.background = status, body, None
        self.raw_headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        if headers:
            self.raw_headers += [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]


def json_answer(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer."""
    return JsonBytes(orjson.dumps(content), status, headers)


class Document(NamedTuple):
    """What a resource looks like now, and the `ETag` that tells this look from others."""

    body: bytes
    tag: str


def document(content: Any) -> Document:
    """The JSON document of a resource's members."""
    body = orjson.dumps(content)
    return Document(body, f'"{blake2b(body, digest_size=12).hexdigest()}"')


def tagged_answer(request: Request, found: Document, headers: dict[str, str]) -> Response:
    """A resource, or 304 where the caller has this very document already (RFC 9110, weak comparison)."""
    headers["etag"] = found.tag
    given = header(request, b"if-none-match")
    if given and (given.strip() == "*" or found.tag in (t.strip().removeprefix("W/") for t in given.split(","))):
        return Response(None, 304, headers)
    return JsonBytes(found.body, 200, headers)


def problem_answer(scope: Scope, problem: Problem, headers: Mapping[str, str] | None = None) -> Response:
    """A problem as `application/problem+json`, with where it happened and the request's id."""
    content = problem.model_dump(exclude_none=True)
    content["instance"] = scope["path"]
    content["request_id"] = scope["request_id"]
    headers = dict(headers or {})
    if problem.status in (429, 503):
        headers.setdefault("retry-after", RETRY_SECONDS)
    return Response(orjson.dumps(content), problem.status, headers, "application/problem+json")
