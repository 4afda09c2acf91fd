"""What tests share: a private Redis, a sandbox model, settings for both. Every xdist worker has its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from dspy_jobs import names
from dspy_jobs.redis_server import embedded_redis
from dspy_jobs.redis_url import embedded_socket
from dspy_jobs.settings import Settings, load_settings
from dspy_jobs.store import SyncStore, connect

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def redis_server() -> Iterator[str]:
    """The address of a Redis of this process's own."""
    # Not pytest's tmp_path: a Unix socket's path may have 107 bytes at most.
    with tempfile.TemporaryDirectory(prefix="dj-") as folder, embedded_redis(Path(folder)):
        yield f"unix://{embedded_socket(Path(folder))}?db=0"


@pytest.fixture
def redis_url(redis_server: str) -> Iterator[str]:
    """The address of an empty Redis. Afterwards every key must have a lifetime, be at work or be permanent."""
    client = connect(redis_server)
    client.flushall()
    yield redis_server
    lasting = [key for key in keys_without_lifetime(client) if not is_permanent(key)]
    client.close()
    assert not lasting, f"keys without a lifetime: {lasting}"


@pytest.fixture
def store(redis_url: str) -> Iterator[SyncStore]:
    """A store over an empty Redis."""
    with connect(redis_url) as client:
        yield SyncStore(client)


def keys_without_lifetime(client: redis.Redis) -> list[str]:
    """Names of all keys that would stay for ever, but for those of jobs, batches, flights and books still in use."""
    keys = [key.decode() for key in client.scan_iter(count=1000) if client.ttl(key) == -1]
    return [key for key in keys if not is_at_work(client, key)]


def is_at_work(client: redis.Redis, key: str) -> bool:
    """Whether the key is of a job or batch that has not ended, an upload that is none yet, a flight, or open books."""
    if books := re.match(r"dj:costs:(\d{8})$", key):
        return bool(client.sismember(names.OPEN_BOOKS, books[1]))
    if flight := re.match(r"dj:flight:(\w+)", key):
        return is_flying(client, flight[1])
    found = re.match(r"dj:((?:job|batch)_\w+)", key)
    if found is None:
        return False
    status = client.hget(f"dj:{found[1]}", "status")
    is_upload = client.zscore(names.STAGING, found[1]) is not None
    return is_upload or status in (b"queued", b"running", b"in_progress", b"paused", b"canceling")


def is_flying(client: redis.Redis, key: str) -> bool:
    """Whether a flight's leader runs or waits for another worker, or its followers have not all been sent."""
    leader = (client.get(names.flight(key)) or b"").decode()
    status, leads = client.hmget(names.job(leader), "status", "leads")
    return (status in (b"queued", b"running") and leads == key.encode()) or client.hexists(names.LANDING, key)


def is_permanent(key: str) -> bool:
    """Whether a key may stay: on the list in `names`, a queue's, or Celery's and kombu's own."""
    owned_by_kombu = ("_kombu.", "unacked", "dspy.")
    while_in_work = (":held", ":cancel", ":parked")
    return (
        key in names.PERMANENT
        or key.startswith((names.PERMANENT_PREFIX, *owned_by_kombu))
        or key.endswith(while_in_work)
    )


@pytest.fixture(scope="session")
def sandbox_url() -> Iterator[str]:
    """The address of a sandbox model server of this process's own."""
    server = subprocess.Popen(
        [sys.executable, "-m", "sandbox", "--port", "0"], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert server.stdout is not None
    line = server.stdout.readline()
    yield line.split()[-1].strip()
    server.terminate()
    server.wait(timeout=10)
    server.stdout.close()


@pytest.fixture
def write_config(tmp_path: Path, sandbox_url: str, redis_url: str) -> Callable[..., Settings]:
    """Write a `dspy-jobs.toml` with the sandbox as its model and read it; sections come as TOML text."""

    def write(text: str = "", **environ: Any) -> Settings:
        path = tmp_path / "dspy-jobs.toml"
        model = f'[models.sandbox]\nmodel = "openai/sandbox"\nbase_url = "{sandbox_url}/v1"\n'
        prices = "input_cost_per_1k = 0.001\noutput_cost_per_1k = 0.002\n"
        path.write_text(f"{model}{prices}\n{text}\n")
        return load_settings(path, {"REDIS_URL": redis_url, **environ})

    return write


@pytest.fixture
def child_environ(redis_url: str) -> dict[str, str]:
    """The environment of a child process that uses the test's Redis."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("DSPY_JOBS_")}
    return {**inherited, "REDIS_URL": redis_url, "PYTHONPATH": str(ROOT)}
