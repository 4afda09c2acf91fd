"""Single jobs: submit, read, list, cancel, retry, erase."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from api.admission import (
    check_times,
    encode,
    find_program,
    read_submission,
    refusal,
    shared_record,
)
from api.answers import json_answer, problem_answer, tagged_answer
from api.idempotency import reservation_of
from api.reading import bad_cursor, bad_parameter, choice, json_body, page_size, query, wait_seconds
from api.resources import Resources, resources_of
from api.routing import Routing, client_of
from api.tracing import sending_job
from dspy_jobs.ids import is_batch_id, is_job_id, new_job_id
from dspy_jobs.logs import bind_id
from dspy_jobs.problems import CODES, Problem, ProblemError, fail
from dspy_jobs.states import JobStatus
from dspy_jobs.store.operations import (
    JobFilter,
    Lifetimes,
    cancel_job,
    erase_job,
    list_jobs,
    read_jobs,
    retry_jobs,
    submit_job,
)
from dspy_jobs.store.records import StoredJob
from dspy_jobs.submissions import BUILT_IN_PROGRAM, JobSubmission
from dspy_jobs.views import job_view, retry_after

#: Seconds `POST /v1/predict` waits when the caller does not say.
PREDICT_SECONDS = 30
#: Steps of the search for matching jobs in one listing, 2000 jobs each; then the page ends early.
_MOST_SCANS = 10

STATUSES = tuple(status.value for status in JobStatus)
_UNFINISHED = tuple(status.value for status in JobStatus if not status.is_terminal)


# ---- submit ----------------------------------------------------------------------------------------------------


async def post_job(request: Request) -> Response:
    """Submit a job; `Prefer: wait=N` holds the line until it has ended."""
    resources = resources_of(request)
    query(request, ())
    job = await submit(request, resources)
    seconds = wait_seconds(request, resources.settings.limits.wait_seconds)
    if seconds:
        job = await ended_within(resources, job, seconds)
    return _accepted(job, seconds)


async def post_predict(request: Request) -> Response:
    """Submit a job and wait for its end in one call."""
    resources = resources_of(request)
    query(request, ())
    longest = resources.settings.limits.wait_seconds
    preferred = wait_seconds(request, longest)
    job = await submit(request, resources)
    job = await ended_within(resources, job, preferred or min(PREDICT_SECONDS, longest))
    if not _has_ended(job):
        return _accepted(job, preferred)
    if job.status == JobStatus.SUCCEEDED:
        return json_answer(job_view(job), 200, _applied(preferred))
    return problem_answer(request.scope, _failure(job), _applied(preferred))


def _failure(job: StoredJob) -> Problem:
    problem = Problem.model_validate((job.outcome or {})["problem"])
    return problem.model_copy(update={"job_id": job.id, "status": CODES[problem.code].status})


async def submit(request: Request, resources: Resources) -> StoredJob:
    """Check a submission and queue its job.

    Raises:
        ProblemError: the submission is refused.
    """
    settings, reservation = resources.settings, reservation_of(request)
    if reservation and reservation.exists:
        return await find_job(resources, reservation.id)
    content = await json_body(request, settings.limits.item_bytes, "A job")
    submission = read_submission(JobSubmission, content)
    check_times(settings, submission)
    program = await find_program(resources, submission.program or BUILT_IN_PROGRAM)
    routing = Routing.of(settings, program, submission, client_of(request, settings))
    inputs = submission.program_inputs()
    if mistakes := program.mistakes(inputs):
        raise refusal("invalid_input", mistakes)
    job_id = reservation.id if reservation else new_job_id()
    bind_id("job_id", job_id)
    route = routing.route(job_id, submission.request_id, submission.custom_id)
    record = shared_record(request, submission, routing.version(route.variant))
    record["inputs"] = inputs
    if submission.custom_id is not None:
        record["custom_id"] = submission.custom_id
    attempts = submission.max_attempts or settings.jobs.max_attempts
    fields = {"program": program.description.name, "model": route.model, "max_attempts": attempts}
    fields |= {"variant": route.variant} if route.variant else {}
    fields |= {"client": routing.client} if routing.client != "default" else {}
    return await _queue(resources, job_id, submission, route.queue, fields, record)


async def _queue(
    resources: Resources,
    job_id: str,
    submission: JobSubmission,
    queue: str,
    fields: dict[str, Any],
    record: dict[str, Any],
) -> StoredJob:
    settings = resources.settings
    lifetimes = Lifetimes.of(settings.jobs, submission.expires_in_seconds)
    # Asked for before the job is accepted: nothing may fail between that and the answer.
    slots = await resources.capacity.slots(queue)
    with sending_job(job_id, queue, fields) as span:
        accepted, number = await resources.store.run(
            submit_job(
                job_id,
                encode({**record, **span.carrier}),
                queue,
                submission.priority.step,
                fields,
                lifetimes,
                settings.limits.queued_jobs,
            )
        )
        if not accepted:
            raise queue_full(number, settings.limits.queued_jobs)
    seen = {
        "status": "queued",
        "attempt": "0",
        "created_at": number,
        "expires_at": number + lifetimes.expires_in,
    }
    shown = {name: str(value) for name, value in {**fields, **seen}.items()}
    return StoredJob(job_id, shown, record, None, [], None, slots, "")


def queue_full(queued: int, limit: int) -> ProblemError:
    """What a submission gets while too many jobs are queued."""
    detail = f"{queued} jobs are queued and {limit} are allowed; try again when some have run."
    return ProblemError(fail("queue_full", detail).problem, {"retry-after": "5"})


def _accepted(job: StoredJob, preferred: int) -> Response:
    headers = {"location": f"/v1/jobs/{job.id}", **_applied(preferred)}
    if not _has_ended(job):
        headers["retry-after"] = str(retry_after(job, _now_ms()))
    return json_answer(job_view(job), 202, headers)


def _applied(preferred: int) -> dict[str, str]:
    return {"preference-applied": f"wait={preferred}"} if preferred else {}


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


# ---- read ------------------------------------------------------------------------------------------------------


async def get_job(request: Request) -> Response:
    """A job; `Prefer: wait=N` holds the line until it has ended."""
    resources = resources_of(request)
    query(request, ())
    job = await find_job(resources, request.path_params["job_id"])
    seconds = wait_seconds(request, resources.settings.limits.wait_seconds)
    if seconds:
        job = await ended_within(resources, job, seconds)
    headers = _applied(seconds)
    if not _has_ended(job):
        headers["retry-after"] = str(retry_after(job, _now_ms()))
    return tagged_answer(request, resources.jobs.document(job), headers)


async def find_job(resources: Resources, job_id: str) -> StoredJob:
    """A job as it is now.

    Raises:
        ProblemError: there never was one (404), or its retention is over (410).
    """
    job = await resources.jobs.read(job_id) if is_job_id(job_id) else None
    if job is None:
        raise fail("not_found", f"There is no job {job_id!r}.")
    if job.is_gone:
        raise fail("gone", f"The job {job_id} was erased or its retention is over.")
    return job


async def ended_within(resources: Resources, job: StoredJob, seconds: float) -> StoredJob:
    """The job once it has ended, or as it is when the time is over."""
    if _has_ended(job):
        return job
    read = partial(_read_again, resources, job)
    return await resources.room.wait(job.id, seconds, read, _has_ended, job)


async def _read_again(resources: Resources, job: StoredJob) -> StoredJob:
    found = await resources.jobs.read(job.id)
    return job if found is None or found.is_gone else found


def _has_ended(job: StoredJob) -> bool:
    return job.status not in _UNFINISHED


async def get_jobs(request: Request) -> Response:
    """The newest jobs that fit."""
    resources = resources_of(request)
    given = query(request, ("status", "program", "model", "variant", "batch", "limit", "after"))
    status = choice(given, "status", STATUSES)
    texts = {name: given.get(name, "") for name in ("program", "model", "variant", "batch")}
    after, limit = given.get("after", ""), page_size(given)
    if after and not is_job_id(after):
        raise bad_cursor()
    if texts["batch"] and not is_batch_id(texts["batch"]):
        raise bad_parameter("batch", "batch must be a batch's id, batch_….")
    ids, following = await _matching(resources, after, limit, JobFilter(status=status, **texts))
    jobs = await resources.store.run(read_jobs(ids)) if ids else []
    data = [job_view(job) for job in jobs if job is not None and not job.is_gone]
    return json_answer({"data": data, "has_more": following is not None, "next": following})


async def _matching(resources: Resources, after: str, limit: int, wanted: JobFilter) -> tuple[list[str], str | None]:
    """Ids of a page of matching jobs, and the cursor of the next page."""
    found: list[str] = []
    for _ in range(_MOST_SCANS):
        after, ids = await resources.store.run(list_jobs(after, limit + 1 - len(found), wanted))
        found += ids
        if len(found) > limit:
            return found[:limit], found[limit - 1]
        if not after:
            return found, None
    return found, after


# ---- change ----------------------------------------------------------------------------------------------------


async def post_cancel(request: Request) -> Response:
    """Cancel a job: at once if it is queued, by asking its worker if it runs."""
    resources = resources_of(request)
    query(request, ())
    job_id = request.path_params["job_id"]
    await find_job(resources, job_id)
    what, status = await resources.store.run(cancel_job(job_id))
    if what == "finished":
        raise fail("conflict", f"The job has already {status}; only a queued or running job can be canceled.")
    job = await find_job(resources, job_id)
    return json_answer(job_view(job), 202 if what == "canceling" else 200)


async def post_retry(request: Request) -> Response:
    """Queue a failed, canceled or expired job again, under its id."""
    resources = resources_of(request)
    query(request, ())
    job_id = request.path_params["job_id"]
    await find_job(resources, job_id)
    requeued, status = await resources.store.run(retry_jobs([job_id], Lifetimes.of(resources.settings.jobs)))
    if not requeued:
        raise fail("conflict", f"The job is {status}; only a failed, canceled or expired job can be retried.")
    return _accepted(await find_job(resources, job_id), 0)


async def delete_job(request: Request) -> Response:
    """Erase an ended job's inputs and outputs."""
    resources = resources_of(request)
    query(request, ())
    job_id = request.path_params["job_id"]
    await find_job(resources, job_id)
    answer = await resources.store.run(erase_job(job_id))
    if answer in STATUSES:
        raise fail("conflict", f"The job is {answer}; cancel it first, then erase it.")
    return Response(None, 204)
