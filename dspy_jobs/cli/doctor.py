"""`dspy-jobs doctor`: looks at the whole installation and says what is wrong and how to mend it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from dspy_jobs.cli.connection import connect
from dspy_jobs.cli.exit_codes import ExitCode
from dspy_jobs.cli.options import AsJson

if TYPE_CHECKING:
    from dspy_jobs.doctor.finding import Finding


def doctor(
    ctx: typer.Context,
    online: Annotated[
        bool, typer.Option("--online", help="Also run a job of a few tokens on each model. These calls are paid for.")
    ] = False,
    prometheus: Annotated[
        str, typer.Option(metavar="URL", help="Prometheus whose targets are looked at.")
    ] = "http://127.0.0.1:9090",
    as_json: AsJson = False,
) -> None:
    """Look at the whole installation: what is well, what is wrong, how to mend it. Exits 1 if something fails.

    Run it where the configuration is that the service runs on. Changes nothing and, without --online, pays nothing;
    no key is ever shown.
    """
    from dspy_jobs.doctor.rounds import Options, diagnose
    from dspy_jobs.doctor.service import PATIENCE_SECONDS

    found = diagnose(
        lambda: connect(ctx, retry_seconds=0.0, timeout=PATIENCE_SECONDS), Options(prometheus, is_online=online)
    )
    shown = list(found) if as_json else list(_printed(found))
    failed = [finding for finding in shown if finding.verdict == "fail"]
    if as_json:
        print(json.dumps({"ok": not failed, "findings": [asdict(f) for f in shown]}, ensure_ascii=False, indent=2))
    else:
        _print_sum(shown)
    if failed:
        raise typer.Exit(ExitCode.FAILED)


_SIGNS = {"ok": ("✓", "green"), "warn": ("!", "yellow"), "fail": ("✗", "bold red"), "skip": ("·", "dim")}
#: Columns before a detail: the sign, and a check's name.
_NAME_COLUMNS = 22


def _printed(found: Iterator[Finding]) -> Iterator[Finding]:
    """The findings, each printed as it comes: some take a few seconds."""
    from rich.console import Console
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    from dspy_jobs.cli.display import text

    console = Console()
    for finding in found:
        sign, style = _SIGNS[finding.verdict]
        row = Table.grid(padding=(0, 1))
        row.add_column(no_wrap=True)
        row.add_column(width=_NAME_COLUMNS, overflow="fold")
        row.add_column(overflow="fold")
        row.add_row(Text(sign, style), Text(finding.check, style), text(finding.detail))
        console.print(row)
        if finding.remedy:
            remedy = Text.assemble(("→ ", "cyan"), text(finding.remedy))
            console.print(Padding(remedy, (0, 0, 0, _NAME_COLUMNS + 3)))
        yield finding


def _print_sum(shown: list[Finding]) -> None:
    counts = Counter(finding.verdict.value for finding in shown)
    words = {"ok": "well", "warn": "to look at", "fail": "wrong", "skip": "not looked at"}
    print(", ".join(f"{counts[verdict]} {word}" for verdict, word in words.items() if counts[verdict]))
