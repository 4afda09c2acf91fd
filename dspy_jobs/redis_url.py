"""Where Redis is: the address in the settings, or the embedded server's socket; and the same in Celery's spelling."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

from dspy_jobs.settings import Settings

#: Longest path the kernel takes for a Unix socket, less one for the closing NUL.
_LONGEST_SOCKET_PATH = 107

#: Database of the response cache where it has no Redis of its own: what is thrown away lies apart from what is not.
_CACHE_DATABASE = 1


def embedded_socket(data_dir: Path) -> Path:
    """The embedded Redis's socket: in the data folder, or in the system's temporary folder if that path is too long."""
    wanted = data_dir / "redis.sock"
    if len(str(wanted).encode()) <= _LONGEST_SOCKET_PATH:
        return wanted
    digest = hashlib.sha256(str(data_dir).encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"dspy-jobs-{digest}.sock"


def redis_url(settings: Settings) -> str:
    """The address of queue, jobs and results."""
    return settings.redis_url or f"unix://{embedded_socket(settings.data_dir)}?db=0"


def is_embedded(settings: Settings) -> bool:
    """Whether Redis is the one that `dspy-jobs up` runs on the data folder, which it also names by an address."""
    return redis_url(settings).partition("?")[0] == f"unix://{embedded_socket(settings.data_dir)}"


def cache_url(settings: Settings) -> str:
    """The address of the response cache: its own, else database 1 of the Redis of the queue."""
    return settings.cache.url or _with_database(redis_url(settings), _CACHE_DATABASE)


def _with_database(url: str, database: int) -> str:
    """The same address with another database; everything else stays as it is spelled."""
    address, _, query = url.partition("?")
    others = [part for part in query.split("&") if part and not part.startswith("db=")]
    if not url.startswith("unix://"):
        scheme, _, rest = address.partition("://")
        place = rest.partition("/")[0]
        return f"{scheme}://{place}/{database}" + ("?" + "&".join(others) if others else "")
    return f"{address}?" + "&".join([*others, f"db={database}"])


def celery_url(url: str) -> str:
    """The same address as kombu and Celery spell it: they know Unix sockets as `redis+socket`/`socket`."""
    if not url.startswith("unix://"):
        return url
    path, _, query = url.removeprefix("unix://").partition("?")
    database = next((part[3:] for part in query.split("&") if part.startswith("db=")), "0")
    return f"redis+socket://{path}?virtual_host={database}"
