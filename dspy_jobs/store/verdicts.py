"""The problems the ledger itself gives to jobs and attempts, as the scripts store them."""

from __future__ import annotations

import orjson

from dspy_jobs.problems import problem


def _stored(code: str, detail: str) -> bytes:
    return orjson.dumps(problem(code, detail).model_dump(exclude_none=True))


CANCELED = _stored("canceled", "The job was canceled before it ended.")
EXPIRED = _stored("expired", "The job did not start within its expires_in_seconds.")
WORKER_LOST = _stored("worker_lost", "The worker that held the job was lost.")
WORKER_STOPPED = _stored("worker_lost", "The worker was told to stop before the attempt ended.")
