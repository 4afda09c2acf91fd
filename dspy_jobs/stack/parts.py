"""The processes a stack is made of, in the order they start."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from dspy_jobs.addresses import is_loopback, is_wildcard
from dspy_jobs.settings import Settings

#: Workers of one machine cannot share a port, so each takes a free one and says in Redis which.
WORKER_ENVIRON = {"DSPY_JOBS_WORKER_METRICS_PORT": "0"}

#: Seconds a process gets beyond its own promise to stop before it is killed.
_GRACE_SECONDS = 5.0
#: The API lets answers under way come to their end for ten seconds.
_API_STOP_SECONDS = 10 + _GRACE_SECONDS
#: Flower saves what it remembers, which takes seconds where that is much and the machine is busy.
_FLOWER_STOP_SECONDS = 10 + _GRACE_SECONDS


@dataclass(frozen=True)
class Part:
    """A process: what to run, where it says that it is up, and how it is stopped."""

    name: str
    command: tuple[str, ...]
    stop_seconds: float
    #: Parts with a lower number stop first; those with the same one stop together.
    stop_order: int
    #: Answers 200 once the process does its work.
    health_url: str | None = None
    #: Workers it is or starts; they serve no HTTP and announce themselves in Redis.
    workers: int = 0
    #: Whether it does its work once and ends.
    runs_once: bool = False
    #: Variables of its own: what a command line, which everyone on the machine can read, must not hold.
    environ: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Autoscale:
    """As many workers as a ScaledObject asks for, within these bounds."""

    low: int
    high: int | None
    """None means the ScaledObject's, but no more than there are cores."""
    metrics_port: int


def parts_of(settings: Settings, workers: int | Autoscale, flower: bool) -> list[Part]:
    """What these settings need besides Redis, in the order they start."""
    return [
        *([_sandbox(settings)] if uses_sandbox(settings) else []),
        *(_fixed_fleet(settings, workers) if isinstance(workers, int) else _scaled_fleet(settings, workers)),
        _api(settings),
        *([_flower(settings)] if flower else []),
    ]


def uses_sandbox(settings: Settings) -> bool:
    """Whether any model's address is the sandbox's."""
    return any(_is_local(model.base_url, settings.sandbox.port) for model in settings.models.values())


def api_url(settings: Settings) -> str:
    """The API's address as seen from this machine."""
    return _url(settings.api.host, settings.api.port)


def sandbox_url(settings: Settings) -> str:
    """The sandbox's address."""
    return f"http://127.0.0.1:{settings.sandbox.port}"


def flower_url(settings: Settings) -> str:
    """Flower's address as seen from this machine."""
    return _url(settings.flower.host, settings.flower.port) + (settings.flower.url_prefix or "")


def _url(host: str, port: int) -> str:
    if is_wildcard(host):
        host = "127.0.0.1"
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _is_local(url: str | None, port: int) -> bool:
    parsed = urlsplit(url or "")
    return parsed.port == port and is_loopback(parsed.hostname or "")


def _sandbox(settings: Settings) -> Part:
    command = (sys.executable, "-m", "sandbox", "--port", str(settings.sandbox.port))
    return Part("sandbox", command, _GRACE_SECONDS, 3, f"{sandbox_url(settings)}/health")


def _fixed_fleet(settings: Settings, workers: int) -> list[Part]:
    drain = settings.worker.drain_seconds + _GRACE_SECONDS
    worker_names = ["worker"] if workers == 1 else [f"worker-{number}" for number in range(1, workers + 1)]
    return [
        Part(name, (sys.executable, "-m", "worker", name), drain, 1, workers=1, environ=WORKER_ENVIRON)
        for name in worker_names
    ]


def _scaled_fleet(settings: Settings, autoscale: Autoscale) -> list[Part]:
    """The autoscaler; where it may begin with no worker, somebody has to say first what the fleet can run."""
    high = f"--at-most={os.cpu_count() or 1}" if autoscale.high is None else f"--max={autoscale.high}"
    command = (
        sys.executable, "-m", "autoscaler", "run", "--backend=process", "--direct", f"--min={autoscale.low}", high,
        f"--metrics-port={autoscale.metrics_port}",
    )  # fmt: skip
    # It kills its workers itself when they take longer than they may, so it must get longer.
    drain = settings.worker.drain_seconds + 2 * _GRACE_SECONDS
    address = f"http://127.0.0.1:{autoscale.metrics_port}/metrics"
    scaler = Part("autoscaler", command, drain, 1, health_url=address, workers=autoscale.low)
    describe = Part("describe", (sys.executable, "-m", "worker.describe"), _GRACE_SECONDS, 1, runs_once=True)
    return [*([] if autoscale.low else [describe]), scaler]


def _api(settings: Settings) -> Part:
    return Part("api", (sys.executable, "-m", "api"), _API_STOP_SECONDS, 0, f"{api_url(settings)}/ready")


def _flower(settings: Settings) -> Part:
    health = f"{flower_url(settings)}/healthcheck"
    return Part("flower", (sys.executable, "-m", "worker.flower"), _FLOWER_STOP_SECONDS, 2, health)
