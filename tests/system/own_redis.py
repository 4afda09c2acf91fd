"""A Redis server that a test may mistreat."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack
from pathlib import Path

from dspy_jobs.redis_server import embedded_redis
from dspy_jobs.redis_url import embedded_socket


class OwnRedis:
    """A Redis server on a folder of the test's own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = ExitStack()
        self.url = f"unix://{embedded_socket(folder)}?db=0"
        self.start()

    def start(self) -> None:
        """Start, with whatever is on disk."""
        self._process = self._stack.enter_context(embedded_redis(self._folder))

    def kill(self) -> None:
        """As a crash does: nothing is written any more."""
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.wait(10)
        self._stack.close()
        embedded_socket(self._folder).unlink(missing_ok=True)

    def signal(self, number: int) -> None:
        """Send a signal to the server."""
        os.kill(self._process.pid, number)

    def end(self) -> None:
        """Stop for good."""
        self._stack.close()
