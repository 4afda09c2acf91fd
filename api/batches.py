"""Batches: submit, read, list, cancel, pause, resume, retry."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from contextlib import suppress
from functools import partial
from typing import Any, cast

from redis.exceptions import RedisError
from starlette.requests import Request
from starlette.responses import Response

from api import estimates
from api.admission import encode, read_submission, shared_record
from api.answers import document, json_answer, tagged_answer
from api.batch_body import check_batch, is_dry_run, read_batch_body
from api.batch_limits import change_of, limits_of
from api.idempotency import reservation_of
from api.reading import bad_cursor, choice, optional_json_body, page_size, query, wait_seconds
from api.resources import Resources, resources_of
from api.tracing import carried_by_batch, sending_batch
from api.uploads import Upload
from dspy_jobs import chores, money, names
from dspy_jobs.ids import is_batch_id, new_batch_id
from dspy_jobs.logs import bind_id
from dspy_jobs.problems import fail
from dspy_jobs.states import BatchStatus, PauseReason
from dspy_jobs.store.operations import BatchHead, Lifetimes, cancel_batch, pause_batch, read_batch, resume_batch
from dspy_jobs.store.records import StoredBatch
from dspy_jobs.submissions import Resumption
from dspy_jobs.views import batch_view

#: Seconds a change of a large batch is waited for; then it goes on beside the requests.
_PATIENCE_SECONDS = 1.0

STATUSES = tuple(status.value for status in BatchStatus)


# ---- submit ----------------------------------------------------------------------------------------------------


async def post_batch(request: Request) -> Response:
    """Submit a batch, as JSON or as a stream of lines; with `dry_run=true` only say what it would come to."""
    if is_dry_run(request):
        return await estimates.estimate_batch(request)
    resources = resources_of(request)
    reservation = reservation_of(request)
    if reservation and reservation.exists:
        batch_id = reservation.id
    else:
        batch_id = await _upload(request, resources)
    batch = await find_batch(resources, batch_id)
    seconds = wait_seconds(request, resources.settings.limits.wait_seconds)
    if seconds:
        batch = await _ended_within(resources, batch, seconds)
    headers = {"location": f"/v1/batches/{batch.id}", **_headers(batch, seconds)}
    return json_answer(_view(batch), 202, headers)


async def _upload(request: Request, resources: Resources) -> str:
    settings = resources.settings
    content, items = await read_batch_body(request, settings.limits)
    upload, record = await _begin(request, resources, content)
    with sending_batch(upload.head.id, upload.head.queue, upload.head.program) as span:
        try:
            async for _ in items(upload.items):
                await upload.stage_full()
            carried = carried_by_batch(span, request.scope, upload.items.total, settings.tracing.jobs_per_trace)
            await upload.commit(encode({**record, **carried}))
        except BaseException:
            await _discard(resources, upload)
            raise
    return await _release(resources, upload)


async def _begin(request: Request, resources: Resources, content: dict[str, Any]) -> tuple[Upload, dict[str, Any]]:
    """Check what all items share."""
    settings, reservation = resources.settings, reservation_of(request)
    submission, routing = await check_batch(request, resources, content)
    program = routing.program
    batch_id = reservation.id if reservation else new_batch_id()
    bind_id("batch_id", batch_id)
    head = BatchHead(
        id=batch_id,
        queue=names.queue(routing.default_model),
        step=submission.priority.step,
        program=program.description.name,
        model=routing.default_model,
        max_attempts=submission.max_attempts or settings.jobs.max_attempts,
        lifetimes=Lifetimes.of(settings.jobs, submission.expires_in_seconds),
        limits=await limits_of(resources, submission.limits, routing.models),
        client=routing.client,
    )
    record = shared_record(request, submission, routing.version(submission.variant or ""))
    encode(record)  # what cannot be kept is refused before the items are read
    return Upload(resources, head, routing, record["program_version"], reservation), record


async def _discard(resources: Resources, upload: Upload) -> None:
    """Discard in a task of its own, so that it is done even if the caller has gone."""
    await asyncio.wait({resources.start(_quietly(upload.discard()))})


async def _quietly(work: Coroutine[Any, Any, Any]) -> None:
    with suppress(RedisError):  # the housekeepers go on with it
        await work


async def _release(resources: Resources, upload: Upload) -> str:
    # The batch is accepted by now, so a failure here is no failure of the request: the housekeepers go on.
    plan = chores.release(upload.head.id, resources.settings.worker.chunk_size)
    await asyncio.wait({resources.start(_quietly(resources.store.follow(plan)))}, timeout=_PATIENCE_SECONDS)
    return upload.head.id


# ---- read ------------------------------------------------------------------------------------------------------


async def find_batch(resources: Resources, batch_id: str) -> StoredBatch:
    """A batch as it is now.

    Raises:
        ProblemError: there never was one (404), or its retention is over (410).
    """
    batch = await resources.store.run(read_batch(batch_id)) if is_batch_id(batch_id) else None
    if batch is None:
        raise fail("not_found", f"There is no batch {batch_id!r}.")
    if batch.request is None:
        raise fail("gone", f"The retention of the batch {batch_id} is over.")
    return batch


async def get_batch(request: Request) -> Response:
    """A batch; `Prefer: wait=N` holds the line until it has ended."""
    resources = resources_of(request)
    query(request, ())
    batch = await find_batch(resources, request.path_params["batch_id"])
    seconds = wait_seconds(request, resources.settings.limits.wait_seconds)
    if seconds:
        batch = await _ended_within(resources, batch, seconds)
    return tagged_answer(request, document(_view(batch)), _headers(batch, seconds))


def _view(batch: StoredBatch) -> dict[str, Any]:
    return batch_view(batch, time.time_ns() // 1_000_000)


def _headers(batch: StoredBatch, seconds: int) -> dict[str, str]:
    headers = {"preference-applied": f"wait={seconds}"} if seconds else {}
    return headers if _has_ended(batch) else {**headers, "retry-after": "1"}


def _has_ended(batch: StoredBatch) -> bool:
    return batch.status == BatchStatus.ENDED


async def _ended_within(resources: Resources, batch: StoredBatch, seconds: float) -> StoredBatch:
    if _has_ended(batch):
        return batch
    read = partial(find_batch, resources, batch.id)
    return await resources.room.wait(batch.id, seconds, read, _has_ended, batch)


async def get_batches(request: Request) -> Response:
    """The newest batches that fit."""
    resources = resources_of(request)
    given = query(request, ("status", "limit", "after"))
    status, limit, after = choice(given, "status", STATUSES), page_size(given), given.get("after", "")
    if after and not is_batch_id(after):
        raise bad_cursor()
    found: list[StoredBatch] = []
    start = f"({after}" if after else "+"
    while len(found) <= limit:
        raw = await resources.store.redis.zrevrangebylex(names.BATCHES, start, "-", 0, limit + 1)
        ids = [batch_id.decode() for batch_id in cast("list[bytes]", raw)]
        read = [resources.store.run(read_batch(batch_id)) for batch_id in ids]
        batches = [batch for batch in await asyncio.gather(*read) if batch is not None and batch.request is not None]
        found += [batch for batch in batches if status in ("", batch.status)]
        if len(ids) <= limit:
            break
        start = f"({ids[-1]}"
    page = found[:limit]
    following = page[-1].id if len(found) > limit else None
    return json_answer({"data": [_view(b) for b in page], "has_more": following is not None, "next": following})


# ---- change ----------------------------------------------------------------------------------------------------


async def post_cancel(request: Request) -> Response:
    """Cancel a batch: queued jobs at once, running ones by asking their workers."""
    resources = resources_of(request)
    query(request, ())
    batch = await find_batch(resources, request.path_params["batch_id"])
    before, position = await resources.store.run(cancel_batch(batch.id))
    if before == BatchStatus.ENDED:
        raise _conflict("ended", "canceled")
    if position >= 0:
        rest = resources.start(_quietly(resources.store.follow(chores.cancel(batch.id))))
        await asyncio.wait({rest}, timeout=_PATIENCE_SECONDS)
    return json_answer(_view(await find_batch(resources, batch.id)), 202)


def _conflict(status: str, wanted: str) -> Exception:
    return fail("conflict", f"The batch is {status}; it can no longer be {wanted}.")


async def post_pause(request: Request) -> Response:
    """Pause a batch: running jobs finish, no further one starts."""
    resources = resources_of(request)
    query(request, ())
    batch = await find_batch(resources, request.path_params["batch_id"])
    before = await resources.store.run(pause_batch(batch.id))
    if before in (BatchStatus.CANCELING, BatchStatus.ENDED):
        raise _conflict(before, "paused")
    return json_answer(_view(await find_batch(resources, batch.id)))


async def post_resume(request: Request) -> Response:
    """Resume a paused batch, under new limits if any are given."""
    resources = resources_of(request)
    query(request, ())
    content = await optional_json_body(request, resources.settings.limits.item_bytes, "A resumption")
    limits = read_submission(Resumption, content).limits
    batch = await find_batch(resources, request.path_params["batch_id"])
    models = [queue.removeprefix(names.queue("")) for queue in batch.fields["queue"].split(",")]
    change = await change_of(resources, limits, models)
    size = resources.settings.worker.chunk_size
    before, number = await resources.store.run(resume_batch(batch.id, size, limit=0, change=change))
    if before == PauseReason.MAX_COST:
        least = money.format_dollars(number)
        raise fail(
            "conflict", f"The batch would have to be paused again at once; give limits.max_cost_usd {least} or more."
        )
    if before in (BatchStatus.CANCELING, BatchStatus.ENDED):
        raise _conflict(before, "resumed")
    rest = resources.start(_quietly(resources.store.follow(chores.send_rest(batch.id, size))))
    await asyncio.wait({rest}, timeout=_PATIENCE_SECONDS)
    return json_answer(_view(await find_batch(resources, batch.id)))
