"""How a command reaches the service: the `--url` of the whole line, carried in the context."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from dspy_jobs.client import Client


def remember(ctx: typer.Context, url: str | None) -> None:
    """Let the line's commands talk to `url`. A context that already carries a way to connect keeps it."""
    make: Callable[..., Client] = ctx.obj or _client
    ctx.obj = partial(make, url)


def connect(ctx: typer.Context, **options: float) -> Client:
    """A client for this line's service, with the client's own options; use it in a `with` block."""
    make: Callable[..., Client] = ctx.obj
    return make(**options)


def _client(url: str | None, **options: float) -> Client:
    from dspy_jobs.client import Client

    return Client(url, **options)  # type: ignore[arg-type]  # every option a command gives is a number of seconds
