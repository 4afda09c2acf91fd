"""Reads single jobs, many in one go.

Thousands poll at once, each for one job. What is asked for while a read is under way goes together into the next
one, as a single operation: that halves what a poll costs this process and Redis. A lone request waits for nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import islice

from dspy_jobs.store import AsyncStore
from dspy_jobs.store.operations import read_jobs
from dspy_jobs.store.records import StoredJob

#: Jobs in one read at most: more would make the first wait for the last.
_MOST_JOBS = 64
#: Reads under way at once.
_MOST_READS = 2


class JobReader:
    """Reads jobs by their ids."""

    def __init__(self, store: AsyncStore) -> None:
        self._store = store
        self._wanted: dict[str, list[asyncio.Future[StoredJob | None]]] = {}
        self._reads: set[asyncio.Task[None]] = set()

    async def read(self, job_id: str) -> StoredJob | None:
        """A job as it is after this call, or None where there is none.

        Raises:
            redis.exceptions.RedisError: Redis is unreachable.
        """
        answer: asyncio.Future[StoredJob | None] = asyncio.get_running_loop().create_future()
        self._wanted.setdefault(job_id, []).append(answer)
        if len(self._reads) < _MOST_READS:
            read = asyncio.create_task(self._read_wanted())
            self._reads.add(read)
            read.add_done_callback(self._reads.discard)
        return await answer

    async def _read_wanted(self) -> None:
        while self._wanted:
            ids = list(islice(self._wanted, _MOST_JOBS))
            asked = [self._wanted.pop(job_id) for job_id in ids]
            try:
                jobs = await self._store.run(read_jobs(ids))
            except Exception as error:  # noqa: BLE001  # whatever it was, those who asked must hear of it
                for answer in _open(asked):
                    answer.set_exception(error)
                continue
            for answers, job in zip(asked, jobs, strict=True):
                for answer in _open([answers]):
                    answer.set_result(job)


def _open(asked: list[list[asyncio.Future[StoredJob | None]]]) -> Iterator[asyncio.Future[StoredJob | None]]:
    """Those who still wait; a request may have been abandoned meanwhile."""
    return (answer for answers in asked for answer in answers if not answer.done())
