"""Processes that outlive whoever started them: found again by files that name them beyond doubt.

A number alone may by now be another process's, so a file holds the time of its start as well.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

import psutil

_SUFFIX = ".pid"


@dataclass(frozen=True, slots=True)
class ProcessMark:
    """A process for certain: its number and when it was started (seconds since the machine was)."""

    pid: int
    started: float

    @classmethod
    def of(cls, pid: int) -> ProcessMark | None:
        """The mark of a process, None if it has ended."""
        try:
            return cls(pid, _started(psutil.Process(pid)))
        except psutil.NoSuchProcess:
            return None

    @property
    def is_alive(self) -> bool:
        """Whether it runs; one that ended and waits to be collected does not."""
        try:
            process = psutil.Process(self.pid)
            return _started(process) == self.started and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    def send(self, number: signal.Signals) -> None:
        """Send it a signal; nothing if it has ended."""
        if self.is_alive:
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                return


class PidFolder:
    """A folder with one file for each process, named after what it does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, name: str, mark: ProcessMark) -> None:
        """Keep a process under a name."""
        self.folder.mkdir(parents=True, exist_ok=True)
        whole = self.folder / f".{name}.new"
        whole.write_text(f"{mark.pid} {mark.started!r}\n", encoding="ascii")
        whole.replace(self._path(name))

    def read(self) -> dict[str, ProcessMark]:
        """Those that are alive, by name. Files of others are removed."""
        found = {}
        for path in sorted(self.folder.glob(f"*{_SUFFIX}")):
            mark = _read(path)
            if mark and mark.is_alive:
                found[path.name.removesuffix(_SUFFIX)] = mark
            else:
                path.unlink(missing_ok=True)
        return found

    def remove(self, name: str, mark: ProcessMark) -> None:
        """Forget a process, unless the name is another's by now."""
        if _read(self._path(name)) == mark:
            self._path(name).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}{_SUFFIX}"


def worker_pids(data_dir: Path) -> PidFolder:
    """Where the autoscaler keeps the workers it started, for its successor and for whoever must end them."""
    return PidFolder(data_dir / "workers")


def _started(process: psutil.Process) -> float:
    """Counted from the start of the machine, for what o'clock that was changes whenever the clock is set."""
    return round(float(process.create_time() - psutil.boot_time()), 2)


def _read(path: Path) -> ProcessMark | None:
    try:
        pid, started = path.read_text(encoding="ascii").split()
        return ProcessMark(int(pid), float(started))
    except (OSError, ValueError):
        return None
