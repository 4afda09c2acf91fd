"""What a Redis server's own words mean for jobs."""

from __future__ import annotations

from dataclasses import replace

import pytest
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    NoPermissionError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisUnreachable
from redis.exceptions import TimeoutError as RedisTimeout

from dspy_jobs.redis_state import (
    RedisState,
    complaint_about_failure,
    complaints_about_cache,
    complaints_about_ledger,
    redis_state,
)

MIB = 2**20
WELL = RedisState(
    run_id="a", version="7.2.5", is_primary=True, used_bytes=50 * MIB, limit_bytes=100 * MIB, host_bytes=1000 * MIB,
    policy="noeviction", keeps_log=True, log_is_written=True, connections=10, most_connections=100,
)  # fmt: skip


def test_a_server_that_is_well_has_no_complaints() -> None:
    """Neither as the one of jobs nor as the one of the cache; also where it says next to nothing of itself."""
    for state in (WELL, redis_state({}), replace(WELL, limit_bytes=0)):
        assert not [*complaints_about_ledger(state), *complaints_about_cache(state)]


@pytest.mark.parametrize(
    ("changes", "words", "stops_work", "is_mistake"),
    [
        ({"is_primary": False}, "replica", True, False),
        ({"log_is_written": False}, "append-only file", True, False),
        ({"used_bytes": 100 * MIB}, "is full", True, False),
        ({"used_bytes": 85 * MIB}, "85% of its maxmemory", False, False),
        ({"limit_bytes": 0, "used_bytes": 900 * MIB}, "90% of its machine's memory", False, False),
        ({"policy": "allkeys-lru"}, "throws jobs away", False, True),
        ({"connections": 95}, "95 of its 100 connections", False, False),
    ],
)
def test_each_fault_of_the_ledger_is_named(
    changes: dict[str, object], words: str, stops_work: bool, is_mistake: bool
) -> None:
    """Each with what to do, and whether it stops work or is a wrong setting."""
    (complaint,) = complaints_about_ledger(replace(WELL, **changes))  # type: ignore[arg-type]
    assert words in complaint.what
    assert complaint.remedy
    assert (complaint.stops_work, complaint.is_mistake) == (stops_work, is_mistake)


def test_a_cache_may_evict_and_must_not_fill_up() -> None:
    """A server of the cache alone may throw anything away; one that throws nothing away fills up."""
    full = replace(WELL, used_bytes=90 * MIB)
    assert not list(complaints_about_cache(replace(full, policy="allkeys-lru")))
    assert ["evicts nothing" in complaint.what for complaint in complaints_about_cache(full)] == [True]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (BusyLoadingError("LOADING"), "loading"),
        (AuthenticationError("WRONGPASS hunter2"), "user or password"),
        (NoPermissionError("NOPERM"), "user or password"),
        (RedisTimeout("redis://secret@host"), "too long"),
        (RedisUnreachable("secret@host"), "cannot be reached"),
        (FileNotFoundError("no socket"), "cannot be reached"),
        (ResponseError("MISCONF secret"), "(MISCONF)"),
    ],
)
def test_failures_are_told_without_addresses(error: Exception, words: str) -> None:
    """What went wrong and what to do; nothing of the error's own text, which has addresses."""
    complaint = complaint_about_failure(error, "REDIS_URL")
    assert words in complaint.what
    assert "secret" not in complaint.what + complaint.remedy
    assert complaint.stops_work


def test_what_is_no_failure_of_the_server_is_raised() -> None:
    """A mistake of ours."""
    with pytest.raises(KeyError):
        complaint_about_failure(KeyError("ours"), "REDIS_URL")
