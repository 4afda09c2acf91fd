"""What health looks at, by how the service was started."""

from __future__ import annotations

from pathlib import Path

import pytest

from api.catalogue import Catalogue
from api.health_checks import HealthChecks
from dspy_jobs.redis_url import redis_url
from dspy_jobs.settings import Settings
from dspy_jobs.store import AsyncStore, connect_async


@pytest.mark.parametrize("is_named", [False, True])
def test_the_disk_is_looked_at_where_up_runs_the_redis(tmp_path: Path, is_named: bool) -> None:
    """Also though `up` tells the API that server's address."""
    alone = Settings(data_dir=tmp_path)
    settings = Settings(data_dir=tmp_path, redis_url=redis_url(alone)) if is_named else alone
    catalogue = Catalogue(AsyncStore(connect_async(redis_url(settings))))
    assert HealthChecks(settings, catalogue).disk is not None
    assert HealthChecks(Settings(redis_url="redis://host"), catalogue).disk is None
