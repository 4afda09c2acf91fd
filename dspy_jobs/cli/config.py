"""The commands that check and show the configuration, without starting anything."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from dspy_jobs.cli.failures import say
from dspy_jobs.cli.options import AsJson
from dspy_jobs.settings import load_settings

app = typer.Typer(help="Check or show the configuration.", no_args_is_help=True, rich_markup_mode=None)

File = Annotated[
    Path | None,
    typer.Argument(metavar="[FILE]", help="By default DSPY_JOBS_CONFIG, else the nearest dspy-jobs.toml upwards."),
]


@app.command()
def check(file: File = None, as_json: AsJson = False) -> None:
    """Check the configuration as a whole. Exits 2 and names every mistake if there is one."""
    settings = load_settings(file)
    where = str(settings.source or "no dspy-jobs.toml found; defaults and environment")
    if as_json:
        print(json.dumps({"ok": True, "source": where}))
    else:
        say(f"{where}: ok, {len(settings.models)} models, {len(settings.programs)} programs")


@app.command()
def show(file: File = None, as_json: AsJson = False) -> None:
    """Show every setting as it is in force, secrets redacted."""
    from dspy_jobs.redaction import redacted

    settings = redacted(load_settings(file))
    if as_json:
        print(json.dumps(settings, indent=2, ensure_ascii=False))
    else:
        print("\n".join(f"{path} = {json.dumps(value, ensure_ascii=False)}" for path, value in _flat(settings)))


def _flat(values: dict[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """`section.key` and value of everything that is set."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{path}{name}.")
        elif value is not None:
            yield f"{path}{name}", value
