"""The worker's own port: `/metrics` and `/health`, answered from what this process knows without asking anybody."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from ipaddress import ip_address
from socket import AF_INET, AF_INET6, SHUT_RDWR, socket
from socketserver import TCPServer, ThreadingMixIn
from typing import Any

import orjson
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from dspy_jobs.settings import ConfigurationError

#: Seconds a client may take to say what it wants and to take the answer, however it deals them out.
_PATIENCE_SECONDS = 5.0
#: Clients served at a time; a scraper and a prober or two are what there should be. Others are sent away at once, for
#: each costs a thread, and a worker needs its own.
_MOST_CLIENTS = 16


class StatusServer(ThreadingMixIn, HTTPServer):
    """Listens from the moment it is made, answers from the moment it is started."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, host: str, port: int, patience: float = _PATIENCE_SECONDS) -> None:
        """Port 0 takes a free one. `patience` is what a client may take, in seconds.

        Raises:
            ConfigurationError: the port is in use, or the host is none of this machine's.
        """
        self.address_family = _family(host)
        self._patience = patience
        self._served: dict[socket, float] = {}
        """Clients and when they came. Only the thread that listens adds to it."""
        try:
            super().__init__((host, port), _Handler)
        except OSError as error:
            raise ConfigurationError(
                f"worker.metrics_port: {host} port {port} cannot be listened on: {error.strerror}; stop what listens "
                "there, or set DSPY_JOBS_WORKER_METRICS_PORT to another port, or to 0 for a free one"
            ) from None

    def server_bind(self) -> None:
        """Bind without asking for the host's name, which may take the system seconds."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    @property
    def address(self) -> tuple[str, int]:
        """Host and port it listens on."""
        return self.server_name, self.server_port

    def start(self, registry: CollectorRegistry, health: Callable[[], dict[str, Any]]) -> None:
        """Answer from threads of its own; `health` makes the document of `/health`."""
        self._registry, self._health = registry, health
        threading.Thread(target=self.serve_forever, name="status-server", daemon=True).start()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a client in a thread, if there is room for one more."""
        if len(self._served) >= _MOST_CLIENTS:
            self.shutdown_request(request)
            return
        self._served[request] = time.monotonic()
        try:
            super().process_request(request, client_address)
        except BaseException:  # there was no thread to be had
            del self._served[request]
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve it and make room."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            del self._served[request]

    def service_actions(self) -> None:
        """Between requests: cut off who takes too long, who would keep its place by a byte a second."""
        latest = time.monotonic() - self._patience
        for request, began in list(self._served.items()):
            if began < latest:
                with suppress(OSError):  # it has just gone
                    request.shutdown(SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: a client that went away before it was answered has nothing to hear."""

    def page(self, path: str, accept: str | None) -> tuple[int, str, bytes]:
        """The status, content type and body for a path."""
        if path == "/metrics":
            encode, media_type = choose_encoder(accept or "")
            return 200, media_type, encode(self._registry)
        if path == "/health":
            document = self._health()
            return 503 if document["status"] == "unhealthy" else 200, "application/json", orjson.dumps(document)
        return 404, "text/plain; charset=utf-8", b"There are /metrics and /health.\n"


class _Handler(BaseHTTPRequestHandler):
    server: StatusServer
    timeout = _PATIENCE_SECONDS

    def do_GET(self) -> None:
        """Answer and close."""
        status, media_type, body = self.server.page(self.path.partition("?")[0], self.headers["accept"])
        self.send_response(status)
        self.send_header("content-type", media_type)
        self.send_header("content-length", str(len(body)))
        self.send_header("cache-control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing: each scrape would be a line."""


def _family(host: str) -> int:
    try:
        return AF_INET6 if ip_address(host).version == 6 else AF_INET
    except ValueError:
        return AF_INET
