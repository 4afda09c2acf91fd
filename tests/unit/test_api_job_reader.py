"""What is remembered of jobs between polls: never more than is true, never more than fits."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import orjson

from api.answers import document
from api.job_reader import _LONGEST_SEEN, _MOST_SEEN, JobReader
from dspy_jobs.store import AsyncStore
from dspy_jobs.store.records import StoredJob
from dspy_jobs.views import job_view


class Redis:
    """Jobs as `read_jobs.lua` gives them."""

    def __init__(self) -> None:
        self.rows: dict[str, list[Any]] = {}

    def put(self, job_id: str, status: str, text: str = "why?") -> None:
        """A job in some state."""
        times = {"created_at": "1000", "expires_at": "2000", "started_at": "1500", "attempt_at": "1500"}
        fields = {"status": status, "program": "qa", "model": "m", "attempt": "1", **times}
        flat = [part.encode() for pair in fields.items() for part in pair]
        request = orjson.dumps({"inputs": {"question": text}, "metadata": {"text": text}})
        self.rows[job_id] = [flat, request, None, [], None, None, 0, b"", None, 0]

    async def run(self, operation: Any) -> Any:
        """Answer a read; every answer is a fresh list, as from a socket."""
        return operation.read([[*self.rows[job_id]] for job_id in operation.args[2:]])


def reader(redis: Redis) -> JobReader:
    """A reader of these jobs."""
    return JobReader(cast("AsyncStore", redis))


async def read(jobs: JobReader, job_id: str) -> StoredJob:
    """A job that is there."""
    job = await jobs.read(job_id)
    assert job is not None
    return job


def test_an_unchanged_job_is_shown_as_before_and_a_changed_one_anew() -> None:
    """The document is made once for each look of a job, and is what it would be if made afresh."""

    async def polls() -> None:
        redis = Redis()
        redis.put("job_1", "queued")
        jobs = reader(redis)
        first, second = await read(jobs, "job_1"), await read(jobs, "job_1")
        assert jobs.document(first) is jobs.document(second)
        redis.put("job_1", "running")
        changed = await read(jobs, "job_1")
        assert changed.status == "running"
        assert jobs.document(changed) == document(job_view(changed))
        assert jobs.document(first) == document(job_view(first)) != jobs.document(changed)

    asyncio.run(polls())


def test_what_is_remembered_stays_small() -> None:
    """Neither many jobs nor large ones gather in memory; they are shown all the same."""

    async def polls() -> None:
        redis = Redis()
        jobs = reader(redis)
        names = [f"job_{number}" for number in range(_MOST_SEEN + 10)]
        for name in names:
            redis.put(name, "queued", "x" * _LONGEST_SEEN if name == names[-1] else "x")
        found = [await read(jobs, name) for name in names]
        assert all(jobs.document(job).body for job in found)
        assert len(jobs._seen) == _MOST_SEEN
        assert names[-1] not in jobs._seen

    asyncio.run(polls())
