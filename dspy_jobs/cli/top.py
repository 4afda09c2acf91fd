"""`dspy-jobs top` and `dspy-jobs health`: how the service is, at a glance and from moment to moment."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from dspy_jobs.cli.connection import connect
from dspy_jobs.cli.exit_codes import ExitCode
from dspy_jobs.cli.options import AsJson

if TYPE_CHECKING:
    from dspy_jobs.client import Client

#: Seconds an answer is waited for: who looks must see soon that there is none.
_PATIENCE = {"retry_seconds": 0.0, "timeout": 2.0}


def health(ctx: typer.Context, as_json: AsJson = False) -> None:
    """Show how every part of the service is and what to do about it; exits 1 if it is unhealthy."""
    from dspy_jobs.cli.display import print_health, print_json

    with connect(ctx, **_PATIENCE) as client:
        found = client.health()
    if as_json:
        print_json(found)
    else:
        print_health(found)
    if found.status == "unhealthy":
        raise typer.Exit(ExitCode.FAILED)


def top(
    ctx: typer.Context,
    interval: Annotated[float, typer.Option(min=0.1, max=3600, metavar="SECONDS", help="Time between frames.")] = 2.0,
    once: Annotated[
        bool, typer.Option("--once", help="Show one frame, with the rates of one interval, and end.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Watch the service: what is wrong, queues, workers, rates, the slowest programs, breakers, budgets.

    Rates are of the last minute. When the service goes away this says since when, and goes on when it is back. `q`
    quits. With --json every frame is one line. Talks to the API alone, over HTTP.
    """
    with connect(ctx, **_PATIENCE) as client:
        if once:
            _show_once(client, interval, as_json)
        else:
            _watch(client, interval, as_json)


def _show_once(client: Client, interval: float, as_json: bool) -> None:
    import time

    from rich.console import Console

    from dspy_jobs.top.frame import History
    from dspy_jobs.top.screen import View, present, screen
    from dspy_jobs.top.watching import WINDOW_SECONDS, read

    history = History(WINDOW_SECONDS)
    history.add(read(client))
    time.sleep(interval)
    frame = history.add(read(client))
    if as_json:
        print(json.dumps(frame.as_json(), ensure_ascii=False))
        return
    console = Console()
    console.print(screen(frame, View(client.url, present()), console))


def _watch(client: Client, interval: float, as_json: bool) -> None:
    from rich.console import Console

    from dspy_jobs.top.drawing import drawing
    from dspy_jobs.top.keys import quitting_by_key
    from dspy_jobs.top.watching import Watch

    watch, console = Watch(client), Console()
    # Ctrl-C is the other way to quit, and no failure.
    with (
        suppress(KeyboardInterrupt),
        quitting_by_key() as (wait, has_keys),
        drawing(console, has_keys, as_json) as draw,
    ):
        while True:
            watch.look()
            draw(watch)
            if wait(interval):
                return
