"""`dspy-jobs demo`: the whole service once, from start to stop, on example questions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    file: Annotated[Path, typer.Option(help="JSONL file with the jobs; each line names its program.")] = Path(
        "examples/questions.jsonl"
    ),
) -> None:
    """Start everything, run the jobs of a file, print their answers, stop everything.

    Uses an embedded Redis and moves to free ports where the usual ones are taken. Results go to the data folder.
    Exits 0 when every job succeeded, 1 when one did not or a process failed, 2 when nothing could start.
    """
    from dspy_jobs.stack.demo import run_demo

    raise typer.Exit(run_demo(file))
