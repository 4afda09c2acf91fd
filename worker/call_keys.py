"""Keys of calls for gateways that charge a repeated call once: sent in a header that the operator names.

A call has the same key as one before it only if it repeats that one: the same job asks the same, and has had as many
answers to it. So a call that was cut off is charged once, and a call made because an answer was of no use is its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

from dspy._vendor.lm15.transports import StdlibTransport
from dspy.lm15 import RouterConfig

_key: ContextVar[str] = ContextVar("call_key", default="")


def call_key(scope: str, digest: bytes, number: int) -> str:
    """The key of a call: whose it is, what it asks, how many answers there were before."""
    return hashlib.blake2b(b"%s %s %d" % (scope.encode(), digest, number), digest_size=20).hexdigest()


@contextmanager
def sending(key: str) -> Iterator[None]:
    """Send this key with the calls of this block."""
    before = _key.set(key)
    try:
        yield
    finally:
        _key.reset(before)


class KeyedTransport(StdlibTransport):
    """The native engine's transport, which sends the key of the call under way."""

    header = ""

    def stream(self, request: Any) -> Any:
        """One HTTP request."""
        if key := _key.get():
            request = replace(request, headers=[*request.headers, (self.header, key)])
        return super().stream(request)


def with_keys(config: RouterConfig, header: str) -> RouterConfig:
    """The same way to a provider, with a key in that header."""
    transport = KeyedTransport(**config.transport_kwargs())
    transport.header = header
    return replace(config, timeouts=None, max_connections=None, transport=transport)
