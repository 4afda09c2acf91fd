"""`POST /v1/batches/{id}/retry`: queue again what of a batch did not succeed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, cast

import orjson
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from api.admission import read_submission
from api.answers import json_answer
from api.batches import find_batch
from api.reading import optional_json_body, query
from api.resources import Resources, resources_of
from dspy_jobs import names
from dspy_jobs.chunks import chunk_sizes
from dspy_jobs.problems import fail
from dspy_jobs.states import BatchStatus
from dspy_jobs.store.operations import Lifetimes, retry_jobs
from dspy_jobs.store.records import StoredBatch
from dspy_jobs.submissions import _Submission

#: Jobs looked at in one step.
_STEP = 500

Retryable = Literal["failed", "canceled", "expired"]


class BatchRetry(_Submission):
    """Which jobs to queue again; all that failed, were canceled or expired by default."""

    status: Retryable | Annotated[list[Retryable], Field(min_length=1)] | None = Field(
        None, description="Only jobs that ended so."
    )
    custom_ids: Annotated[list[str], Field(min_length=1, max_length=50_000)] | None = Field(
        None, description="Only these items."
    )

    def statuses(self) -> frozenset[str]:
        """The states wanted."""
        if self.status is None:
            return frozenset(("failed", "canceled", "expired"))
        return frozenset((self.status,) if isinstance(self.status, str) else self.status)


async def post_retry(request: Request) -> Response:
    """Queue ended jobs of a batch again; never touches what succeeded."""
    resources = resources_of(request)
    query(request, ())
    content = await optional_json_body(request, resources.settings.limits.batch_bytes, "A retry")
    wanted = read_submission(BatchRetry, content)
    batch = await find_batch(resources, request.path_params["batch_id"])
    if batch.status == BatchStatus.CANCELING:
        raise fail("conflict", "The batch is being canceled; retry when it has ended.")
    requeued = await _requeue(resources, batch, wanted)
    if not requeued:
        raise fail("conflict", "No job of the batch has ended in a way that fits; there is nothing to retry.")
    return json_answer({"requeued": requeued}, 202)


async def _requeue(resources: Resources, batch: StoredBatch, wanted: BatchRetry) -> int:
    queues = batch.fields["queue"].split(",")
    slots = max([await resources.capacity.slots(queue) for queue in queues])
    largest = resources.settings.worker.chunk_size
    lifetimes, requeued, total = Lifetimes.of(resources.settings.jobs), 0, int(batch.fields["total"])
    for start in range(0, total, _STEP):
        ids = await _ended(resources, batch.id, start, wanted)
        if ids:
            size = chunk_sizes(total - start, slots, largest, len(ids))[0]
            requeued += (await resources.store.run(retry_jobs(ids, lifetimes, size)))[0]
    return requeued


async def _ended(resources: Resources, batch_id: str, start: int, wanted: BatchRetry) -> list[str]:
    """Ids of a stretch of the batch that ended as wanted."""
    redis = resources.store.redis
    raw = await redis.lrange(names.batch_jobs(batch_id), start, start + _STEP - 1)
    ids = [job_id.decode() for job_id in cast("list[bytes]", raw)]
    async with redis.pipeline(transaction=False) as pipe:
        for job_id in ids:
            pipe.hget(names.job(job_id), "status")
        states = await pipe.execute()
    statuses = wanted.statuses()
    ids = [job_id for job_id, state in zip(ids, states, strict=True) if state and state.decode() in statuses]
    return ids if wanted.custom_ids is None else await _named(resources, ids, frozenset(wanted.custom_ids))


async def _named(resources: Resources, ids: Sequence[str], custom_ids: frozenset[str]) -> list[str]:
    if not ids:
        return []
    requests = await resources.store.redis.mget([names.job_request(job_id) for job_id in ids])
    pairs = zip(ids, requests, strict=True)
    return [job_id for job_id, raw in pairs if raw and orjson.loads(raw).get("custom_id") in custom_ids]
