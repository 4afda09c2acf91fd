"""Who may import whom, held in fresh processes and over the sources."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGES = ("api", "worker", "autoscaler", "sandbox", "dspy_jobs")


@pytest.mark.parametrize("module", ["api.app", "autoscaler", "sandbox.server", "dspy_jobs.client", "dspy_jobs.cli"])
def test_only_the_worker_loads_dspy(module: str) -> None:
    """Importing anything but the worker loads neither dspy nor litellm nor Celery."""
    code = f"import sys, {module}; print([m for m in ('dspy', 'litellm', 'celery') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_meet_only_in_dspy_jobs(package: str) -> None:
    """api, worker, autoscaler and sandbox never import one another; dspy_jobs imports none of them."""
    forbidden = set(PACKAGES) - {package, "dspy_jobs"}
    found = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in (ROOT / package).rglob("*.py")
        for name in _imported(path)
        if name in forbidden
    }
    assert not found


@pytest.mark.parametrize(
    ("library", "place"), [("opentelemetry", "dspy_jobs/telemetry/"), ("sentry_sdk", "dspy_jobs/error_reports.py")]
)
def test_what_watches_is_met_in_one_place(library: str, place: str) -> None:
    """Libraries of optional extras are imported where everything about them is decided, and nowhere else."""
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py") if library in _imported(path)]
    assert files
    assert all(str(path.relative_to(ROOT)).startswith(place) for path in files)


def test_only_settings_read_the_environment() -> None:
    """`os.environ` stands in the settings and in three places that say why."""
    allowed = {
        "dspy_jobs/settings.py",
        "dspy_jobs/stack/inherited.py",  # hands it on to child processes whole
        "sandbox/__main__.py",  # runs without any of our configuration
        "worker/__init__.py",  # dspy needs a variable before its first import
    }
    found = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if "os.environ" in path.read_text() or "os.getenv" in path.read_text()
    }
    assert found <= allowed


def _imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module.partition(".")[0])
    return names
