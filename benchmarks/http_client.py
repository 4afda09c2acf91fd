"""Gives orders to the HTTP client process and reads what it found."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from benchmarks.rig import Rig

#: Connections of a load: enough to keep one API process busy, few enough not to queue long.
CONNECTIONS = 32

_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Found:
    """What came back for an order."""

    count: int
    seconds: float
    p50_ms: float
    p99_ms: float
    body: dict[str, Any]
    """The last answer, JSON."""

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.count / self.seconds


class HttpClient:
    """A client process for one API."""

    def __init__(self, rig: Rig, port: int) -> None:
        self._process = rig.start("benchmarks.http_load")
        self._port = port

    def load(self, method: str, path: str, count: int, connections: int = CONNECTIONS, **more: str) -> Found:
        """Send the same request `count` times.

        Raises:
            RuntimeError: an answer is not a success, or the client failed.
        """
        number = next(_numbers)
        order = {"number": number, "port": self._port, "method": method, "path": path, "count": count}
        self._process.ask({**order, "connections": connections, **more})
        found = orjson.loads(self._process.find(rf'(\{{"order":{number},.*\}})\n', 300))
        if bad := {status: n for status, n in found["statuses"].items() if not status.startswith("2")}:
            raise RuntimeError(f"{method} {path}: {bad}: {found['body'][:500]}")
        body = orjson.loads(found["body"]) if found["body"].startswith("{") else {}
        return Found(count, found["seconds"], found["p50_ms"], found["p99_ms"], body)

    def post_job(self, body: dict[str, Any], count: int, path: str = "/v1/jobs") -> Found:
        """Submit the same job `count` times."""
        return self.load("POST", path, count, body=orjson.dumps(body).decode())

    def upload(self, lines: Path, program: str) -> Found:
        """Submit a batch of lines, in one request."""
        path = f"/v1/batches?program={program}"
        return self.load("POST", path, 1, body_file=str(lines), content_type="application/x-ndjson")
