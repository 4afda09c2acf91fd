"""The commands for single jobs: submit, get, list, wait, cancel."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dspy_jobs.cli.connection import connect
from dspy_jobs.cli.exit_codes import ExitCode
from dspy_jobs.cli.failures import InputMistake, say
from dspy_jobs.cli.options import (
    AsJson,
    CacheOnly,
    JobId,
    MaxAge,
    Model,
    Namespace,
    NoCache,
    Refresh,
    Timeout,
    Urgency,
    Variant,
    Wait,
    cache_fields,
    shared,
)
from dspy_jobs.states import JobStatus

if TYPE_CHECKING:
    from dspy_jobs.models import Job

Pairs = Annotated[
    list[str] | None, typer.Option("--input", "-i", metavar="NAME=VALUE", help="An input as text; repeat it for more.")
]
InputsJson = Annotated[
    str | None, typer.Option("--json", metavar="OBJECT", help="Inputs as a JSON object, where text is not enough.")
]
CustomId = Annotated[str | None, typer.Option(help="Your own id of the job.")]


def submit(
    ctx: typer.Context,
    program: Annotated[str, typer.Argument(help="Name of a program; see `dspy-jobs programs`.", show_default=False)],
    pairs: Pairs = None,
    inputs_json: InputsJson = None,
    model: Model = None,
    priority: Urgency = None,
    no_cache: NoCache = False,
    refresh: Refresh = False,
    cache_only: CacheOnly = False,
    max_age: MaxAge = None,
    namespace: Namespace = None,
    variant: Variant = None,
    custom_id: CustomId = None,
    wait: Wait = False,
    timeout: Timeout = None,
) -> None:
    """Queue one job and print its id; with --wait (or --timeout) print the finished job instead."""
    inputs = parse_inputs(pairs or [], inputs_json)
    cache = cache_fields(no_cache, refresh, cache_only, max_age, namespace)
    with connect(ctx) as client:
        options = shared(model, priority, cache)
        job = client.submit(program, inputs, custom_id=custom_id, variant=variant, **options)
        if not wait and timeout is None:
            print(job.id)
            return
        say(f"{job.id} is queued")
        _finish(client.wait(job.id, timeout), as_json=False)


def get(ctx: typer.Context, job_id: JobId, as_json: AsJson = False) -> None:
    """Show a job as it is now. Exits 0 whatever became of the job."""
    with connect(ctx) as client:
        _show(client.get(job_id), as_json)


def list_jobs(
    ctx: typer.Context,
    status: Annotated[JobStatus | None, typer.Option(help="Only jobs of this status, as failed.")] = None,
    program: Annotated[str | None, typer.Option(help="Only jobs of this program.")] = None,
    model: Annotated[str | None, typer.Option(help="Only jobs on this model.")] = None,
    batch: Annotated[str | None, typer.Option(help="Only jobs of this batch, by its id.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="So many at most.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List the newest jobs, each with why it failed if it did."""
    from dspy_jobs.cli.display import print_jobs, print_json

    with connect(ctx) as client:
        found = client.jobs(
            status=status.value if status else None, program=program, model=model, batch=batch, limit=limit
        )
    if as_json:
        print_json([job.model_dump(mode="json", exclude_unset=True) for job in found])
    else:
        print_jobs(found)


def wait(ctx: typer.Context, job_id: JobId, timeout: Timeout = None, as_json: AsJson = False) -> None:
    """Wait for a job and show it. Exits 1 unless it succeeded."""
    with connect(ctx) as client:
        _finish(client.wait(job_id, timeout), as_json)


def cancel(ctx: typer.Context, job_id: JobId, as_json: AsJson = False) -> None:
    """Stop a job: at once if it is queued, else before its next model call; a call under way is let end."""
    with connect(ctx) as client:
        job = client.cancel(job_id)
    if as_json:
        _show(job, as_json)
    else:
        say(f"{job.id} is {job.status if job.is_done else 'being canceled'}")


def parse_inputs(pairs: list[str], inputs_json: str | None) -> dict[str, Any]:
    """Inputs of `--json`, with those of `--input` over them.

    Raises:
        InputMistake: either is not what it must be.
    """
    inputs = _object(inputs_json) if inputs_json is not None else {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator or not name:
            raise InputMistake(f"--input {pair}: write it as NAME=VALUE")
        inputs[name] = value
    return inputs


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputMistake(f"--json is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise InputMistake('--json must be an object of inputs by name, for example {"question": "…"}')
    return value


def _finish(job: Job, as_json: bool) -> None:
    _show(job, as_json)
    if job.status is not JobStatus.SUCCEEDED:
        raise typer.Exit(ExitCode.FAILED)


def _show(job: Job, as_json: bool) -> None:
    from dspy_jobs.cli.display import print_job, print_json

    print_json(job) if as_json else print_job(job)
