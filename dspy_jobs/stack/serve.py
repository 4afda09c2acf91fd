"""What `dspy-jobs up` does: the stack in this terminal, and where to find everything."""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import orjson
import structlog

from dspy_jobs.line_writer import LineWriter
from dspy_jobs.logs import configure_logging
from dspy_jobs.settings import Settings
from dspy_jobs.stack.inherited import inherited_environ
from dspy_jobs.stack.launch import run_stack
from dspy_jobs.stack.output import to_terminal
from dspy_jobs.stack.parts import Autoscale, Part, api_url, flower_url, parts_of, sandbox_url
from dspy_jobs.stack.ports import check_ports, free_port, load_with_ports
from dspy_jobs.stack.refusals import PartDied

log = structlog.get_logger("stack")


@dataclass(frozen=True)
class Bounds:
    """How many workers an autoscaler may run; `high` None means as many as the ScaledObject says and cores carry."""

    low: int = 1
    high: int | None = None


def serve(workers: int | Bounds, flower: bool) -> int:
    """Run the stack until it is told to stop; answers the exit code. Bounds instead of a number have it autoscaled.

    Raises:
        ConfigurationError: the configuration is wrong.
        CannotStart: a port or the data folder is in use, or there is no Redis.
    """
    began = time.monotonic()
    settings = load_with_ports(inherited_environ())
    parts = parts_of(settings, _autoscale(settings, workers) if isinstance(workers, Bounds) else workers, flower)
    check_ports(settings, parts)
    # A terminal that stands still (Ctrl-S, a pager) must not keep the stack from watching over its processes.
    terminal = LineWriter(sys.stdout)
    configure_logging(settings, "stack", lines=terminal)

    async def welcome_and_wait() -> int:
        addresses = _addresses(settings, parts)
        log.info("ready", seconds=round(time.monotonic() - began, 1), **addresses)
        if settings.log_format == "console":
            terminal.msg(_welcome(settings, addresses))
        await asyncio.Event().wait()
        return 0

    try:
        return run_stack(settings, parts, to_terminal(terminal), welcome_and_wait) or 0
    except PartDied as death:
        log.error("stack_failed", reason=str(death), last_lines="\n".join(death.last_lines))
        return 2 if death.is_misconfigured else 1


def _autoscale(settings: Settings, bounds: Bounds) -> Autoscale:
    return Autoscale(bounds.low, bounds.high, settings.autoscaler.metrics_port or free_port())


def _addresses(settings: Settings, parts: list[Part]) -> dict[str, str | Path]:
    running = {part.name: part.health_url or "" for part in parts}
    return {
        "api": api_url(settings),
        "docs": f"{api_url(settings)}/docs",
        **({"flower": flower_url(settings)} if "flower" in running else {}),
        **({"sandbox": sandbox_url(settings)} if "sandbox" in running else {}),
        **({"metrics": running["autoscaler"]} if running.get("autoscaler") else {}),
        "data": settings.data_dir,
    }


def _welcome(settings: Settings, addresses: dict[str, str | Path]) -> str:
    lines = [f"  {name:<8} {address}" for name, address in addresses.items()]
    body = orjson.dumps({"model": settings.default_model, "input": "Why is the sky blue?"}).decode()
    request = f"curl -H 'Content-Type: application/json' {api_url(settings)}/v1/predict -d '{body}'"
    return "\n".join(["", *lines, "", "  Try it:", f"  {request}", "", "  Ctrl-C stops everything.", ""])
