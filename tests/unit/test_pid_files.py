"""A process is known by its number and the time of its start."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from dspy_jobs.pid_files import PidFolder, ProcessMark, worker_pids
from dspy_jobs.stack.leftovers import end_leftovers

_SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]


def test_a_process_is_found_as_long_as_it_lives(tmp_path: Path) -> None:
    """Its file names it; once it has ended, also before it is collected, the file is gone."""
    process = subprocess.Popen(_SLEEP)
    mark, folder = ProcessMark.of(process.pid), PidFolder(tmp_path)
    assert mark
    folder.write("worker-1", mark)
    assert folder.read() == {"worker-1": mark}
    mark.send(signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # ended, but not collected
    assert folder.read() == {}
    assert not list(tmp_path.iterdir())
    process.wait()


def test_another_process_of_the_same_number_is_not_meant(tmp_path: Path) -> None:
    """A number that was given out again is not signalled."""
    own = ProcessMark.of(os.getpid())
    assert own
    earlier = ProcessMark(own.pid, own.started - 100)
    earlier.send(signal.SIGKILL)
    assert not earlier.is_alive
    assert own.is_alive


def test_a_broken_file_is_nobody(tmp_path: Path) -> None:
    """Half a file is removed, not an error."""
    (tmp_path / "worker-1.pid").write_text("12")
    assert PidFolder(tmp_path).read() == {}


def test_leftovers_are_ended(tmp_path: Path) -> None:
    """Whatever a data folder names is killed, once."""
    process = subprocess.Popen(_SLEEP)
    mark = ProcessMark.of(process.pid)
    assert mark
    worker_pids(tmp_path).write("worker-1", mark)
    assert end_leftovers(tmp_path) == 1
    assert process.wait(10) == -signal.SIGKILL
    assert end_leftovers(tmp_path) == 0
