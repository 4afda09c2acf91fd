"""The errors of OpenAI's HTTP interface, in its shape, so that clients classify them like the real ones."""

from __future__ import annotations

from typing import NamedTuple

import orjson


class ApiError(NamedTuple):
    """One kind of error as the provider words it; `kind` is its `type` field."""

    status: int
    kind: str
    code: str | None
    message: str
    param: str | None = None


_INVALID = "invalid_request_error"
_BAD_KEY = ApiError(
    401,
    _INVALID,
    "invalid_api_key",
    "Incorrect API key provided: sandbox asked to refuse it.",
)
_NO_MODEL = ApiError(
    404,
    _INVALID,
    "model_not_found",
    "The model does not exist or you do not have access to it.",
)
_RATE = ApiError(
    429,
    "requests",
    "rate_limit_exceeded",
    "Rate limit reached for requests. Please try again later.",
)
_QUOTA = "You exceeded your current quota, please check your plan and billing details."

#: By status or by OpenAI's own code: what `fail=` and `first=` may name.
ERRORS: dict[str, ApiError] = {
    "400": ApiError(400, _INVALID, None, "Invalid request: the sandbox was asked to refuse it."),
    "401": _BAD_KEY,
    "402": ApiError(402, "insufficient_quota", "insufficient_quota", _QUOTA),
    "403": ApiError(
        403,
        "request_forbidden",
        "unsupported_country_region_territory",
        "Country not supported.",
    ),
    "404": _NO_MODEL,
    "408": ApiError(408, "timeout", None, "Request timed out."),
    "429": _RATE,
    "500": ApiError(
        500,
        "server_error",
        None,
        "The server had an error while processing your request.",
    ),
    "502": ApiError(502, "server_error", None, "Bad gateway."),
    "503": ApiError(
        503,
        "server_error",
        "service_unavailable",
        "The engine is currently overloaded.",
    ),
    "504": ApiError(504, "server_error", None, "Gateway timeout."),
    "context_length_exceeded": ApiError(
        400,
        _INVALID,
        "context_length_exceeded",
        "This model's maximum context length is 8192 tokens. Please reduce the length of the messages.",
        "messages",
    ),
    "content_policy_violation": ApiError(
        400,
        _INVALID,
        "content_policy_violation",
        "Your request was rejected by the content policy.",
    ),
    "invalid_api_key": _BAD_KEY,
    "model_not_found": _NO_MODEL,
    "rate_limit_exceeded": _RATE,
    "insufficient_quota": ApiError(429, "insufficient_quota", "insufficient_quota", _QUOTA),
}


def body(error: ApiError) -> bytes:
    """The JSON document of an error."""
    fields = {
        "message": error.message,
        "type": error.kind,
        "param": error.param,
        "code": error.code,
    }
    return orjson.dumps({"error": fields})


def invalid(message: str, param: str | None = None, status: int = 400) -> ApiError:
    """A request the sandbox itself cannot answer."""
    return ApiError(status, _INVALID, None, message, param)
