"""Looks at the two Redis servers: that of queue, jobs and results, and that of the response cache."""

from __future__ import annotations

import time
from collections.abc import Iterator

import redis
from packaging.version import InvalidVersion, Version
from redis.exceptions import RedisError

from dspy_jobs.doctor.finding import Finding, Verdict, fail, of_complaint, ok, skip, warn
from dspy_jobs.redis_state import (
    NO_EVICTION,
    RedisState,
    about_memory,
    complaint_about_failure,
    complaints_about_cache,
    complaints_about_ledger,
    redis_state,
)
from dspy_jobs.redis_url import cache_url, is_embedded, redis_url
from dspy_jobs.settings import Settings
from dspy_jobs.store import connect

#: Seconds a server gets to answer.
_PATIENCE_SECONDS = 2.0
#: The oldest Redis that the scripts have been run on.
OLDEST = Version("6.2")
#: Seconds by which this machine's clock may differ from Redis's, by which leases and retries go.
_CLOCK_SECONDS = 1.0


def look_at_ledger(settings: Settings) -> Iterator[Finding]:
    """Whether the Redis of queue, jobs and results answers, keeps everything and keeps it on disk."""
    remedy = None if not is_embedded(settings) else "start the stack: `dspy-jobs up`, whose embedded Redis this is"
    found = _ask("Redis", redis_url(settings), "REDIS_URL", remedy)
    if isinstance(found, Finding):
        yield found
        return
    state, clock, latency = found
    yield ok("Redis", f"version {state.version}, answers in {1000 * latency:.1f} ms")
    yield from _version(state)
    yield from (of_complaint("Redis", complaint) for complaint in complaints_about_ledger(state))
    if state.policy == NO_EVICTION and not any(about_memory(state)):
        yield ok("Redis memory", f"{_memory(state)}; throws nothing away")
    yield from _persistence(state)
    yield from _clock(clock)


def _ask(name: str, url: str, variable: str, remedy: str | None) -> Finding | tuple[RedisState, float, float]:
    """A server's state, by how many seconds its clock is ahead, and how many it took to answer."""
    try:
        with connect(url, _PATIENCE_SECONDS) as client:
            began, began_clock = time.perf_counter(), time.time()
            seconds, microseconds = client.time()
            latency = time.perf_counter() - began
            ahead = seconds + microseconds / 1e6 - (began_clock + latency / 2)
            return redis_state(client.info()), ahead, latency
    except (RedisError, OSError) as error:
        complaint = complaint_about_failure(error, variable)
        is_away = isinstance(error, redis.ConnectionError | OSError) and not isinstance(error, redis.TimeoutError)
        return fail(name, complaint.what, remedy if remedy and is_away else complaint.remedy)


def _version(state: RedisState) -> Iterator[Finding]:
    try:
        is_old = Version(state.version) < OLDEST
    except InvalidVersion:
        return
    if is_old:
        yield fail("Redis version", f"{state.version} is older than {OLDEST}", f"install Redis {OLDEST} or newer")


def _memory(state: RedisState) -> str:
    limit = f" of {state.limit_bytes / 2**20:.0f}" if state.limit_bytes else ""
    return f"{state.used_bytes / 2**20:.0f}{limit} MiB used"


def _persistence(state: RedisState) -> Iterator[Finding]:
    if state.keeps_log:
        yield ok("Redis persistence", "an append-only file is kept")
        return
    remedy = "`redis-cli config set appendonly yes`, and the same in its configuration"
    yield warn("Redis persistence", "no append-only file: a restart of Redis loses jobs that were accepted", remedy)


def _clock(ahead: float) -> Iterator[Finding]:
    if abs(ahead) <= _CLOCK_SECONDS:
        yield ok("clock", "this machine's and Redis's agree")
        return
    way = "ahead of" if ahead > 0 else "behind"
    detail = f"Redis's is {abs(ahead):.1f} s {way} this machine's: times shown here are not those that jobs go by"
    yield warn("clock", detail, "let both keep time by NTP")


def look_at_cache(settings: Settings) -> Iterator[Finding]:
    """Whether the response cache's Redis answers and may evict."""
    if not settings.cache.enabled:
        yield skip("cache", "it is switched off (cache.enabled)")
        return
    found = _ask("cache", cache_url(settings), "CACHE_URL", None)
    if isinstance(found, Finding):
        if settings.cache.url is None:
            yield skip("cache", "it is in the Redis of the jobs, see there")
            return
        detail = f"{found.detail}: jobs run, and answers are paid for again"
        yield Finding(found.check, Verdict.WARN, detail, found.remedy)
        return
    state, _, latency = found
    if _is_shared(settings, state):
        yield ok("cache", "in the Redis of the jobs, which throws nothing away; entries end by cache.redis_seconds")
        return
    complaints = list(complaints_about_cache(state))
    yield from (of_complaint("cache", complaint) for complaint in complaints)
    if not complaints:
        yield ok("cache", f"answers in {1000 * latency:.1f} ms, {_memory(state)}, policy {state.policy}")


def _is_shared(settings: Settings, cache: RedisState) -> bool:
    ledger = _ask("Redis", redis_url(settings), "REDIS_URL", None)
    return not isinstance(ledger, Finding) and ledger[0].run_id == cache.run_id
