"""`dspy-jobs batch estimate`: what a file would come to as a batch, before it is queued."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from dspy_jobs.cli.batches import File, Program, at_line_of_file, at_lines_of_file, opened_input
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
    Variant,
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
    variant: Variant = None,
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
    options = {
        **shared(model, priority, cache),
        "variant": variant,
        "limits": limits(max_cost, max_error_rate, min_items),
    }
    groups = by_program(items)
    with connect(ctx) as client:
        found = [_estimate(client, name, own, options, name == program) for name, own in groups.items()]
    estimates = [_with_bad_lines(one, [entry for entry in bad if entry.program == one.program]) for one in found]
    rest = [entry for entry in bad if entry.program not in groups]
    estimates += [_with_bad_lines(_nothing(None), rest)] if rest else []
    _show(estimates, as_json)
    if any(estimate.invalid for estimate in estimates):
        raise typer.Exit(ExitCode.USAGE)


def _estimate(
    client: Client, program: str, items: list[Item], options: dict[str, Any], is_given: bool
) -> BatchEstimate:
    from dspy_jobs.client import ApiError

    try:
        found = client.estimate_batch(program, (item.fields for item in items), **options)
    except ApiError as error:
        problem = at_lines_of_file(error.problem, items, is_given)
        if problem.code == "unknown_program" and not is_given:
            return _with_mistakes(_nothing(program), len(items), problem.errors or [])
        raise ApiError(problem) from None
    return found.model_copy(update={"errors": [at_line_of_file(mistake, items) for mistake in found.errors]})


def _with_bad_lines(found: BatchEstimate, bad: list[BadLine]) -> BatchEstimate:
    """Lines counted that were not even sent."""
    errors = [{"line": entry.line, "code": "invalid_request_body", "detail": entry.reason} for entry in bad]
    return _with_mistakes(found, len({entry.line for entry in bad}), errors) if bad else found


def _with_mistakes(found: BatchEstimate, invalid: int, errors: list[dict[str, Any]]) -> BatchEstimate:
    named = sorted([*found.errors, *errors], key=lambda error: error.get("line") or 0)[:_MOST_ERRORS]
    counts = {"invalid": found.invalid + invalid, "error_count": found.error_count + len(errors)}
    return found.model_copy(update={**counts, "errors": named})


def _nothing(program: str | None) -> BatchEstimate:
    """What no items come to; None as the program is for lines of which not even that is sure."""
    from dspy_jobs.models import BatchEstimate, CostRange

    return BatchEstimate(
        program=program,
        valid=0,
        invalid=0,
        cached=0,
        est_input_tokens=0,
        est_output_tokens=0,
        est_cost_usd=CostRange(low=0, high=0),
        est_seconds=0,
        error_count=0,
        errors=[],
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
