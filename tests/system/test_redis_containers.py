"""The Redis containers' own commands and configuration, run with the Redis of this machine."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
import yaml

from dspy_jobs.redis_server import find_redis_server
from dspy_jobs.waiting import wait_until
from tests.cluster import container, named
from tests.conftest import ROOT

pytestmark = pytest.mark.system

PASSWORD = "of4test"
#: What each server must have taken from its configuration.
LEDGER = {"maxmemory-policy": "noeviction", "appendonly": "yes", "appendfsync": "everysec", "maxmemory": "805306368"}
CACHE = {"maxmemory-policy": "allkeys-lru", "appendonly": "no", "maxmemory": "268435456"}


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path, for a Unix socket's may have 107 bytes at most; a `redis-server` is in it."""
    with tempfile.TemporaryDirectory(prefix="dj-") as name:
        (Path(name) / "redis-server").symlink_to(find_redis_server())
        yield Path(name)


@contextmanager
def _running(command: list[str], folder: Path, password: str | None) -> Iterator[redis.Redis]:
    environ = {"PATH": f"{folder}:{os.defpath}", **({"REDIS_PASSWORD": password} if password else {})}
    process = subprocess.Popen(command, cwd=folder, env=environ, stdout=subprocess.DEVNULL)
    client = redis.Redis(unix_socket_path=str(folder / "s"), password=password, decode_responses=True)
    try:
        assert wait_until(lambda: (folder / "s").exists() or process.poll() is not None, 20)
        assert wait_until(lambda: _answers(client), 20)
        yield client
        assert client.info("server")["process_id"] == process.pid, "it is the process that gets the signals"
    finally:
        client.close()
        process.terminate()
        assert process.wait(20) == 0


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


@pytest.mark.parametrize(
    ("kind", "name", "expected"), [("StatefulSet", "redis", LEDGER), ("Deployment", "cache", CACHE)]
)
def test_in_the_cluster(folder: Path, kind: str, name: str, expected: dict[str, str]) -> None:
    """The pod's command takes the configuration and, on standard input, the password, without which nobody gets in."""
    text = named("ConfigMap", name)["data"]["redis.conf"].replace("dir /data", f"dir {folder}")
    (folder / "redis.conf").write_text(f"{text}\nport 0\nunixsocket {folder / 's'}\n")
    only = container(named(kind, name))
    script = only["args"][0].replace("/etc/redis/redis.conf", str(folder / "redis.conf"))
    assert PASSWORD not in script
    with _running([*only["command"], script], folder, PASSWORD) as client:
        assert {key: client.config_get(key)[key] for key in expected} == expected
        with redis.Redis(unix_socket_path=str(folder / "s")) as stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()


@pytest.mark.parametrize(("name", "expected"), [("redis", LEDGER), ("cache", CACHE)])
def test_in_compose(folder: Path, name: str, expected: dict[str, str]) -> None:
    """The service's command is one Redis takes."""
    command = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"][name]["command"]
    with _running([*command, "--port", "0", "--unixsocket", str(folder / "s")], folder, None) as client:
        assert {key: client.config_get(key)[key] for key in expected} == expected
