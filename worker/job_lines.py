"""What the log tells of the jobs this worker ran, answered or found expired: one line each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import dspy
import orjson

from dspy_jobs import job_lines
from dspy_jobs.job_lines import UNUSED, JobLine
from dspy_jobs.logs import carried_ids, shortened
from dspy_jobs.money import dollars
from dspy_jobs.states import JobStatus
from dspy_jobs.store.endings import waits
from dspy_jobs.store.flights import Answered
from dspy_jobs.store.records import Claim
from worker.attempt import Settlement
from worker.context import AttemptContext
from worker.reuse import Job


@dataclass(frozen=True, slots=True)
class Ended:
    """An attempt that ended, how, and what its line bears."""

    claim: Claim
    settlement: Settlement
    ids: Mapping[str, Any]
    shares: bool
    """Whether its output was looked up in the cache before."""
    job: Job | None = None
    """None if it was given up from outside of its thread."""


def ids_of(job_id: str, batch_id: str, attempt: int, request: Mapping[str, Any]) -> dict[str, Any]:
    """What each line about an attempt bears, as far as there is such a thing."""
    ids = {"job_id": job_id, "batch_id": batch_id, "attempt": attempt, "request_id": request.get("request_id")}
    return {name: value for name, value in ids.items() if value}


def ids_of_program(known: Mapping[str, Any]) -> Mapping[str, Any]:
    """The ids of the job whose program runs here: in threads that DSPy has started for it nothing is bound."""
    if "job_id" in known:
        return {}
    attempt: AttemptContext | None = dspy.settings.get("job")
    return attempt.ids if attempt else {}


def ended(claim: Claim, settlement: Settlement, job: Job) -> Ended:
    """An attempt that has just ended in this thread, with the ids of this moment, such as its trace's."""
    return Ended(claim, settlement, carried_ids(), job.wish is not None, job)


def tell_attempt(ended: Ended, answer: bool | str, *, shows_content: bool) -> None:
    """An attempt's end was made known; `answer` is what the ledger said to it."""
    line = _line(ended)
    line.update(cast(JobLine, ended.settlement.raised))
    if shows_content:
        line |= _content(ended)
    status = ended.settlement.status
    if answer in (False, "stale"):
        job_lines.tell_discarded(ended.ids, line)
    elif status != "retrying":
        job_lines.tell_ended(status, ended.ids, line)
    elif answer == "canceled":
        job_lines.tell_ended(JobStatus.CANCELED, ended.ids, line | JobLine(code="canceled"))
    else:
        job_lines.tell_retrying(ended.ids, line)


def _line(ended: Ended) -> JobLine:
    claim, attempt = ended.claim, ended.settlement.attempt
    usage = attempt.usage
    return JobLine(
        program=claim.program,
        variant=claim.variant or None,
        model=claim.model,
        wait_seconds=(claim.first_started_at - claim.created_at) / 1000,
        run_seconds=(attempt.ended_at - attempt.started_at) / 1000,
        total_seconds=(attempt.ended_at - claim.created_at) / 1000,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        calls=usage.calls,
        cost_usd=dollars(attempt.cost_nanos),
        cache="miss" if ended.shares else "bypass",
        code=attempt.error.code if attempt.error else None,
    )


def _content(ended: Ended) -> JobLine:
    settlement, content = ended.settlement, JobLine()
    if ended.job:
        content["inputs"] = shortened(ended.job.request.get("inputs"))
    if settlement.output is not None:
        content["output"] = shortened(settlement.output)
    if settlement.attempt.error:
        content["detail"] = settlement.attempt.error.detail
    return content


def tell_answered(job: Job, found: Answered, answer: str, *, shows_content: bool) -> None:
    """A job was to end with an output made before; `answer` is what the ledger said to it."""
    line = _line_without_attempt(job) | JobLine(cache=found.how, code=None)
    if shows_content:
        output = orjson.loads(found.outcome)["result"]
        line |= JobLine(inputs=shortened(job.request.get("inputs")), output=shortened(output))
    if answer == "finished":
        job_lines.tell_ended(JobStatus.SUCCEEDED, _ids_of_next(job), line)
    elif answer == "stale":
        job_lines.tell_discarded(_ids_of_next(job), line)
    elif answer == "expired":
        tell_expired(job)


def tell_expired(job: Job) -> None:
    """A job this worker had taken was found to have waited for too long."""
    line = _line_without_attempt(job) | JobLine(cache=None, code="expired")
    job_lines.tell_ended(JobStatus.EXPIRED, _ids_of_next(job), line)


def _ids_of_next(job: Job) -> dict[str, Any]:
    return ids_of(job.id, job.taken.batch, job.taken.attempts + 1, job.request)


def _line_without_attempt(job: Job) -> JobLine:
    taken = job.taken
    line = JobLine(program=taken.program, variant=taken.variant or None, model=taken.model)
    return line | waits(job.id, taken.at, taken.at) | UNUSED
