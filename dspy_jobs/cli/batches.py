"""The commands for batches: submit a file, follow it, fetch results; cancel, pause, resume, retry."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from dspy_jobs.cli.connection import connect
from dspy_jobs.cli.exit_codes import ExitCode
from dspy_jobs.cli.failures import InputMistake, PartlyDone, as_options, say, told
from dspy_jobs.cli.items import Item, by_program, read_items
from dspy_jobs.cli.options import (
    AsJson,
    BatchId,
    CacheOnly,
    MaxAge,
    MaxCost,
    MaxErrorRate,
    MinItems,
    Model,
    Namespace,
    NoCache,
    Output,
    Refresh,
    Timeout,
    Urgency,
    Variant,
    Wait,
    cache_fields,
    limits,
    shared,
)
from dspy_jobs.cli.results_file import Format, check_writable, format_of, opened, write_results
from dspy_jobs.states import JobStatus, PauseReason

if TYPE_CHECKING:
    from dspy_jobs.client import Client
    from dspy_jobs.models import Batch
    from dspy_jobs.problems import Problem

app = typer.Typer(help="Many jobs submitted and followed together.", no_args_is_help=True, rich_markup_mode=None)

File = Annotated[str, typer.Argument(metavar="FILE", help="JSONL or .csv file; - reads JSONL from stdin.")]
Program = Annotated[str | None, typer.Option(help="Program of the lines that name none; CSV needs it.")]
As = Annotated[Format | None, typer.Option("--format", help="By default told by the file's name, else jsonl.")]
OnlyStatus = Annotated[JobStatus | None, typer.Option("--status", help="Only jobs in this state.")]
RetryStatus = Annotated[
    list[JobStatus] | None, typer.Option("--status", help="Only jobs that ended so; repeat it for more.")
]
InputOrder = Annotated[bool, typer.Option("--input-order", help="In the order submitted; once the batch has ended.")]


@app.command()
def submit(
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
    wait: Wait = False,
    timeout: Timeout = None,
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Queue every line of a file; one batch for each program that the lines name.

    A line of JSONL is {"program"?, "custom_id"?, "inputs": {…}}, or with --program just the inputs.
    In CSV every column is an input, but `custom_id`; cells are text and never evaluated.
    Any bad line is reported, by its number, before anything is sent.

    Prints the ids of the batches. With --wait (or --timeout or --output) prints how they ended instead, and
    exits 1 unless every job succeeded; a batch that one of its limits pauses is waited for no longer: exit 4.
    """
    cache = cache_fields(no_cache, refresh, cache_only, max_age, namespace)
    check_writable(output)
    with opened_input(file) as source:
        groups = by_program(read_items(source, file, program))
    with connect(ctx) as client:
        options = {
            **shared(model, priority, cache),
            "variant": variant,
            "limits": limits(max_cost, max_error_rate, min_items),
        }
        batches = _submit_all(client, file, groups, options, program)
        if wait or timeout is not None or output is not None:
            _finish(client, batches, timeout, output, as_json)
        elif as_json:
            _show(batches, as_json)
        else:
            print("\n".join(batch.id for batch in batches))


@app.command()
def get(
    ctx: typer.Context, batch_id: BatchId, wait: Wait = False, timeout: Timeout = None, as_json: AsJson = False
) -> None:
    """Show a batch's counts, tokens and cost as they are now, or with --wait (or --timeout) at its end."""
    with connect(ctx) as client:
        batch = client.batch(batch_id)
        if wait or timeout is not None:
            _finish(client, [batch], timeout, None, as_json)
        else:
            _show([batch], as_json)


@app.command()
def results(
    ctx: typer.Context,
    batch_id: BatchId,
    output: Output = None,
    form: As = None,
    status: OnlyStatus = None,
    input_order: InputOrder = False,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format jsonl.")] = False,
) -> None:
    """Write the results there are, at any time, as JSON lines or CSV.

    In CSV a text that begins with = + - or @ gets a ' before it, so that no spreadsheet takes it for a formula.
    """
    if as_json and form is Format.CSV:
        raise InputMistake("--json and --format csv exclude each other")
    wanted = format_of(output, Format.JSONL if as_json else form)
    check_writable(output)
    with connect(ctx) as client:
        batch = client.batch(batch_id)
        order = "input" if input_order else None
        with opened(output) as to:
            written = write_results(client.results(batch_id, status=status, order=order), to, wanted)
    say(f"{written} results" + ("" if batch.is_done else f"; {batch_id} is {batch.status}, more will come"))


@app.command()
def cancel(ctx: typer.Context, batch_id: BatchId, as_json: AsJson = False) -> None:
    """Cancel what is queued of a batch and stop what runs."""
    with connect(ctx) as client:
        _say_or_show(client.cancel_batch(batch_id), as_json)


@app.command()
def pause(ctx: typer.Context, batch_id: BatchId, as_json: AsJson = False) -> None:
    """Start no further job of a batch; what runs finishes."""
    with connect(ctx) as client:
        _say_or_show(client.pause_batch(batch_id), as_json)


@app.command()
def resume(
    ctx: typer.Context,
    batch_id: BatchId,
    max_cost: MaxCost = None,
    max_error_rate: MaxErrorRate = None,
    min_items: MinItems = None,
    as_json: AsJson = False,
) -> None:
    """Go on with a paused batch, under the limits given here and those of its own that are not."""
    with connect(ctx) as client:
        changed = limits(max_cost, max_error_rate, min_items)
        _say_or_show(client.resume_batch(batch_id, limits=changed), as_json)


@app.command()
def retry(ctx: typer.Context, batch_id: BatchId, status: RetryStatus = None, wait: Wait = False) -> None:
    """Queue again what failed, was canceled or expired; with --wait follow it to the end. Prints how many jobs."""
    with connect(ctx) as client:
        print(client.retry_batch(batch_id, status=[state.value for state in status] if status else None))
        if wait:
            _finish(client, [client.batch(batch_id)], None, None, as_json=False)


@contextmanager
def opened_input(file: str) -> Iterator[BinaryIO]:
    """The file of a batch, or stdin for `-`.

    Raises:
        InputMistake: it cannot be read.
    """
    if file == "-":
        yield sys.stdin.buffer
        return
    try:
        with Path(file).open("rb") as source:
            yield source
    except OSError as error:
        raise InputMistake(f"{file} cannot be read: {error.strerror}") from None


def _submit_all(
    client: Client, file: str, groups: dict[str, list[Item]], options: dict[str, Any], given: str | None
) -> list[Batch]:
    from dspy_jobs.client import ApiError

    batches: list[Batch] = []
    for program, items in groups.items():
        try:
            batches.append(_submit_one(client, program, items, options, program == given))
        except Exception as error:
            if batches:
                say(f"{file}: queued before the lines of {program!r} were not: " + _ids(batches))
                if isinstance(error, ApiError):
                    raise PartlyDone(told(error)) from None
            raise
        say(f"{batches[-1].id}: {len(items)} jobs of {program} are queued")
    return batches


def _submit_one(client: Client, program: str, items: list[Item], options: dict[str, Any], is_given: bool) -> Batch:
    from dspy_jobs.client import ApiError

    try:
        return client.submit_batch(program, (item.fields for item in items), **options)
    except ApiError as error:
        raise ApiError(at_lines_of_file(error.problem, items, is_given)) from None


def at_lines_of_file(problem: Problem, items: list[Item], is_given: bool) -> Problem:
    """The problem with its mistakes by the lines of the file; of a program too, unless `--program` gave it."""
    mistakes = [at_line_of_file(mistake, items) for mistake in problem.errors or []]
    if problem.code == "unknown_program" and not is_given:
        mistakes = [{**mistake, "line": item.line} for mistake in mistakes for item in items]
    return problem.model_copy(update={"errors": mistakes})


def at_line_of_file(mistake: dict[str, Any], items: list[Item]) -> dict[str, Any]:
    """The service counts the items it got; people count the lines of their file."""
    line = mistake.get("line")
    if not isinstance(line, int) or not 0 < line <= len(items):
        return mistake
    return {**mistake, "line": items[line - 1].line}


def _finish(client: Client, batches: list[Batch], timeout: float | None, output: Path | None, as_json: bool) -> None:
    from dspy_jobs.cli.progress import wait_with_progress

    ended = wait_with_progress(client, batches, timeout)
    stopped = [batch for batch in ended if batch.is_stopped]
    if output is not None and not stopped:
        with opened(output) as to:
            write_results((job for batch in ended for job in client.results(batch.id)), to, format_of(output))
    is_shown = output is None or str(output) != "-"
    if is_shown:
        _show(ended, as_json)
    if stopped:
        _say_stopped(stopped, in_table=is_shown and not as_json)
        raise typer.Exit(ExitCode.WAITED_TOO_LONG)
    if any(batch.counts.succeeded < batch.counts.total for batch in ended):
        say("not all jobs succeeded: dspy-jobs batch results --status failed " + _ids(ended))
        raise typer.Exit(ExitCode.FAILED)


def _say_stopped(batches: list[Batch], in_table: bool) -> None:
    """Why batches wait for somebody, unless the table has said it, and how they go on."""
    for batch in batches:
        pause, higher = batch.pause, ""
        if pause is not None and not in_table:
            say(f"{batch.id} is paused: {as_options(pause.detail or '')}")
        if pause is not None and pause.reason == PauseReason.MAX_COST:
            higher = " --max-cost USD"
        say(
            f"{batch.id} goes on with: dspy-jobs batch resume {batch.id}{higher}; "
            f"then wait with: dspy-jobs batch get {batch.id} --wait; "
            f"results so far: dspy-jobs batch results {batch.id}"
        )


def _say_or_show(batch: Batch, as_json: bool) -> None:
    if as_json:
        _show([batch], as_json)
    else:
        say(f"{batch.id} is {batch.status}")


def _ids(batches: list[Batch]) -> str:
    return " ".join(batch.id for batch in batches)


def _show(batches: list[Batch], as_json: bool) -> None:
    from dspy_jobs.cli.display import print_batches, print_json

    if not as_json:
        print_batches(batches)
    for batch in batches if as_json else ():
        print_json(batch)
