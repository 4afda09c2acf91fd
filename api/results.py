"""A batch's results as NDJSON, at any time, with a cursor that stays good.

The cursor is a position in the batch's list of finished jobs (`r…`) or of items (`i…`). The first list only ever grows;
a job that is retried leaves an entry behind that no longer counts, told by the `place` its record carries.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import cast
from zlib import crc32

import orjson
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from api.batches import find_batch
from api.reading import NDJSON, bad_cursor, choice, number, query
from api.resources import Resources, resources_of
from dspy_jobs import names
from dspy_jobs.problems import fail
from dspy_jobs.states import BatchStatus, JobStatus
from dspy_jobs.store.operations import read_jobs
from dspy_jobs.store.records import StoredBatch, StoredJob
from dspy_jobs.views import job_result

#: Jobs read in one step, and the bytes it aims at: large outputs are read a few at a time.
_STEP = 200
_STEP_BYTES = 1_000_000
#: Largest `limit`.
LARGEST_LIMIT = 50_000

ENDED_STATUSES = tuple(status.value for status in JobStatus if status.is_terminal)
ORDERS = ("completion", "input")
_CURSOR = re.compile(r"([ri])(\d{1,9})-([0-9a-f]{8})\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class Stretch:
    """Entries `start` to `end` (not included) of one of a batch's two lists."""

    batch: StoredBatch
    order: str
    status: str
    start: int
    end: int

    @property
    def key(self) -> str:
        """The list's name in Redis."""
        return names.batch_jobs(self.batch.id) if self.order == "input" else names.batch_results(self.batch.id)

    def counts(self, place: int, job_place: str | None, status: str | None) -> bool:
        """Whether the job at this entry belongs to the answer."""
        if status is None or not JobStatus(status).is_terminal or self.status not in ("", status):
            return False
        return self.order == "input" or job_place == str(place)


async def get_results(request: Request) -> Response:
    """Stream the results there are."""
    resources = resources_of(request)
    given = query(request, ("status", "limit", "after", "order"))
    status = choice(given, "status", ENDED_STATUSES)
    order = choice(given, "order", ORDERS, "completion")
    start = _position(given.get("after"), order, request.path_params["batch_id"])
    limit = number(given, "limit", 0, LARGEST_LIMIT)
    batch = await find_batch(resources, request.path_params["batch_id"])
    if order == "input" and batch.status != BatchStatus.ENDED:
        detail = f"The batch is {batch.status}; order=input is for batches that have ended."
        raise fail("conflict", detail)
    length = int(batch.fields["total"]) if order == "input" else batch.results
    if start > length:
        raise bad_cursor()
    stretch = Stretch(batch, order, status, start, length)
    end = await _end_of_page(resources, stretch, limit) if limit else length
    headers = {"x-next-cursor": f"{_letter(order)}{end}-{_mark(batch.id)}"}
    if batch.status != BatchStatus.ENDED or end < length:
        headers["x-incomplete"] = "true"
    page = Stretch(batch, order, status, start, end)
    return StreamingResponse(_lines(resources, page), 200, headers, NDJSON)


def _letter(order: str) -> str:
    return "i" if order == "input" else "r"


def _mark(batch_id: str) -> str:
    """Tells a batch's cursors from those of others, so that a mix-up skips no results silently."""
    return f"{crc32(batch_id.encode()):08x}"


def _position(cursor: str | None, order: str, batch_id: str) -> int:
    if cursor is None:
        return 0
    found = _CURSOR.match(cursor)
    if found is None or (found[1], found[3]) != (_letter(order), _mark(batch_id)):
        raise bad_cursor()
    return int(found[2])


async def _end_of_page(resources: Resources, stretch: Stretch, limit: int) -> int:
    """Where the page ends that holds `limit` results: known before its first line, for the header."""
    place, left = stretch.start, limit
    while place < stretch.end:
        ids = await _ids(resources, stretch, place, min(stretch.end, place + _STEP))
        async with resources.store.redis.pipeline(transaction=False) as pipe:
            for job_id in ids:
                pipe.hmget(names.job(job_id), "place", "status")
                pipe.exists(names.job_request(job_id))
            replies = await pipe.execute()
        for (job_place, status), kept in zip(replies[::2], replies[1::2], strict=True):
            left -= bool(kept) and stretch.counts(place, _text(job_place), _text(status))
            place += 1
            if not left:
                return place
        if not ids:
            break
    return place


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode()


async def _ids(resources: Resources, stretch: Stretch, start: int, end: int) -> list[str]:
    raw = await resources.store.redis.lrange(stretch.key, start, end - 1)
    return [job_id.decode() for job_id in cast("list[bytes]", raw)]


async def _lines(resources: Resources, page: Stretch) -> AsyncIterator[bytes]:
    place, step = page.start, _STEP // 10
    while place < page.end:
        ids = await _ids(resources, page, place, min(page.end, place + step))
        if not ids:
            return
        jobs = await resources.store.run(read_jobs(ids, page.batch.request or {}))
        lines = b"".join(_line(job) for i, job in enumerate(jobs) if _belongs(page, place + i, job))
        place += len(ids)
        mean = max(1, len(lines) // len(ids))
        step = max(1, min(_STEP, _STEP_BYTES // mean))
        if lines:
            yield lines


def _belongs(page: Stretch, place: int, job: StoredJob | None) -> bool:
    if job is None or job.is_gone:
        return False
    return page.counts(place, job.fields.get("place"), job.status)


def _line(job: StoredJob | None) -> bytes:
    assert job is not None, "only jobs that belong to the page are written"
    return orjson.dumps(job_result(job), option=orjson.OPT_APPEND_NEWLINE)
