"""When the service is healthy, degraded or unhealthy: each rule with what breaks it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisUnreachable

from api import health_rules as rules
from api.failures import ProgramFailures, RecentFailures
from api.health_checks import CacheServer, Ledger, LostWorker
from api.health_rules import health_document
from api.looks import Known, Seen
from dspy_jobs import disk_space
from dspy_jobs.demand import QueueLoad, WorkerLoad
from dspy_jobs.disk_space import DiskSpace
from dspy_jobs.redis_state import RedisState
from dspy_jobs.settings import CacheSettings, Settings
from dspy_jobs.states import CircuitState
from dspy_jobs.store.demand import Outstanding
from dspy_jobs.store.records import Gate

SERVER = RedisState("a", "7.2", True, 50, 100, 0, "noeviction", True, True, 1, 100)
QUEUE = QueueLoad("dspy.fast", queued=3, waiting=3, running=1, oldest_wait_seconds=1.0)
WORKER = WorkerLoad(
    "w1", is_alive=True, held=1, running=1, concurrency=8, queues=("dspy.fast",), heartbeat_age_seconds=0.2,
    silent_seconds=0.5,
)  # fmt: skip
LEDGER = Ledger(0.3, SERVER, Outstanding([QUEUE], [WORKER]), {"fast": CircuitState.CLOSED}, 1, [])
CACHE = CacheServer(0.3, replace(SERVER, run_id="b", policy="allkeys-lru"))
DISK = DiskSpace(2**40, 2**41, 2**20)
OWN_CACHE = Settings(cache=CacheSettings(url="redis://elsewhere"))
IDLE = replace(QUEUE, queued=0, waiting=0, running=0, oldest_wait_seconds=0.0)


def seen(value: Any, **trouble: Any) -> Seen[Any]:
    """What was seen just now, unless there is trouble."""
    return Seen(Known(value, 1_700_000_000.0), **trouble)


def document(ledger: Ledger = LEDGER, **others: Any) -> dict[str, Any]:
    """The document of a service like this."""
    cache, disk = others.get("cache", seen(CACHE)), others.get("disk", seen(DISK))
    return health_document(OWN_CACHE, seen(ledger), cache, disk, 1_700_000_000_000)


def with_queue(**changes: Any) -> Ledger:
    """A ledger whose queue is different."""
    return replace(LEDGER, outstanding=Outstanding([replace(QUEUE, **changes)], [WORKER]))


def with_worker(queue: QueueLoad = QUEUE, **changes: Any) -> Ledger:
    """A ledger whose worker is different."""
    return replace(LEDGER, outstanding=Outstanding([queue], [replace(WORKER, **changes)]))


def without_workers(queue: QueueLoad) -> Ledger:
    """A ledger of a fleet of none."""
    return replace(LEDGER, outstanding=Outstanding([queue], []))


def failing(failed: int, ended: int) -> Ledger:
    """A ledger of a service with a program of which so many jobs failed in five minutes."""
    found = ProgramFailures("naps", "slow", ended, failed, {"program_error": failed})
    return replace(LEDGER, failures=RecentFailures(300.0, [found]))


def budget(client: str | None, spent: float) -> dict[str, Any]:
    """A day's budget of a dollar."""
    return {
        "client": client, "period": "day", "limit_usd": 1.0, "spent_usd": spent, "left_usd": 1 - spent,
        "exhausted": spent >= 1, "resets_at": "2026-01-01T00:00:00.000Z",
    }  # fmt: skip


def test_a_service_at_work_is_healthy() -> None:
    """Nothing is wrong, and nothing is said."""
    found = document()
    assert (found["status"], found["problems"]) == ("healthy", [])
    assert {component["status"] for component in found["components"].values()} == {"healthy"}
    assert found["components"]["workers"]["workers"][0]["heartbeat_age_seconds"] == 0.2
    assert found["components"]["queues"]["queues"][0]["oldest_wait_seconds"] == 1.0


@pytest.mark.parametrize(
    ("ledger", "component", "status", "words"),
    [
        (replace(LEDGER, server=replace(SERVER, used_bytes=100)), "redis", "unhealthy", "is full"),
        (replace(LEDGER, server=replace(SERVER, used_bytes=85)), "redis", "degraded", "85%"),
        (replace(LEDGER, server=replace(SERVER, policy="allkeys-lru")), "redis", "degraded", "noeviction"),
        (replace(LEDGER, programs=0), "programs", "unhealthy", "worker.describe"),
        (failing(150, 150), "failures", "degraded", "150 of 150 jobs of naps on slow failed in the last 5 min"),
        (failing(150, 150), "failures", "degraded", "dspy-jobs list --status failed"),
        (without_workers(replace(QUEUE, oldest_wait_seconds=31.0)), "workers", "unhealthy", "start one"),
        (with_worker(replace(QUEUE, oldest_wait_seconds=31.0), is_draining=True), "workers", "unhealthy", "start one"),
        (with_worker(is_alive=False), "workers", "degraded", "w1 is lost with 1 jobs"),
        (with_worker(silent_seconds=11.0), "workers", "degraded", "not asked for messages for 11 s"),
        (with_queue(oldest_wait_seconds=61.0), "queues", "degraded", "longer than 60 s"),
        (with_queue(oldest_wait_seconds=61.0, running=0), "queues", "unhealthy", "none runs, with 1 workers"),
        (with_queue(gate=Gate("paused", None)), "queues", "degraded", "queue resume dspy.fast"),
        (with_queue(gate=Gate("rate_limited", 1)), "queues", "degraded", "opens by itself"),
        (
            with_queue(gate=Gate("a_newer_reason", None)),
            "queues",
            "degraded",
            "(a_newer_reason): see the release notes",
        ),
        (replace(LEDGER, circuits={"fast": CircuitState.OPEN}), "circuits", "degraded", "fast is open"),
        (replace(LEDGER, circuits={"fast": CircuitState.HALF_OPEN}), "circuits", "degraded", "fast is half_open"),
        (replace(LEDGER, budgets=[budget(None, 1.0)]), "budgets", "degraded", "rollout restart"),
    ],
)
def test_each_fault_has_its_status_and_says_what_to_do(ledger: Ledger, component: str, status: str, words: str) -> None:
    """The component has the status, the whole has it too, and the detail stands among the problems."""
    found = document(ledger)
    assert found["components"][component]["status"] == found["status"] == status
    assert words in found["components"][component]["detail"]
    assert found["problems"] == [f"{component}: {found['components'][component]['detail']}"]


@pytest.mark.parametrize(
    "ledger",
    [
        failing(4, 4),
        failing(9, 100),
        without_workers(IDLE),
        without_workers(replace(QUEUE, oldest_wait_seconds=29.0)),
        with_worker(is_alive=False, held=0),
        with_worker(is_draining=True, silent_seconds=60.0),
        with_worker(silent_seconds=None),
        replace(LEDGER, budgets=[budget("acme", 1.0), budget(None, 0.99)]),
    ],
    ids=[
        "a few jobs failed",
        "a small share failed",
        "scaled to zero",
        "first worker still starts",
        "dead and empty-handed",
        "draining",
        "says less",
        "client's",
    ],
)
def test_what_is_as_it_should_be_is_healthy(ledger: Ledger) -> None:
    """A fleet of none without work, a draining worker, a client's own budget are no faults."""
    assert document(ledger)["status"] == "healthy"


def test_a_queue_behind_a_gate_needs_no_worker() -> None:
    """Its jobs could not run, so that nobody runs them is no fault of workers."""
    closed = replace(QUEUE, oldest_wait_seconds=500.0, gate=Gate("paused", None))
    found = document(without_workers(closed))
    assert (found["status"], found["components"]["workers"]["status"]) == ("degraded", "healthy")


def test_a_busy_fleet_is_slow_and_not_stuck() -> None:
    """Overdue jobs of a queue of which none runs are no sign of stuck workers while they run another's."""
    other = QueueLoad("dspy.other", running=8)
    late = replace(QUEUE, oldest_wait_seconds=61.0, running=0)
    found = document(replace(LEDGER, outstanding=Outstanding([late, other], [WORKER])))
    assert found["status"] == "degraded"


def test_names_of_clients_are_not_shown() -> None:
    """Of clients' budgets the fullest is shown without its name, and how many are used up."""
    found = document(replace(LEDGER, budgets=[budget("acme", 1.0), budget("umbra", 0.5), budget(None, 0.2)]))
    budgets = found["components"]["budgets"]
    assert [(b["scope"], b["spent_usd"]) for b in budgets["budgets"]] == [("all", 0.2), ("client", 1.0)]
    assert budgets["clients_exhausted"] == 1
    assert "acme" not in str(found)


@pytest.mark.parametrize("trouble", [{"hangs": 0.06}, {"error": RedisUnreachable("redis://secret@host")}])
def test_without_redis_the_last_known_is_told_as_such(trouble: dict[str, Any]) -> None:
    """Redis is unhealthy, what only it can tell is unknown, with the numbers of before and their time."""
    found = health_document(OWN_CACHE, seen(LEDGER, **trouble), seen(CACHE), None, 1_700_000_060_000)
    assert found["status"] == "unhealthy"
    assert len(found["problems"]) == 1
    assert "secret" not in str(found)
    for name in ("programs", "failures", "workers", "queues", "circuits", "budgets"):
        assert found["components"][name]["status"] == "unknown"
        assert found["components"][name]["as_of"] == "2023-11-14T22:13:20.000Z"
    assert found["components"]["workers"]["live"] == 1
    assert found["components"]["cache"]["status"] == "healthy"


def test_a_server_that_holds_both_is_told_of_once() -> None:
    """Without a Redis of its own the cache is where the jobs are, and unknown as they are."""
    hung = seen(CACHE, hangs=0.06)
    found = health_document(Settings(), seen(LEDGER, hangs=0.06), hung, None, 1_700_000_060_000)
    assert found["components"]["cache"]["status"] == "unknown"
    assert len(found["problems"]) == 1


def test_a_redis_that_never_answered_leaves_nothing_to_tell() -> None:
    """The document has every component all the same."""
    found = health_document(Settings(), Seen(None, hangs=0.06), Seen(None, hangs=0.06), Seen(None, hangs=0.06), 0)
    assert found["status"] == "unhealthy"
    assert found["components"].keys() == document()["components"].keys()
    assert found["components"]["workers"]["workers"] == []


@pytest.mark.parametrize(
    ("cache", "words"),
    [
        (seen(CACHE, hangs=0.06), "has not answered for 0.06 s"),
        (Seen(None, error=RedisUnreachable("gone")), "CACHE_URL"),
        (seen(CacheServer(0.3, replace(SERVER, run_id="b", used_bytes=90))), "allkeys-lru"),
    ],
)
def test_without_the_cache_jobs_run(cache: Seen[CacheServer], words: str) -> None:
    """Its trouble degrades the service and no more."""
    found = document(cache=cache)
    assert found["status"] == found["components"]["cache"]["status"] == "degraded"
    assert words in found["components"]["cache"]["detail"]


def test_a_cache_beside_the_jobs_or_switched_off_is_judged_by_nothing() -> None:
    """In the jobs' server it is that server's memory that counts; switched off there is nothing to look at."""
    shared = document(cache=seen(CacheServer(0.3, replace(SERVER, used_bytes=90))))["components"]["cache"]
    assert (shared["status"], shared["shares_redis"]) == ("healthy", True)
    assert document(cache=None)["components"]["cache"] == {"status": "healthy", "enabled": False}


@pytest.mark.parametrize(
    ("disk", "status"),
    [
        (seen(replace(DISK, free_bytes=disk_space.LITTLE - 1)), "degraded"),
        (seen(replace(DISK, free_bytes=disk_space.TOO_LITTLE - 1)), "unhealthy"),
        (seen(replace(DISK, free_bytes=2**32, data_bytes=2**33)), "degraded"),
        (seen(DISK, hangs=3.0), "degraded"),
        (seen(DISK), "healthy"),
    ],
)
def test_an_embedded_redis_needs_room(disk: Seen[DiskSpace], status: str) -> None:
    """Little room degrades, too little stops it, and as much again as it has is needed when its file is rewritten."""
    assert document(disk=disk)["components"]["disk"]["status"] == status


def test_only_so_many_workers_are_listed() -> None:
    """A fleet of a thousand does not make an answer of a megabyte."""
    workers = [replace(WORKER, id=f"w{n}") for n in range(1000)]
    found = document(replace(LEDGER, outstanding=Outstanding([QUEUE], workers)))["components"]["workers"]
    assert (found["live"], len(found["workers"])) == (1000, rules.MOST_WORKERS)


def test_queues_of_one_cause_are_told_together_after_it() -> None:
    """A used-up budget closes every queue; eight sentences that say the same hide why."""
    closed = [replace(QUEUE, name=f"dspy.m{n}", gate=Gate("budget_exhausted", None)) for n in range(8)]
    paused = replace(QUEUE, name="dspy.p", gate=Gate("paused", None))
    ledger = replace(LEDGER, outstanding=Outstanding([*closed, paused], [WORKER]), budgets=[budget(None, 1.0)])
    first, second = document(ledger)["problems"]
    assert first.startswith("budgets: ")
    assert second.startswith("queues: 8 queues are closed (budget_exhausted): ")
    assert "dspy.p is closed (paused)" in second
    assert len(second) < 250


def test_queues_that_wait_too_long_are_told_together() -> None:
    """By the one that waits longest."""
    late = [replace(QUEUE, name=f"dspy.m{n}", oldest_wait_seconds=61.0 + n) for n in range(8)]
    (told,) = document(replace(LEDGER, outstanding=Outstanding(late, [])))["components"]["queues"]["detail"].split("; ")
    assert told.startswith("jobs of 8 queues have waited up to 68 s, longer than 60 s")


def test_who_went_is_named_where_nobody_works() -> None:
    """A frozen worker is to be found, not only replaced."""
    late = without_workers(replace(QUEUE, oldest_wait_seconds=31.0))
    found = document(replace(late, lost=[LostWorker("w9", "node-9", 4711, 1_700_000_000_000)]))
    workers = found["components"]["workers"]
    assert "the last one pid 4711 on node-9, heard of 2023-11-14T22:13:20.000Z" in workers["detail"]
    assert workers["gone"][0]["id"] == "w9"
