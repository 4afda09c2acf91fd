"""The processes a stack is made of, in the order they start."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from urllib.parse import urlsplit

from dspy_jobs.redis_url import celery_url, redis_url
from dspy_jobs.settings import Settings

#: Seconds a process gets beyond its own promise to stop before it is killed.
_GRACE_SECONDS = 5.0
#: The API lets answers under way come to their end for ten seconds.
_API_STOP_SECONDS = 10 + _GRACE_SECONDS


@dataclass(frozen=True)
class Part:
    """A process: what to run, where it says that it is up, and how it is stopped."""

    name: str
    command: tuple[str, ...]
    stop_seconds: float
    #: Parts with a lower number stop first; those with the same one stop together.
    stop_order: int
    #: Answers 200 once the process does its work; workers serve no HTTP and announce themselves in Redis.
    health_url: str | None = None
    #: Variables of its own: what a command line, which everyone on the machine can read, must not hold.
    environ: Mapping[str, str] = field(default_factory=dict)


def parts_of(settings: Settings, workers: int, flower: bool) -> list[Part]:
    """What these settings need besides Redis, in the order they start."""
    return [
        *([_sandbox(settings)] if uses_sandbox(settings) else []),
        *(_worker(settings, number, workers) for number in range(1, workers + 1)),
        _api(settings),
        *([_flower(settings)] if flower else []),
    ]


def uses_sandbox(settings: Settings) -> bool:
    """Whether any model's address is the sandbox's."""
    return any(_is_local(model.base_url, settings.sandbox.port) for model in settings.models.values())


def api_url(settings: Settings) -> str:
    """The API's address as seen from this machine."""
    host = settings.api.host
    if _is_wildcard(host):
        host = "127.0.0.1"
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.api.port}"


def sandbox_url(settings: Settings) -> str:
    """The sandbox's address."""
    return f"http://127.0.0.1:{settings.sandbox.port}"


def flower_url(settings: Settings) -> str:
    """Flower's address."""
    return f"http://127.0.0.1:{settings.flower.port}"


def _is_wildcard(host: str) -> bool:
    try:
        return ip_address(host).is_unspecified
    except ValueError:
        return not host


def _is_local(url: str | None, port: int) -> bool:
    parsed = urlsplit(url or "")
    if parsed.port != port or not parsed.hostname:
        return False
    try:
        return ip_address(parsed.hostname).is_loopback
    except ValueError:
        return parsed.hostname == "localhost"


def _sandbox(settings: Settings) -> Part:
    command = (sys.executable, "-m", "sandbox", "--port", str(settings.sandbox.port))
    return Part("sandbox", command, _GRACE_SECONDS, 3, f"{sandbox_url(settings)}/health")


def _worker(settings: Settings, number: int, of: int) -> Part:
    name = "worker" if of == 1 else f"worker-{number}"
    drain = settings.worker.drain_seconds + _GRACE_SECONDS
    return Part(name, (sys.executable, "-m", "worker", name), drain, 1)


def _api(settings: Settings) -> Part:
    return Part("api", (sys.executable, "-m", "api"), _API_STOP_SECONDS, 0, f"{api_url(settings)}/ready")


def _flower(settings: Settings) -> Part:
    command = (
        sys.executable, "-m", "celery", "flower", "--address=127.0.0.1", f"--port={settings.flower.port}",
        "--logging=error", "--purge-offline-workers=300",
    )  # fmt: skip
    broker = {"BROKER_URL": celery_url(redis_url(settings))}
    return Part("flower", command, _GRACE_SECONDS, 2, f"{flower_url(settings)}/healthcheck", environ=broker)
