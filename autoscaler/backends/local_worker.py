"""One worker process on this machine, started by us or found running."""

from __future__ import annotations

import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psutil
import structlog

from autoscaler.backends.worker_errors import ErrorFile
from dspy_jobs.pid_files import PidFolder, ProcessMark
from dspy_jobs.stack.inherited import inherited_environ

log = structlog.get_logger("autoscaler")

#: Names in a worker's environment the folder in which its starter notes it.
_STARTED_FROM = "DSPY_AUTOSCALER_FOLDER"


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
        self._command, self._pids = tuple(command), pids
        self._environ = {**(environ or inherited_environ()), _STARTED_FROM: str(pids.folder)}
        self._errors: dict[str, ErrorFile] = {}

    @property
    def place(self) -> str:
        """This machine and folder: whoever works from the same one finds the same workers."""
        self._pids.folder.mkdir(parents=True, exist_ok=True)
        folder = self._pids.folder.stat()
        return f"{socket.gethostname()}/{folder.st_dev}/{folder.st_ino}"

    def start(self, name: str, now: float) -> LocalWorker:
        """Start a worker. Its log lines go where ours go, its standard error to a file that we pass on."""
        self._pids.folder.mkdir(parents=True, exist_ok=True)
        # Its own session: Ctrl-C is for us to hear, who drain it.
        with self._errors_of(name).open_anew() as errors:
            child = subprocess.Popen(
                [*self._command, name], stdin=subprocess.DEVNULL, stderr=errors, start_new_session=True,
                env=self._environ,
            )  # fmt: skip
        mark = ProcessMark.of(child.pid) or ProcessMark(child.pid, 0.0)
        self._pids.write(name, mark)
        return LocalWorker(name, mark, now, child)

    def find(self, now: float) -> list[LocalWorker]:
        """The workers that run, whoever started them."""
        self._note_strays()
        return [LocalWorker(name, mark, now) for name, mark in self._pids.read().items()]

    def _note_strays(self) -> None:
        """Write down workers whose starter was killed before it could do so."""
        noted = self._pids.read()
        pids = {mark.pid for mark in noted.values()}
        for process in psutil.process_iter():
            name = None if process.pid in pids else self._name_of(process)
            if name and (mark := ProcessMark.of(process.pid)):
                self._pids.write(name if name not in noted else f"{name}-{mark.pid}", mark)

    def _name_of(self, process: psutil.Process) -> str | None:
        """The name of a worker that was started from this folder; None if a process is none."""
        try:
            *command, name = process.cmdline() or [""]
            is_ours = tuple(command) == self._command and process.environ().get(_STARTED_FROM) == str(self._pids.folder)
        except (psutil.Error, OSError):  # another user's, or it has just ended
            return None
        return name if is_ours else None

    def forget(self, worker: LocalWorker) -> None:
        """A worker has ended."""
        self._pids.remove(worker.name, worker.mark)
        self._errors.pop(worker.name, None)

    def listen(self, name: str) -> None:
        """Pass on what a worker has said on standard error since the last time."""
        for line in self._errors_of(name).new_lines():
            if line.strip():
                log.warning("worker_stderr", worker=name, line=line)

    def last_lines(self, name: str) -> str:
        """The end of what a worker said on standard error."""
        self.listen(name)
        return self._errors_of(name).last_lines

    def _errors_of(self, name: str) -> ErrorFile:
        if name not in self._errors:
            self._errors[name] = ErrorFile(self._pids.folder / f"{name}.err")
        return self._errors[name]
