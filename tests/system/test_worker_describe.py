"""`python -m worker.describe` says what a fleet can run before there is one."""

from __future__ import annotations

import subprocess
import sys

import pytest

from dspy_jobs import names
from tests.system.fleet import Fleet

pytestmark = pytest.mark.system


def describe(fleet: Fleet, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run it to its end, without patience."""
    return subprocess.run(
        [sys.executable, "-m", "worker.describe", "--wait", "0"],
        env={**fleet.environ, **environ},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_everything_a_worker_publishes_is_published(fleet: Fleet) -> None:
    """Programs, prices and limits are as a worker leaves them, and no worker seems to live."""
    assert describe(fleet).returncode == 0
    keys = (names.PROGRAMS, names.MODELS, names.BUDGETS, names.queue_numbers(names.queue("narrow")))
    described = [fleet.store.redis.hgetall(key) for key in keys]
    assert b"qa" in described[0]
    assert described[3][b"most"] == b"2"
    assert not fleet.store.redis.exists(names.WORKERS)
    fleet.start()
    assert [fleet.store.redis.hgetall(key) for key in keys] == described


def test_a_wrong_configuration_is_told(fleet: Fleet) -> None:
    """A program that cannot be built ends with exit code 2, no Redis with 3; neither with a trace of Python."""
    source = fleet.settings.source
    assert source
    away = describe(fleet, REDIS_URL="redis://127.0.0.1:1")
    assert (away.returncode, "Redis cannot be reached" in away.stderr) == (3, True)
    source.write_text(source.read_text() + '[programs.missing]\nfactory = "nowhere:nothing"\n')
    missing = describe(fleet)
    assert (missing.returncode, "programs.missing" in missing.stderr) == (2, True)
    wrong = describe(fleet, DSPY_JOBS_API_PORT="many")
    assert (wrong.returncode, "Traceback" in wrong.stderr) == (2, False)
    assert not fleet.store.redis.exists(names.PROGRAMS)
