"""Writes log lines from one thread, many at a time.

A hundred threads that each write and flush a line meet at the stream's lock; that cost more than running a job's
bookkeeping. What a crash takes with it are the lines of the last tenth of a second. Whoever reads the lines may be slow
or gone: that stops nobody who logs, and costs the lines that are more than can be kept.
"""

from __future__ import annotations

import atexit
import threading
import time
from collections import deque
from contextlib import suppress
from typing import Any, TextIO

#: Seconds a line waits for company.
_GATHER_SECONDS = 0.1
#: Lines kept for a reader that does not read; some ten megabytes.
_MOST_LINES = 20_000


class LineWriter:
    """A structlog logger and its factory in one: keeps lines until its thread writes them."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lines: deque[str] = deque(maxlen=_MOST_LINES)
        self._writing = threading.Lock()
        threading.Thread(target=self._run, name="log-lines", daemon=True).start()
        atexit.register(self.flush)

    def __call__(self, *_: Any) -> LineWriter:
        """The logger structlog asks its factory for: one for all."""
        return self

    def msg(self, line: str) -> None:
        """Keep a line; of too many the oldest is dropped."""
        self._lines.append(line)

    log = debug = info = warning = warn = error = err = critical = fatal = exception = failure = msg

    def flush(self) -> None:
        """Write whatever is kept; also to be called before a process ends without Python's own farewell."""
        with self._writing:
            lines = [self._lines.popleft() for _ in range(len(self._lines))]
            if lines:
                with suppress(OSError, ValueError):  # nobody reads any more, the disk is full, or it was closed
                    self._stream.write("\n".join(lines) + "\n")
                    self._stream.flush()

    def _run(self) -> None:
        while True:
            time.sleep(_GATHER_SECONDS)
            self.flush()
