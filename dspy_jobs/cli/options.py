"""Options and arguments that several commands take, declared once."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import typer

from dspy_jobs.cli.failures import InputMistake
from dspy_jobs.states import Priority


def _checked_cost(value: float | None) -> float | None:
    if value is not None and not 0 < value < math.inf:
        raise typer.BadParameter("must be more than 0 US dollars")
    return value


def _checked_rate(value: float | None) -> float | None:
    if value is not None and not 0 < value <= 1:
        raise typer.BadParameter("must be a share: more than 0, at most 1")
    return value


JobId = Annotated[str, typer.Argument(metavar="JOB", help="The job's id, job_…", show_default=False)]
BatchId = Annotated[str, typer.Argument(metavar="BATCH", help="The batch's id, batch_…", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Write JSON for programs instead of a table for people.")]
Model = Annotated[str | None, typer.Option(help="Short name of a configured model; by default the program's.")]
Variant = Annotated[str | None, typer.Option(help="Variant of the program; by default one is assigned.")]
Urgency = Annotated[Priority | None, typer.Option("--priority", help="By default normal for jobs, low for batches.")]
NoCache = Annotated[bool, typer.Option("--no-cache", help="Neither use nor store answers.")]
Refresh = Annotated[bool, typer.Option("--refresh", help="Run anew and store the answers; use no stored one.")]
CacheOnly = Annotated[bool, typer.Option("--cache-only", help="Use stored answers; a job without one fails.")]
MaxAge = Annotated[float | None, typer.Option(min=0, metavar="SECONDS", help="Use no stored answer older than this.")]
Namespace = Annotated[str | None, typer.Option(help="Use and store answers of this namespace only.")]
MaxCost = Annotated[
    float | None,
    typer.Option(metavar="USD", callback=_checked_cost, help="Pause once so much is spent; more than 0."),
]
MaxErrorRate = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE",
        callback=_checked_rate,
        help="Pause once a larger share of jobs failed; more than 0, at most 1.",
    ),
]
MinItems = Annotated[int | None, typer.Option(min=1, help="Jobs to have run before the share counts; 20 by default.")]
Wait = Annotated[bool, typer.Option("--wait", help="Wait for the end and show it.")]
Timeout = Annotated[
    float | None, typer.Option(min=0, help="Longest wait in seconds, then exit 4; by default as long as it takes.")
]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write results there; - is stdout.")
]


def shared(model: str | None, priority: Priority | None, cache: dict[str, Any]) -> dict[str, Any]:
    """The contract's fields behind the options of jobs and batches."""
    return {"model": model, "priority": priority.value if priority else None, **cache}


def cache_fields(
    no_cache: bool, refresh: bool, cache_only: bool, max_age: float | None, namespace: str | None
) -> dict[str, Any]:
    """The contract's fields behind the options of the cache.

    Raises:
        InputMistake: options exclude each other.
    """
    if no_cache + refresh + cache_only > 1:
        raise InputMistake("--no-cache, --refresh and --cache-only exclude each other")
    if no_cache and (max_age is not None or namespace is not None):
        raise InputMistake("--no-cache uses no stored answer, so --max-age and --namespace do not go with it")
    mode = "refresh" if refresh else "only" if cache_only else None
    given = {"mode": mode, "max_age_seconds": max_age, "namespace": namespace}
    cache = {name: value for name, value in given.items() if value is not None}
    return {"use_cache": False if no_cache else None, "cache": cache or None}


def limits(max_cost: float | None, max_error_rate: float | None, min_items: int | None) -> dict[str, Any] | None:
    """The contract's limits behind the options; None where no option was given."""
    given = {"max_cost_usd": max_cost, "max_error_rate": max_error_rate, "min_items": min_items}
    return {name: value for name, value in given.items() if value is not None} or None
