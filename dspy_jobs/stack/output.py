"""Where the lines go that a stack's processes write."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import structlog

from dspy_jobs.line_writer import LineWriter
from dspy_jobs.logs import is_event_line
from dspy_jobs.printable import printable

log = structlog.get_logger("stack")

#: Takes whole lines, without their ends, of the process of that name.
Output = Callable[[str, list[bytes]], None]


def to_terminal(terminal: LineWriter) -> Output:
    """Event lines as they are; any other, such as a library's print, as an event that names the process."""

    def write(process: str, lines: list[bytes]) -> None:
        for line in lines:
            text = line.decode(errors="replace")
            if is_event_line(line):
                terminal.msg(printable(text))
            elif text.strip():
                log.info("output", process=process, line=text.rstrip())

    return write


def to_files(folder: Path) -> Output:
    """A file `<process>.log` each in this folder, added to."""
    folder.mkdir(parents=True, exist_ok=True)

    def write(process: str, lines: list[bytes]) -> None:
        with (folder / f"{process}.log").open("ab") as file:
            file.write(b"".join(line + b"\n" for line in lines))

    return write
