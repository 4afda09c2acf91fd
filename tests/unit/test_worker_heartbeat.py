"""The file by which a worker's supervisor knows that it lives, and the command that reads it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT
from worker import watchdog
from worker.heartbeat import DEAF_SECONDS, HOPELESS_SECONDS, Heartbeat, complaint_about

LEASE_SECONDS = 10.0


@pytest.mark.parametrize(
    ("phase", "age", "must_be_ready", "complaint"),
    [
        ("starting", 0, False, None),
        ("starting", 0, True, "the worker is starting"),
        ("ready", 0, True, None),
        ("ready", 9, True, None),
        ("ready", 29, False, None),
        ("ready", 45, False, "no sign of life for 15 seconds more than its leases allow"),
        ("draining", 29, False, None),
        ("draining", 0, True, "the worker is draining"),
    ],
)
def test_a_beat_is_good_for_three_leases(
    tmp_path: Path, phase: str, age: float, must_be_ready: bool, complaint: str | None
) -> None:
    """A worker lives in every phase, is ready only while it consumes, and is dead after three silent leases."""
    heartbeat = Heartbeat(tmp_path / "heartbeat", LEASE_SECONDS)
    heartbeat.phase = phase  # type: ignore[assignment]
    heartbeat.beat()
    assert complaint_about(tmp_path / "heartbeat", must_be_ready, time.time() + age) == complaint
    assert [path.name for path in tmp_path.iterdir()] == ["heartbeat"]


@pytest.mark.parametrize(
    ("phase", "silent", "must_be_ready", "is_well"),
    [
        ("ready", DEAF_SECONDS - 1, True, True),
        ("ready", DEAF_SECONDS + 1, True, False),
        ("ready", HOPELESS_SECONDS - 1, False, True),
        ("ready", HOPELESS_SECONDS + 1, False, False),
        ("starting", HOPELESS_SECONDS + 1, False, True),
        ("draining", HOPELESS_SECONDS + 1, False, True),
    ],
)
def test_a_consumer_that_stopped_is_noticed(
    tmp_path: Path, phase: str, silent: float, must_be_ready: bool, is_well: bool
) -> None:
    """It is not ready soon, and dead when its watchdog ought to have ended it; who must not consume may be silent."""
    heartbeat = Heartbeat(tmp_path / "heartbeat", LEASE_SECONDS)
    heartbeat.phase = phase  # type: ignore[assignment]
    heartbeat.beat(silent)
    complaint = complaint_about(tmp_path / "heartbeat", must_be_ready, time.time())
    assert (complaint is None) == is_well
    assert is_well or "not asked for messages" in str(complaint)


def test_a_hopeless_worker_is_one_its_watchdog_should_have_ended() -> None:
    """Whoever kills it for being silent leaves the watchdog the time it needs to do it in order."""
    assert watchdog.STALLED_SECONDS < HOPELESS_SECONDS


def test_no_file_is_a_complaint(tmp_path: Path) -> None:
    """Before the first beat and after the worker's end there is no file, and that is said."""
    heartbeat = Heartbeat(tmp_path / "heartbeat", LEASE_SECONDS)
    heartbeat.beat()
    heartbeat.end()
    assert "has not started yet" in str(complaint_about(tmp_path / "heartbeat", must_be_ready=False, now=time.time()))


def test_without_a_path_nothing_is_written() -> None:
    """A worker that nobody watches so writes nothing."""
    heartbeat = Heartbeat(None, LEASE_SECONDS)
    heartbeat.beat()
    heartbeat.end()


def test_the_probe_is_light() -> None:
    """What runs every few seconds loads nothing but the standard library."""
    heavy = "('dspy', 'celery', 'redis', 'pydantic', 'structlog')"
    code = f"import sys, worker.probe; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"
