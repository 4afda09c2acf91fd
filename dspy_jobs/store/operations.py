"""The ledger's operations in one place, by what they are for; each is one script and how to read its answer.

`now_ms=None` lets Redis's own clock count, as all processes do; tests pass theirs.
"""

from __future__ import annotations

from dspy_jobs.store.changes import (
    LimitChange,
    cancel_batch,
    cancel_job,
    erase_job,
    pause_batch,
    resume_batch,
    retry_jobs,
)
from dspy_jobs.store.reading import JobFilter, description_of, list_jobs, read_batch, read_jobs, read_queues, read_rows
from dspy_jobs.store.recovery import Chores, find_chores, recover_lost, wake_delayed
from dspy_jobs.store.running import claim_job, finish_job, hand_back, retry_later, take_jobs
from dspy_jobs.store.submitting import (
    BatchHead,
    BatchLimits,
    Lifetimes,
    Release,
    Route,
    commit_batch,
    discard_staged,
    read_release,
    read_slots,
    release_jobs,
    stage_items,
    submit_job,
)
from dspy_jobs.store.verdicts import CANCELED, EXPIRED
from dspy_jobs.store.workers import Renewal, renew_worker, report_measures, retire_worker

__all__ = [
    "CANCELED",
    "EXPIRED",
    "BatchHead",
    "BatchLimits",
    "Chores",
    "JobFilter",
    "Lifetimes",
    "LimitChange",
    "Release",
    "Renewal",
    "Route",
    "cancel_batch",
    "cancel_job",
    "claim_job",
    "commit_batch",
    "description_of",
    "discard_staged",
    "erase_job",
    "find_chores",
    "finish_job",
    "hand_back",
    "list_jobs",
    "pause_batch",
    "read_batch",
    "read_jobs",
    "read_queues",
    "read_release",
    "read_rows",
    "read_slots",
    "recover_lost",
    "release_jobs",
    "renew_worker",
    "report_measures",
    "resume_batch",
    "retire_worker",
    "retry_jobs",
    "retry_later",
    "stage_items",
    "submit_job",
    "take_jobs",
    "wake_delayed",
]
