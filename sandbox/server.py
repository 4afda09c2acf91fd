"""The sandbox's HTTP: a bare protocol, since closing a connection without an answer is part of the job."""

from __future__ import annotations

import asyncio
import math
import re
from collections import deque
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, NamedTuple, cast
from urllib.parse import unquote

import httptools
import orjson

from sandbox import FINGERPRINT, NOTICE, chat, errors, faults
from sandbox.chat import Reply
from sandbox.ledger import Ledger

#: Connections that may wait to be accepted.
BACKLOG = 4096

_PREFIX = re.compile(r"/x/([^/]*)(/.*)")


class Request(NamedTuple):
    """A whole request; `modifiers` is None without a `/x/<modifiers>/` path."""

    method: str
    path: str
    modifiers: str | None
    body: bytes
    keep_alive: bool
    key: str = ""
    """Its `Idempotency-Key`."""


class Sandbox:
    """What the paths answer; holds the ledger."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self._routes: dict[str, dict[str, Callable[[Request], Reply]]] = {
            "/": {"GET": lambda request: _document(about())},
            "/health": {"GET": lambda request: _document({"status": "ok", "notice": NOTICE})},
            "/ledger": {
                "GET": lambda request: _document(self.ledger.report()),
                "DELETE": self._reset,
            },
            "/v1/models": {"GET": lambda request: _document(models())},
            "/v1/chat/completions": {"POST": self._complete},
        }

    def reply(self, request: Request) -> Reply:
        """The reply to a request, whatever it is."""
        methods = self._routes.get(request.path)
        if methods is None:
            return _refusal(404, f"Unknown path {request.path}; known: {', '.join(self._routes)}.")
        if request.method not in methods:
            return _refusal(405, f"{request.path} takes {', '.join(methods)}, not {request.method}.")
        return methods[request.method](request)

    def _reset(self, request: Request) -> Reply:
        self.ledger.reset()
        return _document({"status": "reset"})

    def _complete(self, request: Request) -> Reply:
        return chat.complete(request.body, request.modifiers, self.ledger, request.key)


class Connection(asyncio.Protocol):
    """One client's connection; requests that arrive before the last is answered wait their turn."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._parser = httptools.HttpRequestParser(self)
        self._url = b""
        self._body: list[bytes] = []
        self._key = b""
        self._queue: deque[Request] = deque()
        self._busy = False
        self._timer: asyncio.TimerHandle | None = None
        self._call: chat.Call | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._queue.clear()
        if self._timer:
            self._timer.cancel()
        if self._call:
            self._call.abandoned()
            self._call = None

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.write(_head(400, {}, 0, keep_alive=False))
            self._transport.close()

    def on_message_begin(self) -> None:
        self._url, self._body, self._key = b"", [], b""

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"idempotency-key":
            self._key = value

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        path = unquote(httptools.parse_url(self._url).path.decode("latin-1"))
        prefix = _PREFIX.fullmatch(path)
        modifiers, path = (prefix[1], prefix[2]) if prefix else (None, path)
        method = self._parser.get_method().decode()
        body = b"".join(self._body)
        keep_alive, key = self._parser.should_keep_alive(), self._key.decode("latin-1")
        self._queue.append(Request(method, path, modifiers, body, keep_alive, key))
        if not self._busy:
            self._next()

    def _next(self) -> None:
        request = self._queue.popleft()
        self._busy = True
        reply = self._sandbox.reply(request)
        self._call = reply.call
        if not reply.delay:
            self._finish(reply, request.keep_alive)
        elif reply.delay < math.inf:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(reply.delay, self._finish, reply, request.keep_alive)

    def _finish(self, reply: Reply, keep_alive: bool) -> None:
        self._timer, self._call = None, None
        if reply.call:
            reply.call.sent()
        if reply.answered:
            self._transport.write(_head(reply.status, reply.headers, len(reply.body), keep_alive) + reply.body)
        if not reply.answered or not keep_alive:
            self._transport.close()
            return
        self._busy = False
        if self._queue:
            self._next()


async def listen(host: str, port: int) -> int:
    """Serve until the loop ends; returns the port, which for port 0 the system picks.

    Raises OSError when the port is taken. Whoever still waits when the loop ends sees the connection close.
    """
    sandbox = Sandbox()
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(lambda: Connection(sandbox), host, port, backlog=BACKLOG)
    return int(listener.sockets[0].getsockname()[1])


def about() -> dict[str, Any]:
    """What `GET /` says."""
    return {
        "notice": NOTICE,
        "endpoints": [
            "POST /v1/chat/completions",
            "GET /v1/models",
            "GET /health",
            "GET /ledger",
            "DELETE /ledger",
        ],
        "models": {name: description for name, (_, description) in faults.NAMED_MODELS.items()},
        "modifiers": faults.MODIFIERS,
        "errors": list(errors.ERRORS),
        "how": "model sandbox;latency=1;fail=500:0.1, or path /x/latency=1;fail=500:0.1/v1/chat/completions",
        "idempotency": "a call with the Idempotency-Key of an answered one gets that answer and is not charged",
        "tokens": f"one for every {chat.BYTES_PER_TOKEN} bytes of UTF-8; no tokenizer counts them",
    }


def models() -> dict[str, Any]:
    """What `GET /v1/models` says."""
    entries = [
        {
            "id": name,
            "object": "model",
            "created": 0,
            "owned_by": FINGERPRINT,
            "description": f"Not a language model: {description}.",
        }
        for name, (_, description) in faults.NAMED_MODELS.items()
    ]
    return {"object": "list", "data": entries}


def _document(document: dict[str, Any]) -> Reply:
    return Reply(200, orjson.dumps(document))


def _refusal(status: int, message: str) -> Reply:
    return Reply(status, errors.body(errors.invalid(message, status=status)))


def _head(status: int, headers: dict[str, str], length: int, keep_alive: bool) -> bytes:
    lines = [
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        "content-type: application/json",
        f"content-length: {length}",
        f"server: {FINGERPRINT}",
        f"connection: {'keep-alive' if keep_alive else 'close'}",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()
