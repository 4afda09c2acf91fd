"""What a client raises beside the errors of the jobs themselves."""

from __future__ import annotations

from dspy_jobs.errors import DspyJobsError
from dspy_jobs.models import Batch, Job
from dspy_jobs.problems import Problem
from dspy_jobs.states import WaitReason

#: What a job waits for that nobody can tell the end of, or that ends only by somebody's doing.
_STOPPED = (WaitReason.BUDGET_EXHAUSTED, WaitReason.PAUSED, WaitReason.NO_WORKERS)


class ApiError(DspyJobsError):
    """The service answered with a problem; `problem.code` is stable and `problem.retryable` says if it may pass."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(f"{problem.code}: {problem.detail}")
        self.problem = problem

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.problem.status


class InvalidArgument(DspyJobsError, ValueError):
    """What the caller gave cannot be sent: an address, an id or an item; nothing was."""


class ServiceUnreachable(DspyJobsError):
    """No answer came; the text names the address and what to do."""

    def __init__(self, url: str, reason: str, *, sent: bool) -> None:
        """`sent`: whether the request may have reached the service although its answer did not come back."""
        lost = " What was asked may have been done: look before you ask again." if sent else ""
        super().__init__(
            f"no answer from dspy-jobs at {url}: {reason}.{lost}"
            " Start it with `make up`, or name the right address (DSPY_JOBS_URL or --url)."
        )
        self.url = url


class WaitTimeout(DspyJobsError):
    """The wait ended before the job or batch did; the text says what it waits for. `last` is what was read last."""

    def __init__(self, last: Job | Batch, seconds: float) -> None:
        super().__init__(f"{last.id} is still {last.status} after {seconds:g} s; {_outlook(last)}")
        self.last = last


class BatchPaused(DspyJobsError):
    """The batch waited for has reached one of its limits: it ends only once it is resumed. `last` says which."""

    def __init__(self, last: Batch) -> None:
        super().__init__(f"{last.id} is paused{_by(last)}")
        self.last = last


def _outlook(last: Job | Batch) -> str:
    """Whether it goes on, and what it waits for."""
    if isinstance(last, Batch) and last.pause is not None:
        return f"it is paused{_by(last)}"
    if last.wait_reason is None:
        return "it goes on"
    until = f" until {last.until:%Y-%m-%d %H:%M:%S} UTC" if last.until else ""
    waits = f"it waits: {last.wait_reason}{until}"
    return waits if last.wait_reason in _STOPPED else f"{waits}; it goes on"


def _by(batch: Batch) -> str:
    if batch.pause is None:
        return ""
    return f" by {batch.pause.reason}" + (f": {batch.pause.detail}" if batch.pause.detail else "")
