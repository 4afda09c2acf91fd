"""Outputs reach the cache's Redis without anybody waiting for them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from dspy_jobs.cache_entry import CacheEntry
from dspy_jobs.settings import Settings
from worker.cache_writer import CacheWriter
from worker.response_cache import ResponseCache

KEYS = [f"{number:040x}" for number in range(300)]


def entry(text: str) -> CacheEntry:
    """An output made now."""
    return CacheEntry({"answer": text}, int(time.time() * 1000), 5, "v1")


@pytest.fixture
def settings(write_config: Callable[..., Settings]) -> Settings:
    """Those of a worker."""
    return write_config()


def test_outputs_are_in_memory_at_once_and_in_redis_at_the_end(settings: Settings, store: object) -> None:
    """Put by many threads; another process finds all of them."""
    cache = ResponseCache(settings)
    writer = CacheWriter(cache)
    for key in KEYS:
        writer.put(key, entry(key))
    assert all(cache.peek(key) for key in KEYS), "before anything is written"
    assert not ResponseCache(settings).get(KEYS)
    writer.start()
    more = [threading.Thread(target=writer.put, args=(f"f{key[1:]}", entry(key))) for key in KEYS[:50]]
    for thread in more:
        thread.start()
    for thread in more:
        thread.join()
    writer.end()
    assert not writer.is_alive()
    assert len(ResponseCache(settings).get(KEYS)) == 300
    assert len(ResponseCache(settings).get([f"f{key[1:]}" for key in KEYS[:50]])) == 50


def test_a_cache_that_is_away_holds_nobody_up(write_config: Callable[..., Settings]) -> None:
    """What cannot be written is dropped, and the writer ends when it is told to."""
    cache = ResponseCache(write_config(CACHE_URL="redis://127.0.0.1:1/0"))
    writer = CacheWriter(cache)
    writer.start()
    for key in KEYS:
        writer.put(key, entry(key))
    writer.end()
    assert not writer.is_alive()
    assert cache.counts.errors >= 1
