"""Serves the metrics, and says whether the loop still runs: a thread of its own would answer for ever after it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

#: Seconds without a step after which the loop counts as stuck; all that it asks answers within a few or fails.
STUCK_SECONDS = 60.0


class Pulse:
    """When the loop last took a step."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last = clock()

    def beat(self) -> None:
        """A step begins."""
        self._last = self._clock()

    @property
    def silent_seconds(self) -> float:
        """Since the last step."""
        return self._clock() - self._last


def serve_status(port: int, host: str, registry: CollectorRegistry, pulse: Pulse) -> int:
    """Serve ``/health`` and the metrics, from a thread that ends with the process; the port it is on.

    Raises:
        OSError: the port cannot be opened.
    """
    kind = _Server6 if ":" in host else ThreadingWSGIServer
    server = make_server(host, port, _app(registry, pulse), kind, handler_class=_Silent)
    threading.Thread(target=server.serve_forever, name="status", daemon=True).start()
    return server.server_port


def _app(registry: CollectorRegistry, pulse: Pulse) -> Callable[[dict[str, Any], Any], Iterable[bytes]]:
    metrics = make_wsgi_app(registry)

    def answer(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ["PATH_INFO"] != "/health":
            return metrics(environ, start_response)  # type: ignore[no-any-return]
        silent = pulse.silent_seconds
        status = "200 OK" if silent < STUCK_SECONDS else "503 Service Unavailable"
        start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
        return [f"the last step began {silent:.0f} s ago\n".encode()]

    return answer


class _Server6(ThreadingWSGIServer):
    """For addresses such as ``::``."""

    address_family = socket.AF_INET6


class _Silent(WSGIRequestHandler):
    """Does not log each request."""

    def log_message(self, *_: object) -> None:
        """Nothing."""
