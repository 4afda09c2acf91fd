"""Reports of bugs that jobs met, with what tells which job it was."""

from __future__ import annotations

from typing import Any

from dspy_jobs import error_reports
from dspy_jobs.store.records import Claim, Taken


def report(error: BaseException, event: str, job: Claim | Taken, request: dict[str, Any] | None = None) -> None:
    """Report what a job met, which runs or was only taken, under the name of the log's event that tells of it."""
    tags = {
        "job_id": job.id,
        "batch_id": job.batch or None,
        "program": job.program,
        "model": job.model,
        "variant": job.variant or None,
        "attempt": job.attempt if isinstance(job, Claim) else job.attempts + 1,
        "request_id": (request or {}).get("request_id"),
    }
    error_reports.report(error, event, tags)
