"""Options and arguments that several commands take, declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dspy_jobs.states import Priority

JobId = Annotated[str, typer.Argument(metavar="JOB", help="The job's id, job_…", show_default=False)]
BatchId = Annotated[str, typer.Argument(metavar="BATCH", help="The batch's id, batch_…", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Write JSON for programs instead of a table for people.")]
Model = Annotated[str | None, typer.Option(help="Short name of a configured model; by default the program's.")]
Urgency = Annotated[Priority | None, typer.Option("--priority", help="By default normal for jobs, low for batches.")]
NoCache = Annotated[bool, typer.Option("--no-cache", help="Do not use stored answers.")]
Wait = Annotated[bool, typer.Option("--wait", help="Wait for the end and show it.")]
Timeout = Annotated[
    float | None, typer.Option(min=0, help="Longest wait in seconds, then exit 4; by default as long as it takes.")
]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write results there; - is stdout.")
]


def shared(model: str | None, priority: Priority | None, no_cache: bool) -> dict[str, Any]:
    """The contract's fields behind the options of jobs and batches."""
    return {"model": model, "priority": priority.value if priority else None, "use_cache": False if no_cache else None}
