"""What becomes of a job after an attempt that did not succeed: a pure decision that the worker carries out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from dspy_jobs.problems import Problem
from dspy_jobs.settings import JobSettings
from dspy_jobs.states import WaitReason

#: An answer that cannot be read is paid for each time, and the next is seldom better.
UNREADABLE_ATTEMPTS = 2

#: Attempts that met a provider's rate limit before the job gives up. They cost nothing and say nothing about the job,
#: so they do not count as tries; but a job must not wait for ever on a provider that never lets it in.
LIMITED_ATTEMPTS = 50

#: Failures of a worker that does not know what others of the fleet may: in a rolling update the old workers still take
#: jobs of a program that only the new ones have.
NOT_HERE = frozenset({"unknown_program", "unknown_variant", "unknown_model"})

#: Attempts that met such a worker before the job gives up: minutes, with the usual waits.
NOT_HERE_ATTEMPTS = 10

#: Failures of the provider rather than of the caller: another model may succeed.
PROVIDER_FAULTS = frozenset(
    {"server", "transport", "timeout", "rate_limit", "auth", "billing", "not_configured", "unsupported_model",
     "provider", "lock_timeout"}
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Retry:
    """Try again after `delay_seconds`. `counter` is what the attempt counts as."""

    delay_seconds: float
    reason: WaitReason = WaitReason.RETRY_SCHEDULED
    counter: Literal["tries", "limited", "none"] = "tries"


@dataclass(frozen=True, slots=True)
class FallBack:
    """Try again at once on another model."""

    model: str


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Fail the job with the attempt's problem."""


@dataclass(frozen=True, slots=True)
class History:
    """What went before, this attempt included."""

    tries: int
    """Failed attempts on this model that count."""
    limited: int
    """Attempts on this model that met a rate limit, or a worker that does not know the program."""
    max_attempts: int
    fallbacks: Sequence[str] = ()
    """Models left to fall back to, in order."""


def decide(
    problem: Problem, history: History, retry_after: float | None, chance: float, jobs: JobSettings
) -> Retry | FallBack | GiveUp:
    """What to do after an attempt that did not succeed.

    Exponential backoff with full jitter (Brooker, "Exponential Backoff And Jitter", AWS 2015): a random share of a
    bound that doubles. A provider's `Retry-After` is the least wait, itself capped.

    Args:
        problem: how the attempt ended.
        history: what went before.
        retry_after: seconds the provider asked for, if it did.
        chance: a random number in [0, 1), passed in so that this function stays pure.
        jobs: the bounds of the wait.
    """
    if problem.code == "worker_lost":
        return Retry(0, WaitReason.WORKER_LOST, "none")
    if problem.code == "budget_exhausted":
        return Retry(0, WaitReason.BUDGET_EXHAUSTED, "none")
    if problem.code == "circuit_open":
        return _next_model(history) or Retry(0, WaitReason.CIRCUIT_OPEN, "none")
    if problem.code == "rate_limit" and history.limited <= LIMITED_ATTEMPTS:
        return Retry(_wait(history.limited, retry_after, chance, jobs), WaitReason.RATE_LIMITED, "limited")
    if problem.code in NOT_HERE and history.limited <= NOT_HERE_ATTEMPTS:
        return Retry(_wait(history.limited, retry_after, chance, jobs), counter="limited")
    if problem.retryable and history.tries < _allowed(problem, history):
        return Retry(_wait(history.tries, retry_after, chance, jobs))
    if problem.code in PROVIDER_FAULTS and not _is_own_deadline(problem):
        return _next_model(history) or GiveUp()
    return GiveUp()


def _next_model(history: History) -> FallBack | None:
    return FallBack(history.fallbacks[0]) if history.fallbacks else None


def _allowed(problem: Problem, history: History) -> int:
    unreadable = problem.code == "adapter_parse_error"
    return min(history.max_attempts, UNREADABLE_ATTEMPTS) if unreadable else history.max_attempts


def _is_own_deadline(problem: Problem) -> bool:
    """A provider's timeout may be tried again; a job that used up its own time may not."""
    return problem.code == "timeout" and not problem.retryable


def _wait(times: int, retry_after: float | None, chance: float, jobs: JobSettings) -> float:
    bound = min(jobs.max_backoff_seconds, jobs.backoff_seconds * 2 ** min(max(times - 1, 0), 30))
    asked = min(retry_after or 0.0, jobs.max_backoff_seconds)
    return float(asked + chance * bound)
