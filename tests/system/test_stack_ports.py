"""Which ports a stack takes and which parts it needs."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from stack_process import REPOSITORY

from dspy_jobs.settings import Settings, load_settings
from dspy_jobs.stack.parts import api_url, parts_of, uses_sandbox
from dspy_jobs.stack.ports import check_ports, free_port, load_with_ports
from dspy_jobs.stack.refusals import CannotStart

_CONFIG = {"DSPY_JOBS_CONFIG": str(REPOSITORY / "dspy-jobs.toml")}


def test_port_zero_becomes_a_free_port_everywhere() -> None:
    """A sandbox port of 0 is resolved once, so that server and models agree on it."""
    settings = load_with_ports({**_CONFIG, "DSPY_JOBS_SANDBOX_PORT": "0", "DSPY_JOBS_API_PORT": "0"})
    assert settings.sandbox.port != 0
    assert settings.api.port != 0
    assert uses_sandbox(settings)


def test_taken_ports_move_only_when_asked() -> None:
    """The demo moves away from a port in use; `up` keeps it, to refuse it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        environ = {**_CONFIG, "DSPY_JOBS_SANDBOX_PORT": str(port)}
        assert load_with_ports(environ).sandbox.port == port
        moved = load_with_ports(environ, move_taken=True)
    assert moved.sandbox.port != port
    assert str(moved.sandbox.port) in (moved.models["sandbox"].base_url or "")


def test_only_ports_of_parts_that_run_are_looked_at() -> None:
    """A taken Flower port does not matter to a stack without Flower."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports = {f"DSPY_JOBS_{part}_PORT": str(free_port()) for part in ("API", "SANDBOX")}
        flower = {"DSPY_JOBS_FLOWER_PORT": str(taken.getsockname()[1])}
        settings = load_settings(environ={**_CONFIG, **ports, **flower})
        check_ports(settings, parts_of(settings, 1, flower=False))
        with pytest.raises(CannotStart, match="DSPY_JOBS_FLOWER_PORT"):
            check_ports(settings, parts_of(settings, 1, flower=True))


def test_workers_of_one_machine_share_no_port() -> None:
    """Whatever port is configured for a worker, each of a stack gets a free one."""
    settings = load_settings(environ={**_CONFIG, "DSPY_JOBS_WORKER_METRICS_PORT": "9101"})
    workers = [part for part in parts_of(settings, 2, flower=False) if part.workers]
    assert [part.environ for part in workers] == [{"DSPY_JOBS_WORKER_METRICS_PORT": "0"}] * 2


def test_two_parts_on_one_port_are_named() -> None:
    """Two settings with the same port are a mistake even while the port is free."""
    port = str(free_port())
    settings = load_settings(environ={**_CONFIG, "DSPY_JOBS_API_PORT": port, "DSPY_JOBS_SANDBOX_PORT": port})
    with pytest.raises(CannotStart, match=r"DSPY_JOBS_SANDBOX_PORT and DSPY_JOBS_API_PORT are both"):
        check_ports(settings, parts_of(settings, 1, flower=False))


@pytest.mark.parametrize(
    ("base_url", "needed"),
    [
        ("http://127.0.0.1:8090/v1", True),
        ("http://localhost:8090/v1", True),
        ("http://[::1]:8090/v1", True),
        ("http://127.0.0.1:11434/v1", False),
        ("http://models.internal:8090/v1", False),
        (None, False),
    ],
)
def test_the_sandbox_runs_only_where_a_model_points_at_it(base_url: str | None, needed: bool) -> None:
    """A sandbox is part of the stack exactly if some model's address is this machine's sandbox port."""
    models = {"m": {"model": "openai/m", "base_url": base_url}}
    settings = Settings(models=models, default_model="m")
    assert ("sandbox" in {part.name for part in parts_of(settings, 1, flower=False)}) is needed


@pytest.mark.parametrize(
    ("host", "url"),
    [("0.0.0.0", "http://127.0.0.1:80"), ("::1", "http://[::1]:80"), ("box.local", "http://box.local:80")],
)
def test_the_api_is_shown_where_this_machine_reaches_it(host: str, url: str) -> None:
    """An API that listens on every address is reached on the loopback one."""
    assert api_url(Settings(api={"host": host, "port": 80})) == url


def test_no_command_line_holds_the_address_of_redis() -> None:
    """Everyone on the machine can read command lines, and the address may hold a password."""
    settings = Settings(redis_url="redis://:hidden@127.0.0.1:6379/0", data_dir=Path(os.devnull))
    assert not any("hidden" in word for part in parts_of(settings, 1, flower=True) for word in part.command)
