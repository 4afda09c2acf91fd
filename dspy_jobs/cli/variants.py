"""The command that compares the variants of a program."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dspy_jobs.cli.connection import connect
from dspy_jobs.cli.failures import InputMistake
from dspy_jobs.cli.options import AsJson

if TYPE_CHECKING:
    from dspy_jobs.client import Client
    from dspy_jobs.models import VariantReport

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
    of 95 %. Cost per run is the cost divided by the jobs that ran, without those answered from the cache.
    Post scores with POST /v1/jobs/{id}/score. Numbers are of the variant's name: give a changed arm a new one.
    """
    from dspy_jobs.cli.display import print_comparison, print_json
    from dspy_jobs.comparison import compared

    with connect(ctx) as client:
        found = _reports(client, program, score)
    try:
        comparisons = compared(found, baseline)
    except ValueError as mistake:
        raise InputMistake(f"{program}: {mistake}") from None
    if as_json:
        print_json([comparison.as_json() for comparison in comparisons])
    else:
        print_comparison(comparisons)


def _reports(client: Client, program: str, score: str | None) -> list[VariantReport]:
    """The variants with their scores.

    Raises:
        InputMistake: there is no such program, or nobody has posted such a score.
    """
    from dspy_jobs.client import ApiError

    try:
        found = client.variants(program, scores=True, score=score)
    except ApiError as error:
        if error.problem.code == "not_found":
            raise InputMistake(f"there is no program {program!r}; see `dspy-jobs programs`") from None
        raise
    if score is not None and found and not any(variant.scores for variant in found):
        posted = {name for variant in client.variants(program) for name in variant.scores}
        known = ", ".join(sorted(posted)) or "none"
        raise InputMistake(f"{program}: nobody has posted a score {score!r} of its variants; there are: {known}")
    return found
