"""One worker process on this machine, started by us or found running."""

from __future__ import annotations

import signal
import subprocess
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dspy_jobs.pid_files import PidFolder, ProcessMark

#: Lines shown of what a worker said before it died.
_LAST_LINES = 12


@dataclass
class LocalWorker:
    """A worker and what became of it. ``started`` and ``draining_since`` are seconds on the backend's clock."""

    name: str
    mark: ProcessMark
    started: float
    #: None if another process started it, whose exit code only that one learns.
    child: subprocess.Popen[bytes] | None = None
    draining_since: float | None = None
    #: Since when it was seen to drain with nothing left to run.
    empty_since: float | None = None
    #: When it was told a second time, upon which it gives back what it runs and ends at once.
    hurried_since: float | None = None
    was_ready: bool = False
    was_killed: bool = False

    @property
    def is_alive(self) -> bool:
        """Whether it runs. A child that has ended is collected."""
        return self.child.poll() is None if self.child else self.mark.is_alive

    @property
    def is_draining(self) -> bool:
        """Whether it was told to finish its jobs and end."""
        return self.draining_since is not None

    @property
    def exit_code(self) -> int | None:
        """How it ended, negative for a signal; None while it runs or where we cannot know."""
        return self.child.poll() if self.child else None

    def send(self, number: signal.Signals) -> None:
        """Send it a signal; nothing if it has ended."""
        if self.is_alive:
            self.mark.send(number)


class Launcher:
    """Starts workers that outlive this process, and finds those an earlier one started."""

    def __init__(self, command: Sequence[str], pids: PidFolder, environ: Mapping[str, str] | None = None) -> None:
        """``command`` starts a worker, in our own environment or the given; its name comes behind it."""
        self._command, self._pids, self._environ = tuple(command), pids, environ

    def start(self, name: str, now: float) -> LocalWorker:
        """Start a worker. Its log lines go where ours go, what it says on standard error to a file."""
        self._pids.folder.mkdir(parents=True, exist_ok=True)
        # Its own session: Ctrl-C is for us to hear, who drain it.
        with self._errors(name).open("wb") as errors:
            child = subprocess.Popen(
                [*self._command, name], stdin=subprocess.DEVNULL, stderr=errors, start_new_session=True,
                env=self._environ,
            )  # fmt: skip
        mark = ProcessMark.of(child.pid) or ProcessMark(child.pid, 0.0)
        self._pids.write(name, mark)
        return LocalWorker(name, mark, now, child)

    def find(self, now: float) -> list[LocalWorker]:
        """The workers that run, whoever started them."""
        return [LocalWorker(name, mark, now) for name, mark in self._pids.read().items()]

    def forget(self, name: str) -> None:
        """A worker has ended."""
        self._pids.remove(name)

    def last_lines(self, name: str) -> str:
        """The end of what a worker said on standard error."""
        try:
            with self._errors(name).open(encoding="utf-8", errors="replace") as lines:
                return "".join(deque(lines, _LAST_LINES)).strip()
        except OSError:
            return ""

    def _errors(self, name: str) -> Path:
        return self._pids.folder / f"{name}.err"
