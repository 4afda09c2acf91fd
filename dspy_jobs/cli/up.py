"""`dspy-jobs up`: the whole service in this terminal until Ctrl-C."""

from __future__ import annotations

from typing import Annotated

import typer


def up(
    workers: Annotated[int | None, typer.Option(min=1, help="Worker processes, always so many.  [default: 1]")] = None,
    autoscale: Annotated[bool, typer.Option("--autoscale", help="As many workers as there is work for.")] = False,
    low: Annotated[
        int | None, typer.Option("--min", min=0, help="Fewest workers of --autoscale; 0 lets all go.  [default: 1]")
    ] = None,
    high: Annotated[
        int | None,
        typer.Option("--max", min=1, help="Most workers of --autoscale.  [default: the ScaledObject's, and cores]"),
    ] = None,
    flower: Annotated[bool, typer.Option(help="Run Flower, the page that shows Celery's workers.")] = True,
) -> None:
    """Run Redis, sandbox, workers, API and Flower in this terminal until Ctrl-C.

    Redis is an embedded one that keeps its data in the data folder, unless REDIS_URL names another; the sandbox
    runs if a configured model points at it. With --autoscale the ScaledObject of `autoscaler.scaled_object` decides
    how many workers run, as it would in a cluster. Exits 0 when stopped by Ctrl-C or SIGTERM, 1 when a process failed,
    2 when something must be put right before anything can start.
    """
    from dspy_jobs.stack.serve import Bounds, serve

    if autoscale and workers is not None:
        raise typer.BadParameter("--workers fixes the number and --autoscale does not: give one of them")
    if not autoscale and (low is not None or high is not None):
        raise typer.BadParameter("--min and --max bound what --autoscale does: give that as well, or --workers instead")
    bounds = Bounds(1 if low is None else low, high)
    if high is not None and high < bounds.low:
        raise typer.BadParameter(f"--max {high} is less than --min {bounds.low}")
    raise typer.Exit(serve(bounds if autoscale else workers or 1, flower))
