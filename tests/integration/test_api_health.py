"""Health over a real Redis: what it tells, and that it tells it while a dependency takes the line and says nothing."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from api.schemas import Alive, Health, Ready
from dspy_jobs import names
from dspy_jobs.cli import app
from dspy_jobs.settings import ApiSettings, BreakerSettings
from dspy_jobs.states import WaitReason
from dspy_jobs.store import SyncStore, connect
from dspy_jobs.store.gates import close_gate, report_calls
from dspy_jobs.store.workers import renew_worker
from dspy_jobs.waiting import wait_until
from tests.integration.conftest import running_api
from tests.integration.test_api_process import describe
from tests.system.own_redis import OwnRedis

ENDPOINTS = {"/health": Health, "/health/ready": Ready, "/ready": Ready, "/health/live": Alive}

PATIENT = {"DSPY_JOBS_API_HEALTH_SECONDS": "0.4"}


@contextmanager
def black_hole() -> Iterator[tuple[str, socket.socket]]:
    """The address of a server that takes every line and never says a word; and its listening socket."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as silent:
        yield f"redis://127.0.0.1:{silent.getsockname()[1]}/0", silent


def lines_of(listener: socket.socket) -> int:
    """How many lines were opened to a listening socket that nobody has taken yet."""
    listener.setblocking(False)
    taken = []
    while True:
        try:
            taken.append(listener.accept()[0])
        except BlockingIOError:
            break
    for line in taken:
        line.close()
    return len(taken)


def test_every_endpoint_answers_as_described(api: httpx.Client, store: SyncStore) -> None:
    """Each answer of a service at rest is 200 and has the members of its schema; every part of it is healthy."""
    store.run(renew_worker("w1", 60, b'{"concurrency": 4, "host": "here", "lease_seconds": 60}', ["dspy.sandbox"]))
    for path, schema in ENDPOINTS.items():
        answer = api.get(path)
        assert answer.status_code == 200, answer.text
        schema.model_validate_json(answer.content)
    found = api.get("/health").json()
    assert (found["status"], found["problems"]) == ("healthy", [])
    assert found["components"]["redis"]["latency_ms"] > 0
    assert found["components"]["cache"]["shares_redis"] is True
    (worker,) = found["components"]["workers"]["workers"]
    assert (worker["id"], worker["host"]) == ("w1", "here")
    assert worker["heartbeat_age_seconds"] < 60
    store.redis.zrem(names.WORKERS, "w1")


def test_a_fleet_of_none_is_ready_once_programs_are_described(redis_url: str, store: SyncStore) -> None:
    """Scaled to zero the API takes jobs; before anybody has said which programs there are it does not."""
    with running_api(redis_url) as api:
        assert api.get("/ready").status_code == 503
        found = api.get("/health")
        assert (found.status_code, found.json()["components"]["programs"]["status"]) == (503, "unhealthy")
        assert found.headers["retry-after"]
        describe(store.redis)
        assert wait_until(lambda: api.get("/ready").status_code == 200, 20)
        assert api.get("/health").json()["components"]["workers"]["live"] == 0


def test_top_reads_what_the_api_writes(api: httpx.Client) -> None:
    """The screen and its JSON are made of real answers: health, and numbers as Prometheus gets them."""
    line = ["--url", str(api.base_url), "top", "--once", "--interval", "0.1"]
    shown = CliRunner().invoke(app, line, catch_exceptions=False)
    assert (shown.exit_code, "HEALTHY" in shown.stdout, "dspy.sandbox" in shown.stdout) == (0, True, True)
    plain = json.loads(CliRunner().invoke(app, [*line, "--json"], catch_exceptions=False).stdout)
    assert plain["components"]["programs"]["described"] == 2
    assert plain["rates"]["seconds"] > 0, "the numbers could be read"


def test_a_closed_gate_and_an_open_circuit_are_told(api: httpx.Client, store: SyncStore) -> None:
    """The service is degraded, which is no 503, and the problems say what to do."""
    store.run(close_gate("dspy.sandbox", WaitReason.PAUSED))
    store.run(report_calls("sandbox", BreakerSettings(), 0, 1, fatal=True))
    answer = api.get("/health")
    found = answer.json()
    assert (answer.status_code, found["status"]) == (200, "degraded")
    assert "dspy-jobs queue resume dspy.sandbox" in found["components"]["queues"]["detail"]
    assert found["components"]["circuits"]["models"]["sandbox"] == "open"
    store.redis.hset(names.queue_gates("dspy.sandbox"), "circuit_open", "1")
    assert api.get("/health").json()["components"]["circuits"]["models"]["sandbox"] == "half_open"


def test_a_program_that_fails_always_is_told_with_its_codes(api: httpx.Client, store: SyncStore) -> None:
    """All else is well: who deployed a bug learns of it here, though it needs two looks to tell a growth."""
    api.get("/health")
    for field in ("sandbox||buggy|jobs", "sandbox||buggy|failed", "error|sandbox|program_error"):
        store.redis.hincrby(names.COUNTED, field, 12)
    assert wait_until(lambda: api.get("/health").json()["components"]["failures"]["status"] == "degraded", 20)
    found = api.get("/health").json()["components"]["failures"]
    assert "12 of 12 jobs of buggy on sandbox failed" in found["detail"]
    assert found["programs"][0]["codes"] == {"program_error": 12}


def test_a_worker_that_went_without_notice_is_named(api: httpx.Client, store: SyncStore) -> None:
    """With where it was: killed or frozen, it is in no list of the living; one that drained is no news."""
    said = b'{"host": "there", "pid": 4711, "lease_seconds": 1}'
    store.run(renew_worker("w-gone", 1, said, ["dspy.sandbox"]))
    store.run(renew_worker("w-drained", 1, said.replace(b"1}", b'1, "draining": true}'), ["dspy.sandbox"]))
    assert wait_until(lambda: api.get("/health").json()["components"]["workers"]["gone"], 20)
    assert wait_until(lambda: not store.redis.zrange(names.WORKERS, 0, -1), 20)
    (gone,) = api.get("/health").json()["components"]["workers"]["gone"]
    assert (gone["id"], gone["host"], gone["pid"]) == ("w-gone", "there", 4711)
    store.redis.delete(names.LOST_WORKERS)


def asked(api: httpx.Client) -> dict[str, httpx.Response]:
    """One answer of each endpoint."""
    return {path: api.get(path) for path in ENDPOINTS}


def test_a_redis_that_hangs_holds_nobody_up(own_redis: OwnRedis) -> None:
    """While Redis is stopped every answer comes; it names Redis, after no longer than the setting, with what was known.

    Redis goes on only after all answers have come, so none of them can have waited for it. Hundreds who ask open no
    hundreds of lines.
    """
    with connect(own_redis.url) as client, running_api(own_redis.url) as api:
        describe(client)
        client.config_set("maxmemory-policy", "noeviction")
        assert wait_until(lambda: api.get("/health").status_code == 200, 20)
        before = client.info("stats")["total_connections_received"]
        own_redis.signal(signal.SIGSTOP)
        answers = asked(api)
        with ThreadPoolExecutor(8) as pool:
            crowd = list(pool.map(lambda _: api.get("/health").status_code, range(200)))
        own_redis.signal(signal.SIGCONT)
        assert {path: answer.status_code for path, answer in answers.items()} == {
            "/health": 503, "/health/ready": 503, "/ready": 503, "/health/live": 200,
        }  # fmt: skip
        assert set(crowd) == {503}
        assert_told_as_hung(answers["/health"].json())
        assert "has not answered" in answers["/ready"].json()["detail"]
        assert wait_until(lambda: api.get("/ready").status_code == api.get("/health").status_code == 200, 20)
        opened = client.info("stats")["total_connections_received"] - before
        assert opened < 20, "the looks that were given up, and what else the process has"


def test_a_full_redis_makes_the_api_not_ready(own_redis: OwnRedis) -> None:
    """It answers, and every job that is sent is refused: a load balancer must not be told that all is well."""
    with connect(own_redis.url) as client, running_api(own_redis.url) as api:
        describe(client)
        assert wait_until(lambda: api.get("/ready").status_code == 200, 20)
        client.config_set("maxmemory", "1mb")
        try:
            answer = api.get("/ready")
            assert (answer.status_code, "is full (maxmemory)" in answer.json()["detail"]) == (503, True)
        finally:
            client.config_set("maxmemory", "0")
        assert api.get("/ready").status_code == 200


def assert_told_as_hung(found: dict[str, Any]) -> None:
    """The document says that Redis hangs, with the numbers from before."""
    assert found["status"] == found["components"]["redis"]["status"] == "unhealthy"
    assert "has not answered for" in found["components"]["redis"]["detail"]
    assert found["components"]["programs"]["status"] == "unknown"
    assert found["components"]["programs"]["described"] == 1
    assert found["components"]["programs"]["as_of"]


def test_a_cache_that_hangs_degrades_and_is_asked_once(redis_url: str, store: SyncStore) -> None:
    """A server that takes the line and says nothing: each answer comes, is no 503, and all share one line to it.

    The first waits as long as the setting says, which by default leaves room below a tenth of a second.
    """
    describe(store.redis)
    with black_hole() as (url, listener), running_api(redis_url, CACHE_URL=url, **PATIENT) as api:
        assert "has not answered for 0.4" in api.get("/health").json()["components"]["cache"]["detail"]
        for _ in range(100):
            answer = api.get("/health")
            assert (answer.status_code, answer.json()["components"]["cache"]["status"]) == (200, "degraded")
            assert api.get("/ready").status_code == 200
        assert lines_of(listener) < 20
    assert ApiSettings().health_seconds < 0.1


@pytest.mark.parametrize("path", ENDPOINTS)
def test_unknown_parameters_are_refused(api: httpx.Client, path: str) -> None:
    """As everywhere."""
    assert api.get(path, params={"verbose": "1"}).status_code == 400
