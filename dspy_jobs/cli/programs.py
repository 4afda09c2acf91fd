"""The commands for programs: list what can be run, pin a compiled state."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dspy_jobs.cli.connection import connect
from dspy_jobs.cli.failures import say
from dspy_jobs.cli.options import AsJson

if TYPE_CHECKING:
    from dspy_jobs.pinning import Pin

app = typer.Typer(help="List programs; pin a compiled state.", rich_markup_mode=None)

ProgramName = Annotated[str, typer.Argument(metavar="PROGRAM", help="Name of a program.", show_default=False)]


@app.callback(invoke_without_command=True)
def programs(ctx: typer.Context, as_json: AsJson = False) -> None:
    """List the programs that can be run, with their inputs and outputs; or pin a compiled state of one."""
    if ctx.invoked_subcommand is not None:
        return
    from dspy_jobs.cli.display import print_json, print_programs

    with connect(ctx) as client:
        found = client.programs()
    if as_json:
        print_json([program.model_dump(mode="json", exclude_unset=True) for program in found])
    else:
        print_programs(found)


@app.command("pin")
def pin_(
    program: ProgramName,
    state: Annotated[Path, typer.Argument(metavar="STATE", help='A state saved with `program.save("….json")`.')],
    version: Annotated[str | None, typer.Option(help="Name of the version; by default the next free v1, v2, …")] = None,
    activate: Annotated[
        bool | None,
        typer.Option(
            "--activate/--no-activate",
            help="Whether it is to run; by default a program's first is.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Pin a compiled state as a version of a program, in dspy-jobs.toml, and print the version's name.

    The state is pinned by its SHA-256: workers refuse a file that has changed. Comments and formatting stay.
    """
    from dspy_jobs.cli.config import build
    from dspy_jobs.pinning import pin
    from dspy_jobs.settings import load_settings

    settings = load_settings()
    pinned = pin(settings, program, state, version, activate, build)
    for line in _told(pinned):
        say(line)
    print(pinned.version)


def _told(pinned: Pin) -> list[str]:
    """What was done, and how to undo it."""
    program, version, before = pinned.program, pinned.version, pinned.before
    lines = []
    if pinned.converted:
        lines.append(f"{program}: its plain state is now the version {pinned.converted}")
    was = "is pinned" if pinned.is_new else "was pinned already"
    lines.append(f"{program}: {version} {was} to the state with the SHA-256 {pinned.sha256}")
    if not pinned.runs:
        now = f"{before} runs; " if before else ""
        lines.append(f'{program}: {now}to run {version}, write in [programs.{program}]: version = "{version}"')
    elif before == version:
        lines.append(f"{program}: {version} runs, as before")
    else:
        back = f' To roll back, write in [programs.{program}]: version = "{before}"' if before else ""
        lines.append(f"{program}: {version} runs once workers are restarted.{back}")
    return lines
