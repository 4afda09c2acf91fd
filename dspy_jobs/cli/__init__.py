"""The command line: `dspy-jobs`. Heavy libraries are imported by the commands that need them, when they run."""

from __future__ import annotations

from typing import Annotated

import typer

from dspy_jobs import __version__
from dspy_jobs.cli import batches, config, jobs, programs, queues, variants
from dspy_jobs.cli.autoscale import autoscale
from dspy_jobs.cli.connection import remember
from dspy_jobs.cli.costs import budgets, costs
from dspy_jobs.cli.doctor import doctor
from dspy_jobs.cli.estimates import estimate
from dspy_jobs.cli.exit_codes import listing
from dspy_jobs.cli.failures import FailuresAsExitCodes
from dspy_jobs.cli.top import health, top

_HELP = f"""Run DSPy programs as queued jobs: submit, follow, fetch results.

Data goes to stdout, messages to stderr.

\b
Exit codes:
{listing()}
"""

app = typer.Typer(
    cls=FailuresAsExitCodes,
    help=_HELP,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"dspy-jobs {__version__}")
        raise typer.Exit


@app.callback()
def _line(
    ctx: typer.Context,
    url: Annotated[
        str | None,
        typer.Option(help="The service's address; by default DSPY_JOBS_URL, else what the configuration says."),
    ] = None,
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    remember(ctx, url)


def main() -> None:
    """The program `dspy-jobs`."""
    app()


for command in (jobs.submit, jobs.get, jobs.wait, jobs.cancel, costs, budgets, autoscale, health, top, doctor):
    app.command()(command)
app.command("list")(jobs.list_jobs)
app.add_typer(programs.app, name="programs")
app.add_typer(variants.app, name="variants")
batches.app.command()(estimate)
app.add_typer(batches.app, name="batch")
app.add_typer(queues.app, name="queue")
app.add_typer(config.app, name="config")

from dspy_jobs.cli.demo import demo  # noqa: E402
from dspy_jobs.cli.up import up  # noqa: E402

app.command()(up)
app.command()(demo)
