"""What programs print, as events: a line among the log's lines that is none would break whoever reads them by machine.

Whatever is written to Python's standard output or error becomes the event `printed`, with the ids of the job it was
printed for. What was printed is told where it stands as it is in the code, or with `log_content`, for programs print
what they were given.
"""

from __future__ import annotations

import io
import os
import sys
import threading
from typing import Any, TextIO

import structlog

from dspy_jobs.foreign_logs import is_literal
from dspy_jobs.settings import Settings

log = structlog.get_logger("printed")

#: Longest line, in characters; what a program prints without an end is told in parts.
_LONGEST = 1000


def own_stdout() -> TextIO:
    """Standard output for nothing but the log's lines, to be called once.

    What native code or child processes write there, which Python does not see, goes to standard error instead.
    """
    ours = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return ours


def tell_prints(settings: Settings) -> None:
    """Make events of what is printed from now on. The log's lines must go elsewhere."""
    sys.stdout = PrintedLines("stdout", settings.log_content)
    sys.stderr = PrintedLines("stderr", settings.log_content)


class PrintedLines(io.TextIOBase):
    """A stream that makes an event of each line. Threads do not get into one another's lines."""

    encoding = "utf-8"
    errors = "replace"

    def __init__(self, stream: str, shows_content: bool) -> None:
        self._stream = stream
        self._shows_content = shows_content
        self._begun = threading.local()
        self.buffer = _Bytes(self)

    def write(self, text: str) -> int:
        """Keep a part of a line, or end it."""
        *lines, rest = (getattr(self._begun, "text", "") + text).split("\n")
        if len(rest) > _LONGEST:
            lines, rest = [*lines, rest], ""
        self._begun.text = rest
        for line in lines:
            self._tell(line)
        return len(text)

    def _tell(self, line: str) -> None:
        if line.strip():
            said = {"text": line[:_LONGEST]} if self._shows_content or is_literal(line) else {}
            log.info("printed", stream=self._stream, chars=len(line), **said)

    def writable(self) -> bool:
        """It is."""
        return True

    def fileno(self) -> int:
        """Where those who bypass Python may write."""
        return 2

    def reconfigure(self, **_: Any) -> None:
        """Nothing about it can be changed."""


class _Bytes(io.RawIOBase):
    """The same for those who print bytes."""

    def __init__(self, lines: PrintedLines) -> None:
        self._lines = lines

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._lines.write(bytes(data).decode(errors="replace"))
        return len(data)
