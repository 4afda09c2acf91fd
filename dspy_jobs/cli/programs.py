"""The command that lists what can be run."""

from __future__ import annotations

import typer

from dspy_jobs.cli.connection import connect
from dspy_jobs.cli.options import AsJson


def programs(ctx: typer.Context, as_json: AsJson = False) -> None:
    """List the programs that can be run, with their inputs and outputs."""
    from dspy_jobs.cli.display import print_json, print_programs

    with connect(ctx) as client:
        found = client.programs()
    if as_json:
        print_json([program.model_dump(mode="json", exclude_unset=True) for program in found])
    else:
        print_programs(found)
