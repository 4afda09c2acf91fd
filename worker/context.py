"""What one attempt knows while it runs: its deadline, whether it must stop, and what its model calls used."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

from dspy_jobs.outcomes import Usage, UsageSource
from dspy_jobs.problems import Problem, problem
from dspy_jobs.store.books import Bill, BilledCall
from worker.tokens import Tokens
from worker.wish import Wish


class AttemptStopped(BaseException):
    """Stops a program between two model calls.

    A `BaseException`, because DSPy's modules catch `Exception` to try something else, and this must not be survived.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.code)
        self.problem = problem


@dataclass(frozen=True, slots=True)
class Call:
    """One answered model call. Money is in nano-dollars; `None` is unknown."""

    seconds: float
    tokens: Tokens
    cost_nanos: int | None

    def billed(self) -> BilledCall:
        """As it stands in the books."""
        tokens = self.tokens
        return BilledCall(
            tokens.input, tokens.output, tokens.cached, tokens.reasoning, self.cost_nanos, tokens.is_estimated
        )


@dataclass(slots=True)
class AttemptContext:
    """Shared by the thread that runs the program, threads the program starts, and the housekeeping thread."""

    job_id: str
    timeout_seconds: float
    max_calls: int
    probe: str = ""
    """The job's id if this attempt is let through a half-open circuit to probe the provider."""
    wish: Wish | None = None
    """What the job asks of the cache; None if it shares nothing."""
    deadline: float = field(init=False)
    provider_is_full: bool = False
    """Whether a rate limit, not just one refused call, stopped this attempt."""
    calls: list[Call] = field(default_factory=list)
    _started_calls: int = 0
    _stop: Problem | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.deadline = time.monotonic() + self.timeout_seconds

    def stop(self, reason: Problem) -> None:
        """Ask the program to stop before its next model call; the first reason stays."""
        with self._lock:
            self._stop = self._stop or reason

    @property
    def stopped(self) -> Problem | None:
        """Why the program must stop, if it must."""
        if self._stop is None and time.monotonic() >= self.deadline:
            self.stop(_too_long(self.timeout_seconds))
        return self._stop

    def remaining_seconds(self) -> float:
        """Time left before the deadline; may be negative."""
        return self.deadline - time.monotonic()

    def before_call(self) -> None:
        """Let a model call begin.

        Raises:
            AttemptStopped: the deadline is over, the job was canceled, or the program made too many calls.
        """
        with self._lock:
            self._started_calls += 1
            too_many = self._started_calls > self.max_calls
        if too_many:
            self.stop(_too_many(self.max_calls))
        if reason := self.stopped:
            raise AttemptStopped(reason)

    def after_call(self, call: Call) -> None:
        """Remember an answered call."""
        with self._lock:
            self.calls.append(call)

    def bill(self) -> Bill:
        """Every answered call, for the books."""
        return Bill([call.billed() for call in self.calls])

    def usage(self) -> Usage:
        """Tokens of all answered calls; unknown if any call's are."""
        tokens = [call.tokens for call in self.calls]
        inputs, outputs = (_total([getattr(one, way) for one in tokens]) for way in ("input", "output"))
        return Usage(
            inputs,
            outputs,
            len(tokens),
            _source(tokens),
            _total([one.cached for one in tokens]),
            _total([one.reasoning for one in tokens]),
        )

    def cost_nanos(self) -> int | None:
        """Nano-dollars of all answered calls; unknown if any call's price is."""
        return _total([call.cost_nanos for call in self.calls])


def _total(counts: list[int | None]) -> int | None:
    return None if None in counts else sum(count for count in counts if count is not None)


def _source(tokens: list[Tokens]) -> UsageSource | None:
    """Where the counts come from; None where neither the provider nor the tables here tell."""
    if any(one.input is None and one.output is None for one in tokens):
        return None
    return "estimated" if any(one.is_estimated for one in tokens) else "provider"


def _too_long(seconds: float) -> Problem:
    detail = f"The attempt ran longer than its timeout_seconds ({seconds:g})."
    return problem("timeout", detail, retryable=False)


def _too_many(calls: int) -> Problem:
    return problem("call_budget_exceeded", f"The program made more than {calls} model calls (jobs.max_calls).")
