"""The commands for queues, one a model: look at them, pause one, let it run again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dspy_jobs.cli.connection import connect
from dspy_jobs.cli.options import AsJson

if TYPE_CHECKING:
    from dspy_jobs.models import Queue

app = typer.Typer(help="What waits and runs for each model.", no_args_is_help=True, rich_markup_mode=None)

Name = Annotated[str, typer.Argument(metavar="QUEUE", help="The queue's name; see `queue list`.", show_default=False)]


@app.command("list")
def list_(ctx: typer.Context, as_json: AsJson = False) -> None:
    """List the queues: what waits, what runs, whether jobs may start, and if not, why and until when."""
    with connect(ctx) as client:
        _show(client.queues(), as_json)


@app.command()
def pause(ctx: typer.Context, name: Name, as_json: AsJson = False) -> None:
    """Start no further job of a queue; what runs finishes, and submitting goes on."""
    with connect(ctx) as client:
        _show([client.pause_queue(name)], as_json)


@app.command()
def resume(ctx: typer.Context, name: Name, as_json: AsJson = False) -> None:
    """Let a paused queue's jobs run again."""
    with connect(ctx) as client:
        _show([client.resume_queue(name)], as_json)


def _show(queues: list[Queue], as_json: bool) -> None:
    from dspy_jobs.cli.display import print_json, print_queues

    if as_json:
        print_json([queue.model_dump(mode="json", exclude_unset=True) for queue in queues])
    else:
        print_queues(queues)
