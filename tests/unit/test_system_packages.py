"""`make system-packages`, with a machine that is played."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT

#: The real tools the recipe needs; the others are played.
_TOOLS = ("make", "sh", "grep")


def _play(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A machine that has Prometheus already, whose apt-get notes how it is called."""
    for tool in _TOOLS:
        (tmp_path / tool).symlink_to(str(shutil.which(tool)))
    _play(tmp_path, "dpkg-query", 'case "$*" in *prometheus) echo "install ok installed" ;; *) exit 1 ;; esac')
    _play(tmp_path, "apt-get", f'echo "$@" >> {tmp_path / "calls"}')
    _play(tmp_path, "id", "echo 0")
    return tmp_path


def _make(machine: Path, *variables: str) -> tuple[int, str, list[str]]:
    """Exit code, output and how apt-get was called."""
    done = subprocess.run(
        ["make", "system-packages", *variables], cwd=ROOT, env={"PATH": str(machine)}, capture_output=True, text=True
    )
    calls = machine / "calls"
    return done.returncode, done.stdout, calls.read_text().splitlines() if calls.exists() else []


def test_what_is_missing_is_installed(machine: Path) -> None:
    """The list of packages is brought up to date first; what is there already is left alone."""
    code, output, (update, install) = _make(machine)
    assert (code, output) == (0, "installing chromium chromium-driver\n")
    assert update.startswith("update")
    assert install.startswith("install")
    assert install.split()[-2:] == ["chromium", "chromium-driver"]


def test_nothing_is_done_where_nothing_is_missing(machine: Path) -> None:
    """As on every run but the first."""
    assert _make(machine, "SYSTEM_PACKAGES=prometheus") == (0, "", [])


@pytest.mark.parametrize("lack", ["root", "apt-get"])
def test_where_it_cannot_install_it_says_so(machine: Path, lack: str) -> None:
    """The tests run all the same, without those that need a browser."""
    if lack == "root":
        _play(machine, "id", "echo 1000")
    else:
        (machine / "apt-get").unlink()
    code, output, calls = _make(machine)
    assert (code, calls) == (0, [])
    assert output.startswith("not installed: chromium chromium-driver (")


def test_a_failure_to_install_is_one(machine: Path) -> None:
    """CI must not go without a browser because a mirror was away; the way around it is told."""
    _play(machine, "apt-get", "exit 100")
    code, output, _ = _make(machine)
    assert code != 0
    assert "cannot install chromium chromium-driver; to test without: make test SYSTEM_PACKAGES=" in output
