"""The command that tells how many workers are needed just now, and why."""

from __future__ import annotations

import typer

from dspy_jobs.cli.connection import connect
from dspy_jobs.cli.options import AsJson


def autoscale(ctx: typer.Context, as_json: AsJson = False) -> None:
    """Show what the fleet is scaled on: the call slots that waiting and running jobs need, in all and by queue."""
    from dspy_jobs.cli.display import print_autoscale, print_json

    with connect(ctx) as client:
        found = client.autoscale()
    if as_json:
        print_json(found)
    else:
        print_autoscale(found)
