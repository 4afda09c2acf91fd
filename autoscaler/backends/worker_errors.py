"""What a worker says on standard error: kept in a file, passed on to our log, and never more than a MiB.

A file and no pipe, since a worker outlives its autoscaler: a pipe that nobody reads would stop the worker or end it.
"""

from __future__ import annotations

import os
from collections import deque
from pathlib import Path
from typing import BinaryIO

#: Lines kept to show when the worker dies.
_LAST_LINES = 12
#: Bytes of the file after which it is emptied, as soon as they have been read.
LONGEST_FILE = 2**20
#: Bytes read at once: more than that between two looks is a flood, of which the end will do.
MOST_AT_ONCE = 2**16
#: Bytes of a line; longer ones are told in parts.
_LONGEST_LINE = 4096


class ErrorFile:
    """One worker's standard error, as far as it has been read."""

    def __init__(self, path: Path) -> None:
        """What is in the file already has been told by an earlier reader."""
        self._path = path
        self._told = 0
        self._rest = b""
        self._last_lines: deque[str] = deque(maxlen=_LAST_LINES)
        self.new_lines()

    def open_anew(self) -> BinaryIO:
        """The emptied file, for a worker that starts; raises OSError."""
        self._told, self._rest = 0, b""
        self._last_lines.clear()
        self._path.write_bytes(b"")
        # To append means to write where the file ends by then: it may be emptied meanwhile.
        return self._path.open("ab")

    @property
    def last_lines(self) -> str:
        """The end of what was read."""
        rest = [self._rest.decode(errors="replace")] if self._rest else []
        return "\n".join([*self._last_lines, *rest]).strip()

    def new_lines(self) -> list[str]:
        """The lines since the last time; of very many the last ones."""
        try:
            lines = self._split(self._read())
        except OSError:
            return []
        self._last_lines.extend(lines)
        return lines

    def _read(self) -> bytes:
        with self._path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            told = self._told if self._told <= size else 0  # another autoscaler has emptied it
            left_out = max(0, size - told - MOST_AT_ONCE)
            file.seek(told + left_out)
            data = file.read(size - told - left_out)
        self._told = told + left_out + len(data)
        if self._told >= LONGEST_FILE:
            os.truncate(self._path, 0)
            self._told = 0
        return b"\n(%d bytes left out)\n%s" % (left_out, data) if left_out else data

    def _split(self, data: bytes) -> list[str]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _LONGEST_LINE:
            lines, self._rest = [*lines, self._rest], b""
        parts = [line[at : at + _LONGEST_LINE] for line in lines for at in range(0, len(line), _LONGEST_LINE)]
        return [part.decode(errors="replace") for part in parts]
