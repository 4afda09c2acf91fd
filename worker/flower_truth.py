"""Keeps what Flower shows in step with the ledger, for jobs whose end or return no worker could tell of.

A job can be canceled or expire while it waits, lose its worker, or end while Flower itself was away.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Any, NamedTuple

import orjson
import redis
import structlog
from celery import states
from redis.exceptions import RedisError

from dspy_jobs import names
from dspy_jobs.ids import is_job_id
from dspy_jobs.problems import meaning_of
from dspy_jobs.states import JobStatus

log = structlog.get_logger("flower")

#: Celery's events for ends that the ledger knows.
_ENDS = {
    JobStatus.SUCCEEDED: "task-succeeded",
    JobStatus.FAILED: "task-failed",
    JobStatus.EXPIRED: "task-failed",
    JobStatus.CANCELED: "task-revoked",
}


class Found(NamedTuple):
    """What the ledger says of a job that Flower thinks has not ended."""

    job_id: str
    status: str
    wait: str
    """Why it waits, if it does."""

    def contradicts(self, state: str) -> bool:
        """Whether it cannot be what Flower shows."""
        return self.status in _ENDS or (self.status == JobStatus.QUEUED and state == states.STARTED)


class Truth:
    """Looks up jobs that Flower thinks have not ended."""

    def __init__(self, client: redis.Redis, state: Any) -> None:
        """`state` is Flower's, a `celery.events.state.State`; its event loop alone may touch it."""
        self._redis = client
        self._state = state
        self._doubted: set[Found] = set()
        """What contradicted Flower in the last look: a worker may be about to tell of it, so it gets a look's time."""

    async def look(self) -> None:
        """Compare once."""
        for worker in self._state.workers.values():
            if not worker.alive:
                worker.active = 0  # what it ran when it was heard last
        shown = {job_id: task.state for job_id, task in self._state.tasks.data.items() if _is_open_job(job_id, task)}
        try:
            found = await asyncio.to_thread(self._find, list(shown))
            wrong = {one for one in found if one.contradicts(shown[one.job_id])}
            codes = await asyncio.to_thread(self._codes, wrong & self._doubted)
        except RedisError as error:
            log.warning("redis_unavailable", error=str(error))
            return
        for one in wrong & self._doubted:
            self._tell(one, codes[one])
        self._doubted = wrong - self._doubted

    def _find(self, ids: list[str]) -> list[Found]:
        with self._redis.pipeline(transaction=False) as pipe:
            for job_id in ids:
                pipe.hmget(names.job(job_id), "status", "wait")
            rows = pipe.execute()
        pairs = zip(ids, rows, strict=True)
        return [Found(job_id, status.decode(), (wait or b"").decode()) for job_id, (status, wait) in pairs if status]

    def _codes(self, found: Iterable[Found]) -> dict[Found, str]:
        """What Flower is to show as the reason; '' for none."""
        return {one: self._code(one) for one in found}

    def _code(self, found: Found) -> str:
        if found.status != JobStatus.FAILED:
            return found.wait or ("" if found.status == JobStatus.SUCCEEDED else found.status)
        outcome = self._redis.get(names.outcome(found.job_id))
        return str(orjson.loads(outcome)["problem"]["code"]) if isinstance(outcome, bytes) else found.status

    def _tell(self, found: Found, code: str) -> None:
        task = self._state.tasks.data.get(found.job_id)
        if task is None or not _is_open_job(found.job_id, task):
            return
        kind = _ENDS.get(JobStatus(found.status), "task-retried")
        self._state.event(
            {
                "type": kind,
                "uuid": found.job_id,
                "hostname": task.worker.hostname,
                "timestamp": time.time(),
                "clock": task.clock,
                "exception": meaning_of(code) if code else None,
                "local_received": None,  # else the worker would count as alive
            }
        )


def _is_open_job(uuid: str, task: Any) -> bool:
    return task.state not in states.READY_STATES and task.worker is not None and is_job_id(uuid)
