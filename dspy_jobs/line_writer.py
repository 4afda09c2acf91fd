"""Writes log lines from one thread, many at a time.

A hundred threads that each write and flush a line meet at the stream's lock; that cost more than running a job's
bookkeeping. What a crash takes with it are the lines of the last tenth of a second. Whoever reads the lines may be
slow, stand still (Ctrl-S, a pager) or be gone: that stops nobody who logs, nor the process's end, and costs the lines
that are more than can be kept.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections import deque
from contextlib import suppress
from typing import Any, TextIO

#: Seconds a line waits for company.
_GATHER_SECONDS = 0.1
#: Lines kept for a reader that does not read; some ten megabytes.
_MOST_LINES = 20_000
#: Lines written at once.
_LINES_AT_ONCE = 500
#: Seconds a process that ends waits for its last lines to be taken.
_FAREWELL_SECONDS = 2.0


class LineWriter:
    """A structlog logger and its factory in one: keeps lines until its thread writes them."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lines: deque[str] = deque(maxlen=_MOST_LINES)
        self._hurry = threading.Event()
        self._round_ended = threading.Condition()
        self._rounds_begun = self._rounds_ended = 0
        threading.Thread(target=self._run, name="log-lines", daemon=True).start()
        atexit.register(self.flush)

    def __call__(self, *_: Any) -> LineWriter:
        """The logger structlog asks its factory for: one for all."""
        return self

    def msg(self, line: str) -> None:
        """Keep a line; of too many the oldest is dropped."""
        self._lines.append(line)

    log = debug = info = warning = warn = error = err = critical = fatal = exception = failure = msg

    def flush(self, seconds: float = _FAREWELL_SECONDS) -> bool:
        """Have whatever is kept written, also before a process ends without Python's own farewell.

        Waits so many seconds at most; answers whether all of it is written, or lost with a reader that has gone.
        """
        with self._round_ended:
            wanted = self._rounds_begun + 1
            self._hurry.set()
            return self._round_ended.wait_for(lambda: self._rounds_ended >= wanted, seconds)

    def _run(self) -> None:
        while True:
            self._hurry.wait(_GATHER_SECONDS)
            self._hurry.clear()
            self._rounds_begun += 1
            self._write_kept()
            with self._round_ended:
                self._rounds_ended = self._rounds_begun
                self._round_ended.notify_all()

    def _write_kept(self) -> None:
        """Write what is kept now. Only this thread takes lines out, and only it is ever held up by their reader."""
        left = len(self._lines)
        while left:
            lines = [self._lines.popleft() for _ in range(min(left, _LINES_AT_ONCE))]
            left -= len(lines)
            with suppress(OSError, ValueError):  # nobody reads any more, the disk is full, or it was closed
                self._write(("\n".join(lines) + "\n").encode(errors="replace"))

    def _write(self, data: bytes) -> None:
        # Past the stream's own buffer: Python would wait for its lock at the end, and abort if it does not get it.
        while data:
            try:
                data = data[os.write(self._stream.fileno(), data) :]
            except BlockingIOError:  # whoever shares the terminal or the pipe has made it so
                time.sleep(_GATHER_SECONDS)
