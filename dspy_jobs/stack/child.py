"""One process of the stack: in a session of its own, its output passed on, stopped within a bound."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog

from dspy_jobs.stack.output import Output
from dspy_jobs.stack.parts import Part

log = structlog.get_logger("stack")

#: Lines kept to show when the process dies.
_LAST_LINES = 12
_CHUNK_BYTES = 65_536
#: Seconds between looks whether a process has ended.
_LOOK_SECONDS = 0.02


@dataclass(frozen=True)
class Place:
    """What all processes of a stack share."""

    environ: Mapping[str, str]
    folder: Path | None
    output: Output


class Child:
    """A started process. Ctrl-C does not reach it: the stack decides when it stops."""

    def __init__(self, part: Part, process: asyncio.subprocess.Process, output: Output) -> None:
        self.part = part
        self.last_lines: deque[str] = deque(maxlen=_LAST_LINES)
        self._process = process
        self._output = output
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def start(cls, part: Part, place: Place) -> Child:
        """Start the part."""
        process = await asyncio.create_subprocess_exec(
            *part.command,
            env={**place.environ, **part.environ},
            cwd=place.folder,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        return cls(part, process, place.output)

    @property
    def pid(self) -> int:
        """The process's id, also its session's."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._process.returncode is None

    async def ended(self) -> int:
        """The exit code, negative for a signal, once the process has ended and its output is passed on."""
        code = await self._exit_code()
        # Bounded: something it started may still hold the pipe.
        await asyncio.wait({self._reading}, timeout=1)
        return code

    async def stop(self) -> None:
        """Ask the process to stop and wait; kill it when it takes longer than it may."""
        if self.is_running:
            self._process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(self._exit_code(), self.part.stop_seconds)
            except TimeoutError:
                self.kill()
                log.warning("killed", process=self.part.name, after_seconds=self.part.stop_seconds)
        await self.ended()
        # A pipe that is open when the loop is closed would be complained of later, as an error of nobody's.
        self._process._transport.close()  # type: ignore[attr-defined]  # noqa: SLF001  # it has no public name

    def kill(self) -> None:
        """End the process and everything in its session at once."""
        if self.is_running:
            os.killpg(self.pid, signal.SIGKILL)

    async def _exit_code(self) -> int:
        # Not the process's own `wait`, which also waits for the pipe that workers of an autoscaler hold after it.
        while (code := self._process.returncode) is None:  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_SECONDS)
        return code

    async def _read(self) -> None:
        stream = self._process.stdout
        assert stream
        rest = b""
        while chunk := await stream.read(_CHUNK_BYTES):
            *lines, rest = (rest + chunk).split(b"\n")
            self._pass_on(lines)
        self._pass_on([rest] if rest else [])

    def _pass_on(self, lines: list[bytes]) -> None:
        if lines:
            self.last_lines.extend(line.decode(errors="replace") for line in lines[-_LAST_LINES:])
            self._output(self.part.name, lines)
