"""Fixtures for whole processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dspy_jobs.settings import Settings
from dspy_jobs.store import SyncStore
from tests.system.fleet import CONFIG, Fleet


@pytest.fixture
def models(sandbox_url: str) -> str:
    """Models besides `sandbox`, as TOML: of `narrow` only two jobs may run at once. A module may have others."""
    narrow = f'model = "openai/sandbox;latency=0.1"\nbase_url = "{sandbox_url}/v1"\nmax_concurrent = 2\n'
    return f"[models.narrow]\n{narrow}"


@pytest.fixture
def fleet(
    write_config: Callable[..., Settings],
    store: SyncStore,
    child_environ: dict[str, str],
    tmp_path: Path,
    models: str,
) -> Iterator[Fleet]:
    """A fleet without workers yet."""
    settings = write_config(models + CONFIG)
    environ = {**child_environ, "DSPY_JOBS_CONFIG": str(settings.source)}
    fleet = Fleet(settings, store, environ, tmp_path / "worker.log")
    yield fleet
    fleet.end()
