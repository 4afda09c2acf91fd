"""How calls become HTTP requests, the same for both kinds of client."""

from __future__ import annotations

import math
from typing import Any

import httpx

from dspy_jobs import __version__
from dspy_jobs.client.body import Body
from dspy_jobs.client.call import Call
from dspy_jobs.client.errors import InvalidArgument
from dspy_jobs.settings import service_url

#: A proxy from the environment never serves this machine's own addresses.
_DIRECT = {"all://127.0.0.1": None, "all://localhost": None, "all://[::1]": None}


def base_url(given: str | None) -> str:
    """The service's address without a closing slash.

    Raises:
        InvalidArgument: it is not an http address.
        ConfigurationError: none is given and the configuration is wrong.
    """
    url = given or service_url()
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise InvalidArgument(f"{url!r} is not an address: {error}") from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise InvalidArgument(f"{url!r} is not an address of the kind http://127.0.0.1:8080")
    return url.rstrip("/")


def options(url: str, timeout: float) -> dict[str, Any]:
    """What both httpx clients are made with."""
    return {
        "base_url": url,
        "timeout": timeout,
        "mounts": _DIRECT,
        "headers": {"Accept": "application/json", "User-Agent": f"dspy-jobs/{__version__}"},
    }


def request(http: httpx.Client | httpx.AsyncClient, call: Call[Any]) -> httpx.Request:
    """The call as a request of this client."""
    headers = {"Prefer": f"wait={math.ceil(call.wait)}"} if call.wait > 0 else {}
    if call.key is not None:
        headers["Idempotency-Key"] = call.key
    made = http.build_request(
        call.method,
        call.path,
        params=dict(call.params) or None,
        json=call.json,
        headers=headers,
        timeout=_timeouts(http, call.wait),
    )
    return made if call.body is None else _with_body(made, call.body)


def _with_body(bare: httpx.Request, body: Body) -> httpx.Request:
    headers = bare.headers.copy()
    headers.update({"Content-Type": "application/x-ndjson", "Content-Length": str(body.length)})
    return httpx.Request(bare.method, bare.url, headers=headers, stream=body, extensions=bare.extensions)


def _timeouts(http: httpx.Client | httpx.AsyncClient, wait: float) -> httpx.Timeout:
    usual = http.timeout.as_dict()
    read = usual["read"]
    return httpx.Timeout(**{**usual, "read": None if read is None else read + wait})
