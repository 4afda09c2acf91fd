"""The worker's own port: `/metrics` and `/health`, answered from what this process knows without asking anybody."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from ipaddress import ip_address
from socket import AF_INET, AF_INET6
from socketserver import TCPServer, ThreadingMixIn
from typing import Any

import orjson
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from dspy_jobs.settings import ConfigurationError

#: Seconds a client may take to say what it wants.
_PATIENCE_SECONDS = 5.0


class StatusServer(ThreadingMixIn, HTTPServer):
    """Listens from the moment it is made, answers from the moment it is started."""

    daemon_threads = True

    def __init__(self, host: str, port: int) -> None:
        """Port 0 takes a free one.

        Raises:
            ConfigurationError: the port is in use, or the host is none of this machine's.
        """
        self.address_family = _family(host)
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
