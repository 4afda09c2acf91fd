"""Where the lines of a stack's processes go."""

from __future__ import annotations

import os

from dspy_jobs.line_writer import LineWriter
from dspy_jobs.stack.output import to_terminal

#: More than a pipe holds.
_LINES = [b'{"event":"seen"}'] * 10_000


def test_a_terminal_that_stands_still_holds_up_nobody() -> None:
    """The stack goes on; what was kept is written once somebody reads."""
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as terminal, os.fdopen(reading, "rb") as reader:
        writer = LineWriter(terminal)
        to_terminal(writer)("api", _LINES)
        assert not writer.flush(0.05)
        assert [reader.readline().rstrip() for _ in _LINES] == _LINES
