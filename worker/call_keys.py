"""Headers of calls for gateways: above all keys for those that charge a repeated call once.

A call has the same key as one before it only if it repeats that one: the same job asks the same, and has had as many
answers to it. So a call that was cut off is charged once, and a call made because an answer was of no use is its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

from dspy._vendor.lm15.transports import StdlibTransport
from dspy.lm15 import RouterConfig

_headers: ContextVar[tuple[tuple[str, str], ...]] = ContextVar("call_headers", default=())


@dataclass(frozen=True, slots=True)
class CallHeaders:
    """What the calls of a model carry for gateways."""

    key: str | None = None
    """Name of the header with the call's key."""
    has_trace: bool = False
    """Whether they carry the trace they belong to."""


def call_key(scope: str, digest: bytes, number: int) -> str:
    """The key of a call: whose it is, what it asks, how many answers there were before."""
    return hashlib.blake2b(b"%s %s %d" % (scope.encode(), digest, number), digest_size=20).hexdigest()


@contextmanager
def sending(headers: Mapping[str, str]) -> Iterator[None]:
    """Send these headers with the calls of this block."""
    before = _headers.set((*_headers.get(), *headers.items()))
    try:
        yield
    finally:
        _headers.reset(before)


class HeaderTransport(StdlibTransport):
    """The native engine's transport, which sends the headers of the call under way."""

    def stream(self, request: Any) -> Any:
        """One HTTP request."""
        if headers := _headers.get():
            request = replace(request, headers=[*request.headers, *headers])
        return super().stream(request)


def with_headers(config: RouterConfig) -> RouterConfig:
    """The same way to a provider, on which headers are sent."""
    transport = HeaderTransport(**config.transport_kwargs())
    return replace(config, timeouts=None, max_connections=None, transport=transport)
