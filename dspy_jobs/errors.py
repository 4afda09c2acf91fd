"""What a caller's code can catch, and what `AsyncResult(job_id).get()` raises for a job without an output."""

from __future__ import annotations


class DspyJobsError(Exception):
    """Base of every error this package raises towards a caller."""


class JobFailed(DspyJobsError):
    """The job ended without an output; the text starts with the problem's code."""


class JobCanceled(JobFailed):
    """The job was canceled before it ended."""


class JobExpired(JobFailed):
    """The job did not start in time."""
