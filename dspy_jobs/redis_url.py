"""Where Redis is: the address in the settings, or the embedded server's socket; and the same in Celery's spelling."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

from dspy_jobs.settings import Settings

#: Longest path the kernel takes for a Unix socket, less one for the closing NUL.
_LONGEST_SOCKET_PATH = 107


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


def celery_url(url: str) -> str:
    """The same address as kombu and Celery spell it: they know Unix sockets as `redis+socket`/`socket`."""
    if not url.startswith("unix://"):
        return url
    path, _, query = url.removeprefix("unix://").partition("?")
    database = next((part[3:] for part in query.split("&") if part.startswith("db=")), "0")
    return f"redis+socket://{path}?virtual_host={database}"
