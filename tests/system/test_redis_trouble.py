"""Redis dies, hangs, fills up, turns read-only or cuts connections while workers run jobs on it."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis.exceptions import OutOfMemoryError, ReadOnlyError

from dspy_jobs import names
from dspy_jobs.settings import load_settings
from dspy_jobs.store import SyncStore, connect
from dspy_jobs.waiting import wait_until
from tests.conftest import ROOT
from tests.system.fleet import CONFIG, Fleet
from tests.system.own_redis import OwnRedis

pytestmark = pytest.mark.system

BATCH = [{"text": "0.3"}] * 160


@pytest.fixture
def own_redis() -> Iterator[OwnRedis]:
    """A Redis of the test's own."""
    with tempfile.TemporaryDirectory(prefix="dj-") as folder:
        own = OwnRedis(Path(folder))
        yield own
        own.end()


@pytest.fixture
def fleet(own_redis: OwnRedis, sandbox_url: str, tmp_path: Path) -> Iterator[Fleet]:
    """Workers on the test's own Redis."""
    config = tmp_path / "dspy-jobs.toml"
    config.write_text(f'[models.sandbox]\nmodel = "openai/sandbox"\nbase_url = "{sandbox_url}/v1"\n{CONFIG}')
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("DSPY_JOBS_")}
    environ = {"REDIS_URL": own_redis.url, "DSPY_JOBS_CONFIG": str(config)}
    settings = load_settings(config, environ)
    store = SyncStore(connect(own_redis.url))
    fleet = Fleet(settings, store, {**inherited, **environ, "PYTHONPATH": str(ROOT)}, tmp_path / "worker.log")
    yield fleet
    fleet.end()


def running_batch(fleet: Fleet) -> str:
    """A batch of which eight jobs run and many wait."""
    fleet.start()
    batch = fleet.submit_batch("sleepy", BATCH)
    assert wait_until(lambda: fleet.count(batch, "running") == 8, 30)
    return batch


def assert_all_ran_once(fleet: Fleet, batch: str) -> None:
    """Every job succeeded in its first attempt, and the worker that began still lives."""
    assert fleet.wait_for_batch(batch, 120)["succeeded"] == str(len(BATCH))
    assert {job.fields["attempt"] for job in fleet.jobs_of(batch)} == {"1"}
    assert fleet.processes[0].poll() is None


def test_cut_connections_run_nothing_twice(fleet: Fleet) -> None:
    """Every connection is cut, twice, while jobs run and wait: the worker goes on and no job starts again."""
    batch = running_batch(fleet)
    for _ in range(2):
        before = fleet.count(batch, "succeeded")
        for kind in ("normal", "pubsub"):
            fleet.store.redis.client_kill_filter(_type=kind, skipme=True)
        assert wait_until(lambda before=before: fleet.count(batch, "succeeded") > before + 8, 30)  # type: ignore[misc]
    assert_all_ran_once(fleet, batch)


def test_a_redis_that_hangs_is_waited_for(fleet: Fleet, own_redis: OwnRedis) -> None:
    """Redis stops answering for longer than clients wait and leases run: nothing is lost or started again."""
    batch = running_batch(fleet)
    own_redis.signal(signal.SIGSTOP)
    try:
        assert wait_until(lambda: "redis_unavailable" in fleet.log(), 30)
    finally:
        own_redis.signal(signal.SIGCONT)
    assert_all_ran_once(fleet, batch)


def test_a_crashed_redis_comes_back_with_every_job(fleet: Fleet, own_redis: OwnRedis) -> None:
    """Redis is killed and started again from its append-only file: the worker lives, every job runs once."""
    batch = running_batch(fleet)
    own_redis.kill()
    assert wait_until(lambda: "redis_unavailable" in fleet.log(), 30)
    own_redis.start()
    assert_all_ran_once(fleet, batch)
    assert fleet.results(batch) == len(BATCH)


def test_lost_messages_are_found(fleet: Fleet) -> None:
    """Every message of a running batch vanishes: its jobs are found by the ledger and run."""
    batch = running_batch(fleet)
    fleet.store.redis.delete(names.queue_list(names.queue("sandbox"), 6))
    assert_all_ran_once(fleet, batch)


@pytest.mark.parametrize("trouble", ["full", "read-only"])
def test_a_redis_that_takes_no_writes_loses_nothing(fleet: Fleet, trouble: str) -> None:
    """A full Redis, or a replica after a failover, refuses new jobs; workers wait, and go on once it takes writes."""
    batch = running_batch(fleet)
    client = fleet.store.redis
    _refuse_writes(client, trouble)
    try:
        with pytest.raises((OutOfMemoryError, ReadOnlyError)):
            fleet.submit("echo", text="one more")
        assert wait_until(lambda: "redis_unavailable" in fleet.log(), 30)
    finally:
        _accept_writes(client)
    assert_all_ran_once(fleet, batch)


def _refuse_writes(client: object, trouble: str) -> None:
    run: Callable[..., object] = client.execute_command  # type: ignore[attr-defined]
    run(*(("CONFIG", "SET", "maxmemory", "1") if trouble == "full" else ("REPLICAOF", "127.0.0.1", "1")))


def _accept_writes(client: object) -> None:
    run: Callable[..., object] = client.execute_command  # type: ignore[attr-defined]
    run("CONFIG", "SET", "maxmemory", "0")
    run("REPLICAOF", "NO", "ONE")
