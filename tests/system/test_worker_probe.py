"""`python -m worker.probe` against real workers: started, frozen, stopping."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dspy_jobs.waiting import wait_until
from tests.conftest import ROOT
from tests.system.fleet import Fleet

pytestmark = pytest.mark.system


def _probe(file: Path, *options: str) -> int:
    command = [sys.executable, "-m", "worker.probe", str(file), *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True).returncode


def test_the_probe_tells_the_frozen_from_the_living(fleet: Fleet, tmp_path: Path) -> None:
    """A worker lives and is ready; frozen it is dead once its leases have run out; thawed it lives again."""
    file = tmp_path / "heartbeat"
    fleet.environ["DSPY_JOBS_WORKER_HEARTBEAT_FILE"] = str(file)
    assert _probe(file) == 1
    worker = fleet.start()
    assert wait_until(lambda: _probe(file, "--ready") == 0, 30)
    worker.send_signal(signal.SIGSTOP)
    assert wait_until(lambda: _probe(file) == 1, 30)
    worker.send_signal(signal.SIGCONT)
    assert wait_until(lambda: _probe(file) == 0, 30)


def test_a_draining_worker_lives_but_is_not_ready(fleet: Fleet, tmp_path: Path) -> None:
    """While it ends a running job it must not be killed for being silent; then its file is gone."""
    file = tmp_path / "heartbeat"
    fleet.environ["DSPY_JOBS_WORKER_HEARTBEAT_FILE"] = str(file)
    worker = fleet.start()
    fleet.wait(fleet.submit("sleepy", text="3"), "running")
    worker.terminate()
    assert wait_until(lambda: _probe(file, "--ready") == 1 and _probe(file) == 0, 10)
    assert worker.wait(30) == 0
    assert not file.exists()
