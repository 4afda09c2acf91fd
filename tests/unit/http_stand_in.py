"""A small HTTP server that answers as a test says, and remembers what it was asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class StandIn:
    """Answers by method and path; what has no answer is 404."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, Any]] = {}
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []
        self.url = ""

    def answer(self, path: str, body: Any, status: int = 200, method: str = "GET") -> None:
        """What is answered from now on; anything but bytes goes as JSON."""
        self.answers[f"{method} {path}"] = (status, body)


@contextmanager
def stand_in() -> Iterator[StandIn]:
    """A server on a free port for as long as the block lasts."""
    scene = StandIn()

    class Handler(BaseHTTPRequestHandler):
        def _any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            scene.asked.append((self.command, self.path, dict(self.headers), body))
            status, answer = scene.answers.get(f"{self.command} {self.path.partition('?')[0]}", (404, b""))
            raw = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        do_GET = do_PATCH = do_POST = _any  # noqa: N815  # as the library calls them

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    scene.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield scene
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
