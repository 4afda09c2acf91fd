"""`dspy-jobs batch estimate`: what a file would come to as a batch, before it is queued."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from dspy_jobs.cli.batches import File, Program, at_line_of_file, opened_input
from dspy_jobs.cli.connection import connect
from dspy_jobs.cli.exit_codes import ExitCode
from dspy_jobs.cli.failures import as_options, first_lines, say, spell_out
from dspy_jobs.cli.items import BadLine, Item, by_program, sort_lines
from dspy_jobs.cli.options import (
    AsJson,
    CacheOnly,
    MaxAge,
    MaxCost,
    MaxErrorRate,
    MinItems,
    Model,
    Namespace,
    NoCache,
    Refresh,
    Urgency,
    cache_fields,
    limits,
    shared,
)

if TYPE_CHECKING:
    from dspy_jobs.client import Client
    from dspy_jobs.models import BatchEstimate

#: Bad lines of the file that are named, as many as the service names.
_MOST_ERRORS = 100


def estimate(
    ctx: typer.Context,
    file: File,
    program: Program = None,
    model: Model = None,
    priority: Urgency = None,
    no_cache: NoCache = False,
    refresh: Refresh = False,
    cache_only: CacheOnly = False,
    max_age: MaxAge = None,
    namespace: Namespace = None,
    max_cost: MaxCost = None,
    max_error_rate: MaxErrorRate = None,
    min_items: MinItems = None,
    as_json: AsJson = False,
) -> None:
    """Tell what a file would come to as a batch; nothing is queued.

    Takes the same file and options as `batch submit`. Shows for each program how many items are right, how many
    have their answer in the cache or repeat another item, and what the rest will use: tokens, cost, time.

    Exits 2 if an item is wrong, for the batch would be refused; every mistake is named by its line.
    """
    cache = cache_fields(no_cache, refresh, cache_only, max_age, namespace)
    with opened_input(file) as source:
        items, bad = sort_lines(source, file, program)
    options = {**shared(model, priority, cache), "limits": limits(max_cost, max_error_rate, min_items)}
    with connect(ctx) as client:
        estimates = [_estimate(client, name, own, options) for name, own in by_program(items).items()]
    estimates += [_of_bad_lines(bad)] if bad else []
    _show(estimates, as_json)
    if any(estimate.invalid for estimate in estimates):
        raise typer.Exit(ExitCode.USAGE)


def _estimate(client: Client, program: str, items: list[Item], options: dict[str, Any]) -> BatchEstimate:
    from dspy_jobs.client import ApiError

    try:
        found = client.estimate_batch(program, (item.fields for item in items), **options)
    except ApiError as error:
        mistakes = [at_line_of_file(mistake, items) for mistake in error.problem.errors or []]
        raise ApiError(error.problem.model_copy(update={"errors": mistakes})) from None
    return found.model_copy(update={"errors": [at_line_of_file(mistake, items) for mistake in found.errors]})


def _of_bad_lines(bad: list[BadLine]) -> BatchEstimate:
    """Lines of which not even the program is sure."""
    from dspy_jobs.models import BatchEstimate, CostRange

    errors = [{"line": entry.line, "code": "invalid_request_body", "detail": entry.reason} for entry in bad]
    return BatchEstimate(
        program=None,
        valid=0,
        invalid=len({entry.line for entry in bad}),
        cached=0,
        est_input_tokens=0,
        est_output_tokens=0,
        est_cost_usd=CostRange(low=0, high=0),
        est_seconds=0,
        error_count=len(bad),
        errors=errors[:_MOST_ERRORS],
    )


def _show(estimates: list[BatchEstimate], as_json: bool) -> None:
    from dspy_jobs.cli.display import print_estimates, print_json

    if as_json:
        for found in estimates:
            print_json(found)
        return
    print_estimates(estimates)
    for note in dict.fromkeys(note for found in estimates for note in found.notes):
        say(as_options(note))
    if mistakes := [spell_out(mistake) for found in estimates for mistake in found.errors]:
        say("mistakes, for which the batch would be refused:\n" + first_lines(mistakes))
