"""Facts of the machine that figures were made on."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

from dspy_jobs.redis_server import find_redis_server

_PACKAGES = ("dspy", "celery", "kombu", "redis", "fastapi", "uvicorn")


def facts() -> dict[str, str]:
    """Cores, processor, versions; the same for the whole run."""
    server = subprocess.run([str(find_redis_server()), "--version"], capture_output=True, text=True, check=True)
    found = dict(part.partition("=")[::2] for part in server.stdout.split() if "=" in part)
    return {
        "cores": str(len(os.sched_getaffinity(0))),
        "processor": _processor(),
        "python": platform.python_version(),
        **{name: version(name) for name in _PACKAGES},
        "redis-server": found.get("v", "unknown"),
    }


def load() -> str:
    """The load average of one, five and fifteen minutes: above the number of cores, others take their share."""
    return " ".join(f"{number:.1f}" for number in os.getloadavg())


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
