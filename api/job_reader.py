"""Reads single jobs, many in one go.

Thousands poll at once, each for one job. What is asked for while a read is under way goes together into the next
one, as a single operation: that halves what a poll costs this process and Redis. A lone request waits for nothing.
Most polls find the job as it was: what was made of it the last time is then used again.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from api.answers import Document, document
from dspy_jobs.store import AsyncStore
from dspy_jobs.store.operations import read_rows
from dspy_jobs.store.records import StoredJob, stored_job
from dspy_jobs.views import job_view

#: Jobs in one read at most: more would make the first wait for the last.
_MOST_JOBS = 64
#: Reads under way at once.
_MOST_READS = 2
#: Jobs remembered, and the most bytes of one: ten MiB in all at the very most.
_MOST_SEEN = 512
_LONGEST_SEEN = 8_192


@dataclass(slots=True)
class Seen:
    """A job as Redis gave it, and what was made of that."""

    row: list[Any]
    job: StoredJob | None
    document: Document | None = None


class JobReader:
    """Reads jobs by their ids."""

    def __init__(self, store: AsyncStore) -> None:
        self._store = store
        self._wanted: dict[str, list[asyncio.Future[StoredJob | None]]] = {}
        self._reads: set[asyncio.Task[None] | None] = set()
        self._seen: OrderedDict[str, Seen] = OrderedDict()

    def document(self, job: StoredJob) -> Document:
        """A job as HTTP shows it. It must not be gone."""
        seen = self._seen.get(job.id)
        if seen is None or seen.job is not job:
            return document(job_view(job))
        if seen.document is None:
            seen.document = document(job_view(job))
        return seen.document

    async def read(self, job_id: str) -> StoredJob | None:
        """A job as it is after this call, or None where there is none.

        Raises:
            redis.exceptions.RedisError: Redis is unreachable.
        """
        answer: asyncio.Future[StoredJob | None] = asyncio.get_running_loop().create_future()
        self._wanted.setdefault(job_id, []).append(answer)
        if len(self._reads) < _MOST_READS:
            self._reads.add(asyncio.create_task(self._read_wanted()))
        return await answer

    async def _read_wanted(self) -> None:
        while self._wanted:
            ids = list(islice(self._wanted, _MOST_JOBS))
            asked = [self._wanted.pop(job_id) for job_id in ids]
            try:
                rows = await self._store.run(read_rows(ids))
                jobs = [self._made_of(job_id, row) for job_id, row in zip(ids, rows, strict=True)]
            except Exception as error:  # noqa: BLE001  # whatever it was, those who asked must hear of it
                for answer in _open(asked):
                    answer.set_exception(error)
                continue
            for answers, job in zip(asked, jobs, strict=True):
                for answer in _open([answers]):
                    answer.set_result(job)
        # Here and not in a callback, which would come later: whoever asked in between would wait for nobody.
        self._reads.discard(asyncio.current_task())

    def _made_of(self, job_id: str, row: list[Any]) -> StoredJob | None:
        seen = self._seen.get(job_id)
        if seen is not None and seen.row == row:
            return seen.job
        self._seen.pop(job_id, None)
        job = stored_job(job_id, row)
        if row and _size(row) <= _LONGEST_SEEN:
            self._seen[job_id] = Seen(row, job)
            if len(self._seen) > _MOST_SEEN:
                self._seen.popitem(last=False)
        return job


def _size(row: list[Any]) -> int:
    """Bytes of the parts that can be large: request, outcome, attempts, what the batch shares."""
    _, request, outcome, attempts, shared, *_ = row
    return sum(len(part or b"") for part in (request, outcome, shared, *attempts))


def _open(asked: list[list[asyncio.Future[StoredJob | None]]]) -> Iterator[asyncio.Future[StoredJob | None]]:
    """Those who still wait; a request may have been abandoned meanwhile."""
    return (answer for answers in asked for answer in answers if not answer.done())
