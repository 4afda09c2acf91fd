"""Splits a body into lines as it arrives, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator

_BOM = b"\xef\xbb\xbf"


class LineSplitter:
    """Numbers lines from 1. A line longer than `longest` bytes is given as None and never held."""

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._parts: list[bytes] = []
        self._held = 0
        self._number = 1

    def feed(self, chunk: bytes) -> Iterator[tuple[int, bytes | None]]:
        """The lines this chunk completes, blank ones left out."""
        *complete, rest = chunk.split(b"\n")
        for part in complete:
            yield from self._end(part)
        self._hold(rest)

    def finish(self) -> Iterator[tuple[int, bytes | None]]:
        """The last line, where the body does not end with a newline."""
        yield from self._end(b"")

    def _hold(self, part: bytes) -> None:
        self._held += len(part)
        if self._held > self._longest:
            self._parts.clear()
        elif part:
            self._parts.append(part)

    def _end(self, part: bytes) -> Iterator[tuple[int, bytes | None]]:
        if self._held:
            self._hold(part)
            too_long, line = self._held > self._longest, b"".join(self._parts)
            self._parts.clear()
            self._held = 0
        else:
            too_long, line = len(part) > self._longest, part
        number, self._number = self._number, self._number + 1
        if number == 1:
            line = line.removeprefix(_BOM)
        if too_long:
            yield number, None
        elif line and not line.isspace():
            yield number, line
