"""The command that compares the variants of a program."""

from __future__ import annotations

from typing import Annotated

import typer

from dspy_jobs.cli.connection import connect
from dspy_jobs.cli.failures import InputMistake
from dspy_jobs.cli.options import AsJson

app = typer.Typer(help="Compare the variants of a program.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _variants() -> None:
    """Keeps `compare` a command of its own although it is the only one."""


@app.command()
def compare(
    ctx: typer.Context,
    program: Annotated[str, typer.Argument(metavar="PROGRAM", help="Name of a program.", show_default=False)],
    baseline: Annotated[
        str | None, typer.Option(help="Variant to compare with; by default that of the largest weight.")
    ] = None,
    score: Annotated[str | None, typer.Option(help="Only scores of this name.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what became of each variant's jobs, and how sure the differences to the baseline are.

    Means of scores are compared by Welch's t-test, error rates by Fisher's exact test and their ratio; intervals are
    of 95 %. Post scores with POST /v1/jobs/{id}/score. Numbers are of the variant's name: give a changed arm a new one.
    """
    from dspy_jobs.cli.display import print_comparison, print_json
    from dspy_jobs.comparison import compared

    with connect(ctx) as client:
        found = client.variants(program, scores=True, score=score)
    try:
        comparisons = compared(found, baseline)
    except ValueError as mistake:
        raise InputMistake(f"{program}: {mistake}") from None
    if as_json:
        print_json([comparison.as_json() for comparison in comparisons])
    else:
        print_comparison(comparisons)
