"""Spans of jobs' attempts, by OpenTelemetry's conventions for messaging.

What those have no word for is called `dspy_jobs.…`. Where tracing is off, nothing is made but a look whether it is.
"""

from __future__ import annotations

from collections.abc import Iterable

from dspy_jobs import names, telemetry
from dspy_jobs.money import dollars
from dspy_jobs.store.flights import Answered
from dspy_jobs.store.records import Claim
from dspy_jobs.telemetry import NO_SPAN, Place, Span
from worker.attempt import Settlement
from worker.reuse import Job


def attempt_span(claim: Claim, job: Job, worker: str) -> Span:
    """The span of an attempt that runs here."""
    if not telemetry.is_on():
        return NO_SPAN
    attributes = {
        **_of_job(claim.id, claim.model, worker, claim.batch, claim.program, claim.variant, claim.attempt),
        "dspy_jobs.cache": "miss" if job.wish else "bypass",
    }
    place = Place(claim.id, claim.attempt, job.request)
    return telemetry.attempt_span(f"process {names.queue(claim.model)}", attributes, place)


def _of_job(
    job_id: str, model: str, worker: str, batch: str, program: str, variant: str, attempt: int
) -> dict[str, str | int | None]:
    return {
        "messaging.system": "celery",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": names.queue(model),
        "messaging.message.id": job_id,
        "messaging.client.id": worker,
        "dspy_jobs.batch.id": batch or None,
        "dspy_jobs.program": program,
        "dspy_jobs.variant": variant or None,
        "dspy_jobs.model": model,
        "dspy_jobs.attempt": attempt,
    }


def attempt_ended(span: Span, settlement: Settlement) -> None:
    """Say how an attempt ended, and end its span."""
    if not telemetry.is_on():
        return
    attempt = settlement.attempt
    # No tokens and no cost: whoever sums those over spans would count the calls' twice.
    span.set(
        {
            "dspy_jobs.status": settlement.status,
            "dspy_jobs.calls": attempt.usage.calls,
            "dspy_jobs.replayed_calls": attempt.replayed or None,
        }
    )
    if attempt.error and attempt.error.code != "canceled":
        span.fail(attempt.error.code)
    span.end()


def jobs_answered(jobs: Iterable[Job], answered: Iterable[Answered], worker: str) -> None:
    """A span for each of these jobs that ended with an output made before."""
    if not telemetry.is_on():
        return
    by_id = {job.id: job for job in jobs}
    for answer in answered:
        job = by_id[answer.job_id]
        taken, number = job.taken, job.taken.attempts + 1
        attributes = {
            **_of_job(job.id, taken.model, worker, taken.batch, taken.program, taken.variant, number),
            "dspy_jobs.status": "succeeded",
            "dspy_jobs.cache": answer.how,
            "dspy_jobs.leader": taken.leader or None,
            "dspy_jobs.saved_usd": dollars(answer.saved_nanos),
        }
        place = Place(job.id, number, job.request)
        telemetry.attempt_span(f"process {names.queue(taken.model)}", attributes, place).end()
