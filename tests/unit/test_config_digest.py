"""Whether two processes run the same configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from dspy_jobs.config_digest import config_digest
from dspy_jobs.settings import Settings

CONFIG = {"models": {"fast": {"model": "openai/x"}}, "default_model": "fast"}


def test_the_same_settings_have_the_same_digest() -> None:
    """However they were written: a default that is spelled out changes nothing."""
    spelled_out = {**CONFIG, "jobs": {"max_attempts": 5}}
    assert config_digest(Settings(**CONFIG)) == config_digest(Settings(**spelled_out))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("section", "is_same"),
    [
        ({"models": {"fast": {"model": "openai/y"}}}, False),
        ({"programs": {"qa": {"signature": "a -> b"}}}, False),
        ({"worker": {"concurrency": 4}}, False),
        ({"budgets": {"day_usd": 1}}, False),
        ({"api": {"port": 1}}, True),
        ({"worker": {"drain_seconds": 1}}, True),
        ({"worker": {"heartbeat_file": "/tmp/x"}}, True),
        ({"data_dir": Path("/elsewhere")}, True),
        ({"redis_url": "redis://elsewhere"}, True),
        ({"log_format": "json"}, True),
    ],
)
def test_what_decides_about_jobs_makes_the_difference(section: dict[str, object], is_same: bool) -> None:
    """Models, programs, jobs, budgets do; ports, folders and addresses, which differ from host to host, do not."""
    other = Settings(**{**CONFIG, **section})  # type: ignore[arg-type]
    assert (config_digest(other) == config_digest(Settings(**CONFIG))) == is_same  # type: ignore[arg-type]
