"""Where frames go: over one another on a terminal, one after the other elsewhere, or as JSON, one a line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live

from dspy_jobs.top.screen import View, screen
from dspy_jobs.top.watching import Watch

#: Shows what is known now.
Draw = Callable[[Watch], None]


@contextmanager
def drawing(console: Console, has_keys: bool, as_json: bool) -> Iterator[Draw]:
    """How to draw for as long as the block lasts."""
    if as_json:
        yield _print_line
    elif not console.is_terminal:
        yield lambda watch: console.print(screen(watch.frame, _view(watch, has_keys=False), console))
    else:
        with Live(console=console, screen=True, auto_refresh=False) as live:
            yield lambda watch: live.update(
                screen(watch.frame, _view(watch, has_keys), console, console.height), refresh=True
            )


def _view(watch: Watch, has_keys: bool) -> View:
    return View(watch.client.url, watch.clock(), watch.lost, has_keys)


def _print_line(watch: Watch) -> None:
    if watch.lost:
        told = {"unreachable": {"since": watch.lost.since.isoformat(), "reason": watch.lost.reason}}
        print(json.dumps(told, ensure_ascii=False), flush=True)
    elif watch.frame:
        print(json.dumps(watch.frame.as_json(), ensure_ascii=False), flush=True)
