"""Whether a failed attempt is tried again, and when: a pure decision that the worker carries out."""

from __future__ import annotations

from dataclasses import dataclass

from dspy_jobs.problems import Problem
from dspy_jobs.settings import JobSettings


@dataclass(frozen=True, slots=True)
class Retry:
    """Try again after `delay_seconds`."""

    delay_seconds: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Fail the job with the attempt's problem."""


#: An answer that cannot be read is paid for each time, and the next is seldom better.
UNREADABLE_ATTEMPTS = 2


def decide(
    problem: Problem, tries: int, max_attempts: int, retry_after: float | None, chance: float, jobs: JobSettings
) -> Retry | GiveUp:
    """What to do after a failed attempt.

    Exponential backoff with full jitter (Brooker, "Exponential Backoff And Jitter", AWS 2015): a random share of a
    bound that doubles. A provider's `Retry-After` is the least wait, itself capped.

    Args:
        problem: how the attempt failed.
        tries: failed attempts so far, this one included.
        max_attempts: attempts the job may have.
        retry_after: seconds the provider asked for, if it did.
        chance: a random number in [0, 1), passed in so that this function stays pure.
        jobs: the bounds of the wait.
    """
    allowed = min(max_attempts, UNREADABLE_ATTEMPTS) if problem.code == "adapter_parse_error" else max_attempts
    if not problem.retryable or tries >= allowed:
        return GiveUp()
    bound = min(jobs.max_backoff_seconds, jobs.backoff_seconds * 2 ** min(tries - 1, 30))
    asked = min(retry_after or 0.0, jobs.max_backoff_seconds)
    return Retry(asked + chance * bound)
