"""quickstart.sh, with everything real but the docker it calls."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from dspy_jobs.stack.ports import free_port
from dspy_jobs.waiting import wait_until
from tests.conftest import ROOT
from tests.system.fleet import Fleet

pytestmark = pytest.mark.system


@pytest.fixture
def api_port(fleet: Fleet) -> Iterator[int]:
    """Where an API over the fleet's Redis listens."""
    port = free_port()
    environ = {**fleet.environ, "DSPY_JOBS_API_PORT": str(port)}
    process = subprocess.Popen([sys.executable, "-m", "api"], env=environ, cwd=ROOT, stdout=subprocess.DEVNULL)
    yield port
    process.terminate()
    assert process.wait(30) == 0


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone with a docker that notes how it was called."""
    folder = tmp_path / "clone"
    folder.mkdir()
    for name in ("quickstart.sh", ".env.example", "ops/dspy-jobs.toml", "k8s/worker-scaledobject.yaml"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    (folder / "ops" / "dspy-jobs.toml").chmod(0o600)  # as with umask 077
    docker = folder / "docker"
    docker.write_text(f'#!/bin/sh\necho "$@" >> {folder / "calls"}\n')
    docker.chmod(0o755)
    return folder


def _is_ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/ready", trust_env=False).is_success
    except httpx.TransportError:
        return False


def _run(clone: Path, api_port: int) -> subprocess.CompletedProcess[str]:
    # As a person would change it; a variable of the environment would win.
    example = (ROOT / ".env.example").read_text()
    (clone / ".env.example").write_text(example.replace("API_PORT=8080", f"API_PORT={api_port}"))
    environ = {"PATH": f"{clone}:{os.environ['PATH']}", "NO_PROXY": "127.0.0.1", "HOME": str(clone)}
    return subprocess.run(["./quickstart.sh"], cwd=clone, env=environ, capture_output=True, text=True, timeout=90)


def test_it_says_what_to_do_without_an_answer(clone: Path) -> None:
    """An API that refuses the connection ends it with words about that, not in silence."""
    done = _run(clone, free_port())
    assert done.returncode == 1
    assert "quickstart: the API took no job; see: docker compose logs api" in done.stderr


def test_it_ends_with_an_answer(fleet: Fleet, api_port: int, clone: Path) -> None:
    """It writes .env, builds, starts and waits, and shows the answer to a job and every address."""
    fleet.start()
    assert wait_until(lambda: _is_ready(api_port), 30)
    done = _run(clone, api_port)
    assert done.returncode == 0, done.stderr
    assert '"status":"succeeded"' in done.stdout
    assert f"http://127.0.0.1:{api_port}/docs" in done.stdout
    calls = (clone / "calls").read_text().splitlines()
    assert calls == [
        "compose version --short",
        "info",
        "compose build",
        "compose up --detach --wait --wait-timeout 300",
    ]
    written = (clone / ".env").read_text()
    assert f"API_PORT={api_port}" in written
    assert re.search(r"^FLOWER_BASIC_AUTH=admin:[0-9a-f]{24}$", written, re.MULTILINE), "a password of its own"
    assert (clone / ".env").stat().st_mode & 0o077 == 0
    assert (clone / "ops" / "dspy-jobs.toml").stat().st_mode & 0o077 == 0o044, "containers may read it"
