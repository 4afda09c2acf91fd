"""Reads what a request carries: its body within bounds, its query, and how long it is ready to wait."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Collection, Iterable
from typing import Any

import orjson
from starlette.requests import Request

from dspy_jobs.problems import ProblemError, fail

JSON = "application/json"
NDJSON = "application/x-ndjson"
TEXT = "text/plain"

#: Most entries of a listing in one answer.
LARGEST_PAGE = 100
_DEFAULT_PAGE = 20
#: Characters of a caller's own text in an answer.
_LONGEST_TEXT = 200

_WAIT = re.compile(r'(?:^|[,;\s])wait\s*=\s*"?0*(\d+)"?\s*(?:$|[,;])', re.IGNORECASE)
_TRACESTATE = re.compile(r"[ -~]{1,512}\Z")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}\Z")


def header(request: Request, name: bytes) -> str:
    """A header's value, several lines joined to one list (RFC 9110, 5.3); empty where there is none."""
    # Polls look for two that are seldom there; going through Starlette's mapping would cost a tenth of a poll.
    values = [value for key, value in request.scope["headers"] if key == name]
    return b",".join(values).decode("latin-1") if values else ""


def content_type(request: Request, taken: Collection[str]) -> str:
    """The body's content type without parameters; JSON where none is named.

    Raises:
        ProblemError: it is none of `taken`.
    """
    given = request.headers.get("content-type", JSON).partition(";")[0].strip().lower()
    if given not in taken:
        raise fail("unsupported_media_type", f"Send {' or '.join(taken)}, not {given or 'an empty content type'!r}.")
    return given


async def chunks(request: Request, limit: int, what: str) -> AsyncIterator[bytes]:
    """The body as it arrives.

    Raises:
        ProblemError: it is longer than `limit` bytes, whether or not it said so beforehand.
    """
    said = request.headers.get("content-length", "")
    size = int(said) if said.isdecimal() else 0
    if size > limit:
        raise _too_large(what, limit)
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise _too_large(what, limit)
        yield chunk


def _too_large(what: str, limit: int) -> ProblemError:
    return fail("payload_too_large", f"{what} may have {limit} bytes at most; see GET /v1/limits.")


async def json_body(request: Request, limit: int, what: str) -> dict[str, Any]:
    """The body as a JSON object.

    Raises:
        ProblemError: it is too large, not JSON (RFC 8259, UTF-8) or not an object.
    """
    content_type(request, (JSON,))
    return parse_object(b"".join([chunk async for chunk in chunks(request, limit, what)]))


async def optional_json_body(request: Request, limit: int, what: str) -> dict[str, Any]:
    """The same, where no body at all means an empty object."""
    body = b"".join([chunk async for chunk in chunks(request, limit, what)])
    if not body:
        return {}
    content_type(request, (JSON,))
    return parse_object(body)


def parse_object(body: bytes) -> dict[str, Any]:
    """A JSON object.

    Raises:
        ProblemError: it is not JSON or not an object.
    """
    if not body:
        raise fail("malformed_body", "The body is empty; send a JSON object.")
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise fail("malformed_body", f"The body is not valid JSON: {error}.") from None
    if type(content) is not dict:
        raise fail("invalid_request_body", "The body must be a JSON object.")
    return content


def query(request: Request, known: Collection[str]) -> dict[str, str]:
    """The query's parameters.

    Raises:
        ProblemError: one is unknown or given twice.
    """
    if not request.scope["query_string"]:
        return {}
    pairs = request.query_params.multi_items()
    values: dict[str, str] = {}
    for name, value in pairs:
        if name not in known:
            allowed = ", ".join(sorted(known)) or "none"
            raise bad_parameter(name[:100], f"There is no query parameter {name[:100]!r} here; allowed: {allowed}.")
        if name in values:
            raise bad_parameter(name, f"The query parameter {name!r} is given twice.")
        values[name] = value
    return values


def bad_parameter(name: str, detail: str) -> ProblemError:
    """What a wrong query parameter gets."""
    error = {"param": name, "code": "invalid_parameter", "detail": detail}
    return fail("invalid_parameter", detail, errors=[error])


def choice(values: dict[str, str], name: str, allowed: Collection[str], default: str = "") -> str:
    """A parameter that is one of a few words.

    Raises:
        ProblemError: it is another.
    """
    value = values.get(name, default)
    if value not in allowed and value != default:
        raise bad_parameter(name, f"{name} must be one of: {', '.join(allowed)}.")
    return value


def number(values: dict[str, str], name: str, default: int, largest: int) -> int:
    """A parameter that is a whole number from 1 to `largest`.

    Raises:
        ProblemError: it is not.
    """
    value = values.get(name)
    if value is None:
        return default
    if not (value.isascii() and value.isdigit() and len(value) < 10 and 1 <= int(value) <= largest):
        raise bad_parameter(name, f"{name} must be a whole number from 1 to {largest}.")
    return int(value)


def page_size(values: dict[str, str]) -> int:
    """A listing's `limit`."""
    return number(values, "limit", _DEFAULT_PAGE, LARGEST_PAGE)


def shortened(text: str) -> str:
    """A caller's text as an answer repeats it."""
    return text if len(text) <= _LONGEST_TEXT else text[:_LONGEST_TEXT] + "…"


def listed(names: Iterable[str]) -> str:
    """What there is, where something else was asked for."""
    return ", ".join(sorted(names)) or "none"


def bad_cursor() -> ProblemError:
    """What a cursor gets that no answer ever gave."""
    return bad_parameter("after", "after must be a cursor of an earlier answer of this list.")


def wait_seconds(request: Request, longest: int) -> int:
    """Seconds of `Prefer: wait=N` (RFC 7240), at most `longest`; 0 where nothing useful is preferred."""
    given = header(request, b"prefer")
    found = _WAIT.search(given) if given else None
    return min(int(found[1][:9]), longest) if found else 0


def trace_context(request: Request) -> dict[str, str]:
    """The W3C trace context the caller is in, as far as it is well formed."""
    parent, state = header(request, b"traceparent"), header(request, b"tracestate")
    if not _TRACEPARENT.match(parent):
        return {}
    context = {"traceparent": parent}
    return {**context, "tracestate": state} if _TRACESTATE.match(state) else context
