"""Where the response cache is."""

from __future__ import annotations

from pathlib import Path

import pytest
from redis.connection import parse_url

from dspy_jobs.redis_url import cache_url, is_embedded, redis_url
from dspy_jobs.settings import CacheSettings, Settings
from dspy_jobs.stack.launch import _place
from dspy_jobs.stack.output import to_terminal


@pytest.mark.parametrize(
    ("queue", "cache"),
    [
        ("redis://host", "redis://host/1"),
        ("redis://host:6380/", "redis://host:6380/1"),
        ("redis://host:6380/0", "redis://host:6380/1"),
        ("redis://user:p%2Fw%3F@host/5?protocol=3", "redis://user:p%2Fw%3F@host/1?protocol=3"),
        ("redis://host/0?db=3&a=1&b=2", "redis://host/1?a=1&b=2"),
        ("rediss://:pw@[::1]:6380/2?ssl_cert_reqs=none", "rediss://:pw@[::1]:6380/1?ssl_cert_reqs=none"),
        ("unix:///run/redis.sock", "unix:///run/redis.sock?db=1"),
        ("unix:///run/redis.sock?db=0", "unix:///run/redis.sock?db=1"),
        ("unix://user:pw@/run/redis.sock?a=1&db=0&b=2", "unix://user:pw@/run/redis.sock?a=1&b=2&db=1"),
    ],
)
def test_the_cache_is_database_one_of_the_queues_redis(queue: str, cache: str) -> None:
    """Everything else of the address stays, and redis-py reads it so."""
    assert cache_url(Settings(redis_url=queue)) == cache
    assert parse_url(cache) == parse_url(queue) | {"db": 1}


def test_without_an_address_it_is_in_the_embedded_redis(tmp_path: Path) -> None:
    """The laptop has one Redis."""
    assert cache_url(Settings(data_dir=tmp_path)) == f"unix://{tmp_path}/redis.sock?db=1"


def test_a_cache_of_its_own_is_used_as_it_is() -> None:
    """`cache.url` wins, with its own database."""
    settings = Settings(redis_url="redis://host", cache=CacheSettings(url="redis://other/7"))
    assert cache_url(settings) == "redis://other/7"


def test_an_embedded_server_is_known_by_its_address_too(tmp_path: Path) -> None:
    """`dspy-jobs up` hands its processes the address of the server it runs; another socket is somebody else's."""
    alone = Settings(data_dir=tmp_path)
    assert is_embedded(alone)
    environ = _place(alone, to_terminal).environ
    assert is_embedded(Settings(data_dir=Path(environ["DSPY_JOBS_DATA_DIR"]), redis_url=environ["REDIS_URL"]))
    assert not is_embedded(Settings(data_dir=tmp_path / "other", redis_url=redis_url(alone)))
    assert not is_embedded(Settings(data_dir=tmp_path, redis_url="redis://host"))
