"""`dspy-jobs up`: the whole service in this terminal until Ctrl-C."""

from __future__ import annotations

from typing import Annotated

import typer


def up(
    workers: Annotated[int, typer.Option(min=1, help="Worker processes.")] = 1,
    flower: Annotated[bool, typer.Option(help="Run Flower, the page that shows Celery's workers.")] = True,
) -> None:
    """Run Redis, sandbox, workers, API and Flower in this terminal until Ctrl-C.

    Redis is an embedded one that keeps its data in the data folder, unless REDIS_URL names another; the sandbox
    runs if a configured model points at it. Exits 0 when stopped by Ctrl-C or SIGTERM, 1 when a process failed,
    2 when something must be put right before anything can start.
    """
    from dspy_jobs.stack.serve import serve

    raise typer.Exit(serve(workers, flower))
