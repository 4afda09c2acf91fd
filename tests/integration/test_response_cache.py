"""The two levels of the response cache over a real Redis, a mistreated one and none."""

from __future__ import annotations

import socket
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import replace
from signal import SIGCONT, SIGSTOP
from typing import Any

import pytest
import redis

from dspy_jobs import names
from dspy_jobs.cache_entry import CacheEntry, encode
from dspy_jobs.redis_url import cache_url
from dspy_jobs.settings import Settings
from dspy_jobs.waiting import wait_until
from tests.conftest import keys_without_lifetime
from tests.system.own_redis import OwnRedis
from worker.response_cache import ENTRY_OVERHEAD_BYTES, CacheCounts, ResponseCache

NewCache = Callable[..., ResponseCache]

#: Long enough for a busy machine, short enough to be waited for.
TIMEOUT = 0.5


def key(number: int) -> str:
    """A key."""
    return f"{number:040x}"


def entry(answer: str = "Paris") -> CacheEntry:
    """An entry made now."""
    return CacheEntry({"answer": answer}, int(time.time() * 1000), 1200, "v1")


@pytest.fixture
def new_cache(redis_url: str) -> Iterator[NewCache]:
    """Makes caches, as processes of one fleet have them; settings of `[cache]` as they are given."""
    with ExitStack() as stack:

        def make(clock: Callable[[], float] = time.time, **cache: Any) -> ResponseCache:
            given = {"timeout_seconds": 5.0, **cache}
            made = ResponseCache(Settings(redis_url=redis_url, cache=given), clock)
            stack.callback(made.close)
            return made

        yield make


@pytest.fixture
def cache_redis(redis_url: str) -> Iterator[redis.Redis]:
    """A client of the cache's Redis."""
    with redis.Redis.from_url(cache_url(Settings(redis_url=redis_url))) as client:
        yield client


#: How Redis is used by a cache that finds one key there and not another.
REDIS = (("redis", "hit"), ("redis", "miss"))


def levels(cache: ResponseCache, *keys: str) -> dict[str, str]:
    """Where each key was found."""
    return {name: found.level for name, found in cache.get(keys).items()}


# --- two levels ---------------------------------------------------------------------------------------------------


def test_what_one_process_stored_all_find(new_cache: NewCache) -> None:
    """The own process in memory, another in Redis and from then on in memory."""
    here, there = new_cache(), new_cache()
    here.put(key(1), entry())
    assert levels(here, key(1), key(2)) == {key(1): "memory"}
    assert levels(there, key(1), key(2), key(1)) == {key(1): "redis"}
    assert levels(there, key(1)) == {key(1): "memory"}
    assert there.get([key(1)])[key(1)].entry == here.get([key(1)])[key(1)].entry
    assert there.counts == CacheCounts(hits_memory=2, hits_redis=1, misses=1, stored_memory=1)
    assert here.counts == CacheCounts(hits_memory=2, misses=1, stored_memory=1, stored_redis=1)
    used = {use: number for use, number in there.counts.operations().items() if number}
    assert used == {("memory", "hit"): 2, ("memory", "miss"): 2, ("memory", "store"): 1, **dict.fromkeys(REDIS, 1)}


def test_redis_is_asked_once_for_all_that_memory_lacks(new_cache: NewCache, cache_redis: redis.Redis) -> None:
    """And not at all where memory has everything; a glance at memory never asks."""
    here, there = new_cache(), new_cache()
    for number in range(40):
        here.put(key(number), entry(str(number)))
    there.get([key(0)])
    before = cache_redis.info("commandstats")
    found = there.get([key(number) for number in range(50)])
    assert {name: f.entry.output["answer"] for name, f in found.items()} == {key(n): str(n) for n in range(40)}
    there.get([key(number) for number in range(40)])
    assert there.peek(key(3)) == there.get([key(3)])[key(3)]
    assert there.peek(key(60)) is None
    after = cache_redis.info("commandstats")
    assert after["cmdstat_mget"]["calls"] == before["cmdstat_mget"]["calls"] + 1


def test_an_output_that_somebody_changes_is_only_his(new_cache: NewCache) -> None:
    """Each finder gets an output of his own."""
    cache, put = new_cache(), entry()
    cache.put(key(1), put)
    put.output["answer"] = "changed"
    cache.get([key(1)])[key(1)].entry.output["answer"] = "changed"
    assert cache.get([key(1)])[key(1)].entry.output == {"answer": "Paris"}


def test_a_later_answer_replaces_and_a_discarded_one_is_gone(new_cache: NewCache, cache_redis: redis.Redis) -> None:
    """In both levels."""
    cache = new_cache()
    cache.put(key(1), entry("old"))
    cache.put(key(1), entry("new"))
    assert new_cache().get([key(1)])[key(1)].entry.output == {"answer": "new"}
    cache.discard(key(1))
    assert cache.get([key(1)]) == {}
    assert cache_redis.dbsize() == 0


def test_switched_off_it_knows_nothing_and_asks_nobody(new_cache: NewCache, cache_redis: redis.Redis) -> None:
    """Everything misses."""
    new_cache().put(key(1), entry())
    off = new_cache(enabled=False, url="redis://127.0.0.1:1/0")
    off.put(key(2), entry())
    off.discard(key(1))
    assert off.get([key(1), key(2)]) == {}
    assert off.peek(key(2)) is None
    assert off.counts == CacheCounts()
    assert cache_redis.dbsize() == 1


def test_without_memory_everything_comes_from_redis(new_cache: NewCache) -> None:
    """`memory_bytes = 0` keeps nothing."""
    cache = new_cache(memory_bytes=0)
    cache.put(key(1), entry())
    assert [levels(cache, key(1)) for _ in range(2)] == [{key(1): "redis"}] * 2


# --- lifetimes ----------------------------------------------------------------------------------------------------


def test_an_entry_lives_from_its_making_not_from_its_finding(new_cache: NewCache) -> None:
    """Copied into memory late, it still ends with its own life; so it does under a shorter setting."""
    now = [time.time()]
    made = replace(entry(), created_at=int(now[0] * 1000))
    here = new_cache(lambda: now[0], redis_seconds=100)
    here.put(key(1), made)
    now[0] += 99
    there = new_cache(lambda: now[0], redis_seconds=100)
    assert levels(there, key(1)) == {key(1): "redis"}
    assert levels(new_cache(lambda: now[0], redis_seconds=50), key(1)) == {}
    now[0] += 2
    assert levels(there, key(1)) == levels(here, key(1)) == {}
    assert there.peek(key(1)) is None


def test_redis_is_told_how_long_an_entry_lives(new_cache: NewCache, cache_redis: redis.Redis) -> None:
    """What is left of its life; an entry from the future gets a whole life, one past it is not stored."""
    cache, now = new_cache(redis_seconds=1000), time.time() * 1000
    for number, age in enumerate([0, 600_000, -600_000, 1_000_001]):
        cache.put(key(number), replace(entry(), created_at=int(now) - age))
    left = [cache_redis.pttl(names.cache_entry(key(number))) for number in range(4)]
    assert 400_000 < left[0] <= 1_000_000
    assert 0 < left[1] <= 400_000 < left[0]
    assert 400_000 < left[2] <= 1_000_000
    assert left[3] == -2
    assert keys_without_lifetime(cache_redis) == []


def test_memory_forgets_sooner_than_redis(new_cache: NewCache) -> None:
    """Its lifetime is its own."""
    cache = new_cache(memory_seconds=0.05)
    cache.put(key(1), entry())
    assert wait_until(lambda: cache.peek(key(1)) is None, 10)
    assert levels(cache, key(1)) == {key(1): "redis"}


# --- memory -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 100, 3_000, 100_000])
def test_memory_stays_within_its_bytes(new_cache: NewCache, size: int) -> None:
    """Ten times as much as fits leaves no more than fits, measured, with tiny and with large entries."""
    limit = 2_000_000
    cache = new_cache(memory_bytes=limit, compress_bytes=10**9, url="redis://127.0.0.1:1/0", timeout_seconds=0.1)
    cache.put(key(0), entry())  # Redis is found to be away, once
    made = replace(entry(), output={"answer": "x" * size})
    each = len(encode(key(0), made, 10**9)) + ENTRY_OVERHEAD_BYTES
    count = 10 * limit // each
    tracemalloc.start()
    try:
        for number in range(1, count):
            cache.put(key(number), made)
            assert number % 500 or tracemalloc.get_traced_memory()[0] < limit
        assert tracemalloc.get_traced_memory()[0] < limit
    finally:
        tracemalloc.stop()
    kept = sum(cache.peek(key(number)) is not None for number in range(count))
    assert kept == limit // each


def test_an_entry_larger_than_the_memory_drives_nothing_out(new_cache: NewCache) -> None:
    """It is in Redis alone."""
    cache = new_cache(memory_bytes=5000, compress_bytes=10**9)
    cache.put(key(1), entry())
    cache.put(key(2), entry("x" * 5000))
    assert levels(cache, key(1), key(2)) == {key(1): "memory", key(2): "redis"}


# --- poisoned entries ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "poison",
    [b"", b"garbage", encode(key(9), entry(), 1024), encode(key(1), entry(), 1024)[:-1],
     encode(key(1), entry("x" * 2_000_000), 1024)],
    ids=["empty", "garbage", "of another key", "cut", "too large"],
)  # fmt: skip
def test_a_corrupt_entry_is_a_miss_and_deleted(new_cache: NewCache, cache_redis: redis.Redis, poison: bytes) -> None:
    """Whole ones beside it are found."""
    new_cache().put(key(2), entry())
    cache = new_cache()
    cache_redis.set(names.cache_entry(key(1)), poison, px=60_000)
    assert levels(cache, key(1), key(2)) == {key(2): "redis"}
    assert cache_redis.keys() == [names.cache_entry(key(2)).encode()]
    assert cache.counts == CacheCounts(hits_redis=1, misses=1, corrupt=1, stored_memory=1)


def test_another_type_under_the_key_is_a_miss(new_cache: NewCache, cache_redis: redis.Redis) -> None:
    """Redis reads it as nothing, and the next output replaces it."""
    cache_redis.hset(names.cache_entry(key(1)), "a", "b")
    cache = new_cache()
    assert cache.get([key(1)]) == {}
    cache.put(key(1), entry())
    assert levels(new_cache(), key(1)) == {key(1): "redis"}


# --- a Redis in trouble -------------------------------------------------------------------------------------------


class DeafServer:
    """Accepts connections and never answers, or sends endless drops of an answer. `accepted` counts."""

    def __init__(self, drop: bytes = b"") -> None:
        self._drop = drop
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._server.getsockname()[1]}/0"
        self.accepted = 0
        self._open: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._server.accept()
                self.accepted += 1
                self._open.append(connection)
                if self._drop:
                    threading.Thread(target=self._drip, args=(connection,), daemon=True).start()

    def _drip(self, connection: socket.socket) -> None:
        with suppress(OSError):
            connection.sendall(b"+")
            while True:
                connection.sendall(self._drop)
                threading.Event().wait(TIMEOUT / 20)

    def close(self) -> None:
        """Hang up."""
        for connection in (self._server, *self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()


@pytest.fixture(params=[b"", b"x"], ids=["silent", "dripping"])
def deaf_server(request: pytest.FixtureRequest) -> Iterator[DeafServer]:
    """A server that never comes to an answer."""
    server = DeafServer(request.param)
    yield server
    server.close()


def test_a_server_that_never_answers_costs_one_timeout(new_cache: NewCache, deaf_server: DeafServer) -> None:
    """All of connecting, logging in and asking together, once; then it is left alone by everybody."""
    cache = new_cache(url=deaf_server.url, timeout_seconds=TIMEOUT, skip_seconds=3600)
    began = time.monotonic()
    assert cache.get([key(1)]) == {}
    first = time.monotonic() - began
    assert TIMEOUT <= first < 3 * TIMEOUT
    for _ in range(100):
        cache.put(key(1), entry())
        assert levels(cache, key(1), key(2)) == {key(1): "memory"}
        cache.discard(key(2))
    assert time.monotonic() - began - first < TIMEOUT * 3
    assert deaf_server.accepted == 1
    never_asked = {"unanswered": 101, "errors": 1, "skipped": 300}
    assert cache.counts == CacheCounts(hits_memory=100, misses=101, stored_memory=100, **never_asked)
    assert cache.counts.operations()["redis", "miss"] == 0


def test_many_threads_together_wait_one_timeout(new_cache: NewCache, deaf_server: DeafServer) -> None:
    """Those that find all connections taken wait no longer than those that have one."""
    cache = new_cache(url=deaf_server.url, timeout_seconds=TIMEOUT, skip_seconds=3600)

    def ask(number: int) -> float:
        began = time.monotonic()
        assert cache.get([key(number)]) == {}
        return time.monotonic() - began

    with ThreadPoolExecutor(64) as threads:
        assert max(threads.map(ask, range(64))) < 3 * TIMEOUT


def test_after_the_time_one_thread_tries_and_the_others_go_on_without(new_cache: NewCache) -> None:
    """No herd: one more connection for as long as nobody knows whether it is back."""
    server = DeafServer()
    try:
        cache = new_cache(url=server.url, timeout_seconds=TIMEOUT, skip_seconds=0.05)
        cache.get([key(1)])
        assert wait_until(lambda: not cache.get([key(1)]) and server.accepted == 2, 20)
        failures = cache.counts.errors
        with ThreadPoolExecutor(16) as threads:
            list(threads.map(lambda n: cache.get([key(n)]), range(1000)))
        assert server.accepted - 1 <= cache.counts.errors <= failures + 2
        assert cache.counts.skipped > 900
    finally:
        server.close()


def test_a_stopped_redis_is_left_alone_and_found_again(new_cache: NewCache, own_redis: OwnRedis) -> None:
    """The outputs of the time between are in memory, and later ones in Redis again."""
    cache = new_cache(url=own_redis.url, timeout_seconds=TIMEOUT, skip_seconds=0.1)
    cache.put(key(1), entry())
    own_redis.signal(SIGSTOP)
    began = time.monotonic()
    cache.put(key(2), entry())
    assert levels(cache, key(2), key(3)) == {key(2): "memory"}
    assert time.monotonic() - began < 4 * TIMEOUT
    assert cache.counts.errors >= 1
    own_redis.signal(SIGCONT)
    fresh = new_cache(url=own_redis.url)
    assert wait_until(lambda: cache.put(key(4), entry()) or key(4) in fresh.get([key(4)]), 20)
    # What Redis said too late to one command is not taken for the answer to another.
    assert wait_until(lambda: cache.get([key(5), key(1)]).keys() == {key(1)}, 20)


def test_a_redis_that_is_down_and_comes_back(new_cache: NewCache, own_redis: OwnRedis) -> None:
    """Down: only misses. A restart alone is not even an error, though every open connection is dead."""
    cache = new_cache(url=own_redis.url, skip_seconds=0.1, memory_bytes=0)
    cache.put(key(1), entry())
    own_redis.kill()
    for _ in range(20):
        assert cache.get([key(1)]) == {}
    assert cache.counts.errors >= 1
    own_redis.start()
    assert wait_until(lambda: bool(cache.put(key(1), entry()) or cache.get([key(1)])), 20)
    errors = cache.counts.errors
    own_redis.kill()
    own_redis.start()
    cache.put(key(2), entry())
    assert levels(cache, key(2)) == {key(2): "redis"}
    assert cache.counts.errors == errors


def test_a_full_redis_is_still_read(new_cache: NewCache, own_redis: OwnRedis) -> None:
    """Outputs cannot be stored there, for a while nobody tries, and those that are there are found."""
    cache = new_cache(url=own_redis.url, skip_seconds=3600)
    cache.put(key(1), entry())
    with redis.Redis.from_url(own_redis.url) as client:
        client.config_set("maxmemory", 1)
        for number in range(2, 12):
            cache.put(key(number), entry())
        assert client.dbsize() == 1
        assert (cache.counts.errors, cache.counts.skipped) == (1, 9)
        reader = new_cache(url=own_redis.url, skip_seconds=3600)
        reader.put(key(2), entry())
        assert levels(reader, key(1), key(2), key(3)) == {key(1): "redis", key(2): "memory"}
        assert levels(cache, *map(key, range(2, 12))) == {key(n): "memory" for n in range(2, 12)}


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0", "unix:///no/such.sock?db=1", "redis://no-such-host.invalid/0",
                                 "rediss://127.0.0.1:1/0", f"redis://{'a' * 70}.b/0"])  # fmt: skip
def test_an_address_where_nothing_is_costs_only_misses(new_cache: NewCache, url: str) -> None:
    """Whatever is wrong with it."""
    cache = new_cache(url=url, skip_seconds=3600)
    assert cache.get([key(1)]) == {}
    cache.put(key(1), entry())
    assert levels(cache, key(1)) == {key(1): "memory"}
    assert (cache.counts.errors, cache.counts.skipped) == (1, 1)


def test_many_threads_lose_and_mix_up_nothing(new_cache: NewCache) -> None:
    """Each finds what belongs to its key, and every lookup is counted once."""
    cache, other = new_cache(memory_bytes=20_000), new_cache()

    def use(number: int) -> None:
        cache.put(key(number % 50), entry(str(number % 50)))
        for found in (cache.get([key(n) for n in range(50)]), other.get([key(n) for n in range(50)])):
            assert all(int(name, 16) == int(f.entry.output["answer"]) for name, f in found.items())

    with ThreadPoolExecutor(32) as threads:
        list(threads.map(use, range(400)))
    for counts in (cache.counts, other.counts):
        assert counts.hits_memory + counts.hits_redis + counts.misses == 400 * 50
        assert (counts.errors, counts.corrupt, counts.skipped) == (0, 0, 0)
