"""The states of jobs and batches, one line of meaning each. `docs/lifecycle.md` draws the transitions."""

from __future__ import annotations

from enum import StrEnum


class JobStatus(StrEnum):
    """Where a job is in its life. Celery's own state names never appear."""

    QUEUED = "queued"
    """Accepted and not running: new, waiting for a retry, behind a gate, or recovered from a lost worker."""
    RUNNING = "running"
    """A worker holds it and runs its program."""
    SUCCEEDED = "succeeded"
    """Its typed output is stored."""
    FAILED = "failed"
    """It ended with a problem and will not be tried again by itself."""
    CANCELED = "canceled"
    """Somebody asked to stop it before it ended."""
    EXPIRED = "expired"
    """It did not start in time."""

    @property
    def is_terminal(self) -> bool:
        """Whether the job has ended and changes only by an explicit retry or deletion."""
        return self not in (JobStatus.QUEUED, JobStatus.RUNNING)


class BatchStatus(StrEnum):
    """Where a batch is in its life."""

    IN_PROGRESS = "in_progress"
    """Its jobs are queued or running."""
    PAUSED = "paused"
    """Running jobs finish; no further job of it starts until it is resumed."""
    CANCELING = "canceling"
    """Its queued jobs are being canceled and its running jobs asked to stop."""
    ENDED = "ended"
    """Every job of it has ended; `ended_reason` says how."""


class EndedReason(StrEnum):
    """Why a batch ended."""

    COMPLETED = "completed"
    CANCELED = "canceled"
    EXPIRED = "expired"


class PauseReason(StrEnum):
    """By what a batch is paused."""

    OPERATOR = "operator"
    """Somebody paused it."""
    MAX_COST = "max_cost"
    """It has spent what its limits allow."""
    MAX_ERROR_RATE = "max_error_rate"
    """More of its jobs failed than its limits allow."""


class WaitReason(StrEnum):
    """Why a queued job does not run yet."""

    BEHIND_N_JOBS = "behind_n_jobs"
    NO_WORKERS = "no_workers"
    CIRCUIT_OPEN = "circuit_open"
    RATE_LIMITED = "rate_limited"
    BUDGET_EXHAUSTED = "budget_exhausted"
    PAUSED = "paused"
    RETRY_SCHEDULED = "retry_scheduled"
    WORKER_LOST = "worker_lost"


class CircuitState(StrEnum):
    """Whether a model may be called, for the whole fleet."""

    CLOSED = "closed"
    HALF_OPEN = "half_open"
    """It failed; one job at a time is let through to find out whether it is well again."""
    OPEN = "open"
    """It fails, and its jobs wait."""


class Priority(StrEnum):
    """How urgent a job is within its model's queue. Single jobs are `normal` by default, batches `low`."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"

    @property
    def step(self) -> int:
        """Kombu's priority step: the queue's Redis list of the lowest step is served first."""
        return PRIORITY_STEPS[self]


PRIORITY_STEPS = {Priority.HIGH: 0, Priority.NORMAL: 3, Priority.LOW: 6}
