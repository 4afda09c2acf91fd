"""One autoscaler at a time, held against a real Redis; and what workers of this host say there."""

from __future__ import annotations

import os
import socket

import orjson
import pytest
import redis

from autoscaler.backends.registry import RedisRegistry, Registered, live_workers
from autoscaler.lease import Lease
from autoscaler.ledger import DemandDocument
from autoscaler.sources import ReadingError, RedisLength
from dspy_jobs import names
from dspy_jobs.settings import Settings
from dspy_jobs.store import SyncStore, connect
from dspy_jobs.store.operations import renew_worker
from dspy_jobs.waiting import wait_until

NAME = names.autoscaler_lease("test")


class Clock:
    """A lease's own clock; Redis has its own."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Seconds."""
        return self.now


def lease_of(store: SyncStore, clock: Clock, seconds: float = 10) -> Lease:
    """A lease for one of several autoscalers."""
    return Lease(store.redis, NAME, seconds, clock)


def test_only_one_holds_it(store: SyncStore) -> None:
    """The second waits, and has it as soon as the first gives it up."""
    clock = Clock()
    first, second = lease_of(store, clock), lease_of(store, clock)
    assert (first.keep(), second.keep()) == (True, False)
    assert first.holder is None
    assert second.holder == f"{socket.gethostname()} process {os.getpid()}"
    first.give_up()
    assert not first.is_held
    clock.now += 3
    assert second.keep()
    assert second.holder is None


def test_it_is_renewed(store: SyncStore) -> None:
    """It lasts as long as it is kept, and Redis would let it end otherwise."""
    clock = Clock()
    lease = lease_of(store, clock)
    assert lease.keep()
    for _ in range(5):
        store.redis.pexpire(NAME, 4000)
        clock.now += 8
        assert lease.keep()
        assert store.redis.pttl(NAME) > 4000


def test_one_who_died_lets_it_end(store: SyncStore) -> None:
    """Nobody has to give it up."""
    lease_of(store, Clock(), seconds=0.2).keep()
    clock = Clock()
    second = lease_of(store, clock)

    def takes_over() -> bool:
        clock.now += 10
        return second.keep()

    assert wait_until(takes_over, 20)


def test_the_owner_knows_when_it_ended(store: SyncStore) -> None:
    """By its own clock, without asking: it may be cut off from Redis."""
    clock = Clock()
    lease = lease_of(store, clock)
    lease.keep()
    clock.now += 9.9
    assert lease.is_held
    clock.now += 0.2
    assert not lease.is_held


def test_a_lease_that_another_took_is_lost(store: SyncStore) -> None:
    """A renewal finds the other's token and leaves it alone; giving up does as well."""
    clock = Clock()
    lease = lease_of(store, clock)
    lease.keep()
    store.redis.set(NAME, "another's", px=60_000)
    clock.now += 3
    assert not lease.keep()
    lease.give_up()
    assert store.redis.get(NAME) == b"another's"


def test_it_tells_where_another_leads(store: SyncStore) -> None:
    """The place of whoever has it; nothing while it is ours, and what an older release wrote is no place."""
    clock = Clock()
    first = Lease(store.redis, NAME, 10, clock, "there/1 2")
    second = lease_of(store, clock)
    first.keep()
    second.keep()
    assert (first.leader, second.leader) == (None, "there/1 2")
    store.redis.set(NAME, "0123456789abcdef", px=60_000)
    clock.now += 3
    assert (first.keep(), first.leader) == (False, "")
    store.redis.delete(NAME)
    clock.now += 3
    assert (first.keep(), first.leader) == (True, None)


def test_a_redis_that_forgot_it_gives_it_again(store: SyncStore) -> None:
    """After a loss of data the first to come has it."""
    clock = Clock()
    lease = lease_of(store, clock)
    lease.keep()
    store.redis.delete(NAME)
    clock.now += 3
    assert lease.keep()


def test_a_redis_that_is_away_ends_it_in_time() -> None:
    """Until its end it is still held; then nothing may be done any more."""
    clock = Clock()
    lease = Lease(connect("redis://127.0.0.1:1", timeout_seconds=0.2), NAME, 10, clock)
    assert not lease.keep()
    assert lease.leader is None
    lease.give_up()


def describe(store: SyncStore, worker: str, **said: object) -> None:
    """A worker that lives and says this of itself."""
    own = {"id": worker, "host": "here", "pid": 1, "concurrency": 8, "queues": [], "running": 0, "draining": False}
    store.run(renew_worker(worker, 60, orjson.dumps(own | said), []))


def test_workers_of_this_host_are_known(store: SyncStore) -> None:
    """By process number, with their jobs; those of other hosts and those whose lease has ended are not."""
    describe(store, "one", pid=1, running=3)
    describe(store, "two", pid=2, draining=True)
    describe(store, "three", pid=3, host="there")
    describe(store, "four", pid=4)
    store.redis.zadd(names.WORKERS, {"four": 1})
    assert RedisRegistry(store.redis, "here").workers() == {1: Registered(3), 2: Registered(0, True)}
    assert live_workers(store.redis) == 3


def test_nothing_is_known_without_redis() -> None:
    """That is not the same as knowing of nobody."""
    away = connect("redis://127.0.0.1:1", timeout_seconds=0.2)
    assert RedisRegistry(away, "here").workers() is None
    assert live_workers(away) == 0
    settings = Settings(models={"m": {"model": "openai/m"}}, default_model="m")
    with pytest.raises(ReadingError):
        DemandDocument(away, settings).fetch()


def test_whatever_has_a_length_is_measured(store: SyncStore, redis_url: str) -> None:
    """Lists, hashes, sorted sets and sets, as KEDA's script does; nothing is 0; a text has no length."""
    client: redis.Redis = store.redis
    client.rpush("dspy.list", "a", "b")
    client.hset("dspy.hash", mapping={"a": "1"})
    client.zadd("dspy.zset", {"a": 1, "b": 2, "c": 3})
    client.sadd("dspy.set", "a")
    client.set("dspy.text", "a")
    lengths = {name: RedisLength(client, f"dspy.{name}").read() for name in ("list", "hash", "zset", "set", "none")}
    assert lengths == {"list": 2, "hash": 1, "zset": 3, "set": 1, "none": 0}
    with pytest.raises(ReadingError):
        RedisLength(client, "dspy.text").read()


def test_the_document_is_the_services(store: SyncStore) -> None:
    """An empty ledger asks for nothing, and says so in the words of the API."""
    settings = Settings(models={"m": {"model": "openai/m"}}, default_model="m")
    document = DemandDocument(store.redis, settings).fetch()
    assert (document["work"], document["waiting"], list(document["queues"])) == (0, 0, ["dspy.m"])
