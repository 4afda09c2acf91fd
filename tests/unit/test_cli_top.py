"""`dspy-jobs top` and `dspy-jobs health` as a shell sees them."""

from __future__ import annotations

import io
import itertools
import json
import os
import sys
import threading
from typing import Any

import httpx
import pytest
from rich.console import Console

from dspy_jobs import Client
from dspy_jobs.cli.exit_codes import ExitCode
from dspy_jobs.top.drawing import drawing
from dspy_jobs.top.keys import quitting_by_key
from dspy_jobs.top.watching import Watch
from tests.unit.service_scene import Service, health, metrics
from tests.unit.test_cli_commands import refusing, run

QUICK = ("--interval", "0.1")


class Busy(Service):
    """A service that ends ten jobs between any two scrapes; interrupted after some."""

    def __init__(self, scrapes: int = 100) -> None:
        counts = itertools.count()

        def numbers() -> str:
            if (scrape := next(counts)) >= scrapes:
                raise KeyboardInterrupt
            return metrics(10 * scrape)

        super().__init__(numbers=numbers)


def test_one_frame_has_the_rates_of_one_interval() -> None:
    """A script gets what a person would see, and ends."""
    result = run(Busy(), "top", "--once", *QUICK)
    assert result.exit_code == ExitCode.OK
    assert "HEALTHY" in result.stdout
    assert "dspy.fast" in result.stdout
    assert "– jobs/s" not in result.stdout
    (line,) = run(Busy(), "top", "--once", "--json", *QUICK).stdout.splitlines()
    plain = json.loads(line)
    assert plain["rates"]["jobs_per_second"] > 0
    assert plain["components"]["workers"]["live"] == 2


def test_frames_follow_one_another_until_interrupted() -> None:
    """Away from a terminal each frame is printed; with --json each is a line. Ctrl-C is how it ends, and no failure."""
    result = run(Busy(scrapes=3), "top", "--json", *QUICK)
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert (result.exit_code, len(lines)) == (ExitCode.OK, 3)
    assert lines[0]["rates"]["jobs_per_second"] is None
    assert lines[2]["rates"]["jobs_per_second"] > 0
    assert run(Busy(scrapes=3), "top", *QUICK).stdout.count("HEALTHY") == 3


def test_a_refused_scrape_leaves_the_rest() -> None:
    """While the service cannot tell its numbers, as with Redis away, its health is shown all the same."""

    def handler(request: httpx.Request) -> httpx.Response:
        gone = health(redis={"status": "unhealthy", "detail": "cannot be reached: start it", "latency_ms": None})
        return Service(gone)(request) if request.url.path == "/health" else refusing("unavailable")(request)

    result = run(handler, "top", "--once", *QUICK)
    assert result.exit_code == ExitCode.OK
    assert "✗ redis" in result.stdout
    assert "– jobs/s" in result.stdout


def test_a_scrape_without_redis_is_no_reading() -> None:
    """The service's numbers are not in it: what comes after one must not look as if all of it had just happened."""
    counts = itertools.count(1)
    service = Service(numbers=lambda: f"dspy_redis_up 0\n{metrics(10 * next(counts))}")
    plain = json.loads(run(service, "top", "--once", "--json", *QUICK).stdout)
    assert plain["rates"]["jobs_per_second"] is None


def test_nobody_there_is_an_exit_code() -> None:
    """For scripts; whoever watches waits for it to come."""
    service = Service()
    service.is_gone = True
    for command in (("top", "--once"), ("health",)):
        result = run(service, *command)
        assert (result.exit_code, result.stdout) == (ExitCode.UNREACHABLE, "")


def test_a_service_that_goes_and_comes_back() -> None:
    """It is unreachable since its first silence, and its rates begin anew: none is made over its absence."""
    service = Busy()
    with Client("http://service", transport=httpx.MockTransport(service), retry_seconds=0) as client:
        watch = Watch(client)
        watch.look()
        watch.look()
        assert watch.frame is not None
        assert watch.frame.rates.jobs_per_second is not None
        service.is_gone = True
        watch.look()
        first = watch.lost
        watch.look()
        assert watch.lost is not None
        assert first is not None
        assert (watch.lost.since, watch.lost.reason) == (first.since, "Connection refused")
        assert watch.frame is not None, "what was last known stays"
        service.is_gone = False
        watch.look()
        assert watch.lost is None
        assert watch.frame.rates.jobs_per_second is None


@pytest.mark.parametrize("is_gone", [False, True])
def test_a_terminal_is_drawn_over(is_gone: bool) -> None:
    """On a terminal frames replace one another, on a screen of their own that is given back at the end."""
    console = Console(file=io.StringIO(), force_terminal=True, width=80, height=24, legacy_windows=False)
    service = Service()
    service.is_gone = is_gone
    with Client("http://service", transport=httpx.MockTransport(service), retry_seconds=0) as client:
        watch = Watch(client)
        with drawing(console, has_keys=True, as_json=False) as draw:
            watch.look()
            draw(watch)
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    assert ("UNREACHABLE" if is_gone else "HEALTHY") in shown
    assert shown.index("\x1b[?1049h") < shown.index("\x1b[?1049l")


def test_q_quits_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other keys do nothing, and the terminal is left as it was."""
    ours, theirs = os.openpty()
    with os.fdopen(theirs, "r", buffering=1) as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        with quitting_by_key() as (wait, has_keys):
            assert has_keys
            os.write(ours, b"x")
            assert not wait(0.01)
            threading.Timer(0.05, os.write, (ours, b"q")).start()
            assert wait(60)
    os.close(ours)


def test_health_is_a_table_and_an_exit_code() -> None:
    """Healthy or degraded is 0, unhealthy 1; what is wrong and what to do stands beside the component."""
    assert run(Service(), "health").exit_code == ExitCode.OK
    degraded: dict[str, Any] = health(cache={"status": "degraded", "detail": "cannot be reached: start it"})
    result = run(Service(degraded), "health")
    assert (result.exit_code, "cannot be reached: start it" in result.stdout) == (ExitCode.OK, True)
    unhealthy = health(redis={"status": "unhealthy", "detail": "is full"})
    result = run(Service(unhealthy), "health", "--json")
    assert result.exit_code == ExitCode.FAILED
    assert json.loads(result.stdout)["components"]["redis"]["detail"] == "is full"
