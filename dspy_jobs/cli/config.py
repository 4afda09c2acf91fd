"""The commands that check and show the configuration, without starting anything."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from dspy_jobs.cli.failures import say
from dspy_jobs.cli.options import AsJson
from dspy_jobs.settings import WARNING, ConfigurationError, Settings, load_settings

app = typer.Typer(help="Check or show the configuration.", no_args_is_help=True, rich_markup_mode=None)

File = Annotated[
    Path | None,
    typer.Argument(metavar="[FILE]", help="By default DSPY_JOBS_CONFIG, else the nearest dspy-jobs.toml upwards."),
]


@app.command()
def check(file: File = None, as_json: AsJson = False) -> None:
    """Check the configuration as a whole, building every program in every version and every model as a worker does.

    Exits 2 and names every mistake if there is one. What is allowed but may surprise is a warning.
    """
    settings = load_settings(file)
    warnings = [*_short_drains(settings), *build(settings)]
    where = str(settings.source or "no dspy-jobs.toml found; defaults and environment")
    if as_json:
        print(json.dumps({"ok": True, "source": where, "warnings": warnings}))
    else:
        for warning in warnings:
            say(f"{WARNING}{warning}")
        say(f"{where}: ok, {len(settings.models)} models, {len(settings.programs)} programs")


def _short_drains(settings: Settings) -> Iterator[str]:
    """What comes of a drain shorter than a job. The autoscaler gives its own workers longer."""
    drain, longest = settings.worker.drain_seconds, settings.jobs.timeout_seconds
    if drain < longest:
        yield (
            f"worker.drain_seconds ({drain:g}) is less than jobs.timeout_seconds ({longest:g}): a worker that is "
            "stopped, but not by scaling in, hands longer jobs back to be run again"
        )


def build(settings: Settings) -> list[str]:
    """Build what the configuration names, in a process of its own: that loads dspy and runs the user's code.

    Answers what is no mistake but may surprise.

    Raises:
        ConfigurationError: a program or model cannot be built; names each and why.
    """
    from dspy_jobs.stack.inherited import inherited_environ

    if find_spec("dspy") is None:
        say("programs and models were not built: dspy is not installed here (pip install 'dspy-jobs[worker]')")
        return []
    environ, folder = inherited_environ(), None
    if settings.source:
        environ["DSPY_JOBS_CONFIG"], folder = str(settings.source), settings.source.parent
    command = [sys.executable, "-m", "worker.check"]
    done = subprocess.run(command, env=environ, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ConfigurationError(done.stderr.strip() or f"building it ended with code {done.returncode}")
    return [line.removeprefix(WARNING) for line in done.stdout.splitlines() if line.startswith(WARNING)]


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
