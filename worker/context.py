"""What one attempt knows while it runs: its deadline, whether it must stop, and what its model calls used."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from dspy.lm15 import Response

from dspy_jobs.money import dollars
from dspy_jobs.outcomes import Usage, UsageSource
from dspy_jobs.problems import Problem, problem
from dspy_jobs.store.books import Bill, BilledCall, Booked
from dspy_jobs.telemetry import NO_SPAN, Span
from worker.bookkeeping import Book
from worker.journal import Journal, Question, useless
from worker.tokens import Tokens
from worker.wish import Wish


class AttemptStopped(BaseException):
    """Stops a program between two model calls.

    A `BaseException`, because DSPy's modules catch `Exception` to try something else, and this must not be survived.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.code)
        self.problem = problem


def _nothing(_: bool) -> bytes:
    return b""


@dataclass(slots=True)
class Call:
    """One answered model call. Money is in nano-dollars; `None` is unknown."""

    seconds: float
    tokens: Tokens
    cost_nanos: int | None
    record: Callable[[bool], bytes] = _nothing
    """Makes the journal's record of it, given whether the program could use the answer."""
    is_usable: bool | None = None
    """Whether the program could use the answer; None until that is known."""

    def settle(self, is_usable: bool) -> None:
        """Say whether the program could use the answer."""
        self.is_usable = is_usable

    def billed(self, is_journaled: bool) -> BilledCall:
        """As it stands in the books."""
        tokens, journal = self.tokens, self.record(bool(self.is_usable)) if is_journaled else b""
        return BilledCall(
            tokens.input, tokens.output, tokens.cached, tokens.reasoning, self.cost_nanos, tokens.is_estimated, journal
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
    scope: str = ""
    """What tells its calls from those of other jobs, and of other attempts where these are not to share answers."""
    resumes: bool = True
    """Whether its answers are kept for the job's next attempt."""
    journal: Journal = field(default_factory=Journal)
    """Answers of the attempts before it."""
    replayed: int = 0
    """Calls answered from the journal."""
    span: Span = NO_SPAN
    """The attempt's, for threads that the program starts."""
    ids: Mapping[str, Any] = field(default_factory=dict)
    """What the log's lines about it bear."""
    send_bill: Book = lambda *_: None
    send_late: Callable[[Bill], None] = lambda _: None
    """Books a call that was answered after the attempt had ended."""
    _has_ended: bool = False
    _booked: int = 0
    _last_record: bytes = b""
    _booking: threading.Lock = field(default_factory=threading.Lock)
    _started_calls: int = 0
    _stop: Problem | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.deadline = time.monotonic() + self.timeout_seconds

    def resume(
        self, records: Sequence[bytes], send_bill: Book, send_late: Callable[[Bill], None] = lambda _: None
    ) -> None:
        """Take over the journal of earlier attempts, and ways to book calls before and after the attempt's end."""
        self.send_late = send_late
        self.journal, self._last_record = Journal(records), records[-1] if records else b""
        self.send_bill = send_bill

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
            AttemptStopped: the deadline is over, the job was canceled, the program made too many calls, or a budget is
                used up.
        """
        self.book()
        with self._lock:
            self._started_calls += 1
            too_many = self._started_calls > self.max_calls
        if too_many:
            self.stop(_too_many(self.max_calls))
        if reason := self.stopped:
            raise AttemptStopped(reason)

    def after_call(self, call: Call) -> None:
        """Remember an answered call; one of a thread left behind when the attempt ended is booked by itself."""
        with self._lock:
            is_late = self._has_ended
            if not is_late:
                self.calls.append(call)
        if is_late:
            self.send_late(Bill([call.billed(False)]))

    def end(self) -> None:
        """The program has returned or was given up: what it left running makes no further call."""
        with self._lock:
            self._has_ended = True
        self.stop(problem("canceled", "The attempt has ended."))

    def replay(self, question: Question) -> Response | None:
        """What an earlier attempt had answered to the same call, if there is more of it."""
        answer = self.journal.take(question.digest) if self.journal else None
        if answer:
            with self._lock:
                self.replayed += 1
        return answer

    def book(self) -> None:
        """Book the calls answered so far of which it is known whether the program could use them.

        One thread at a time; others go on, for their calls are booked with the next bill. Stops the attempt where its
        job is no longer its own, or a budget is used up.
        """
        if len(self.calls) == self._booked or not self._booking.acquire(blocking=False):
            return
        try:
            due = list(itertools.takewhile(lambda call: call.is_usable is not None, self.calls[self._booked :]))
            if due:
                bill = self._bill(due, self._booked + 1)
                self._after_booking(self.send_bill(bill, self._so_far()), due, bill)
        finally:
            self._booking.release()

    def bill(self, *, is_last: bool = False) -> Bill:
        """All answered calls, to go with the attempt's end; after the last one nothing is replayed.

        The books pass over what they have. What a job costs is learned from the whole.
        """
        with self._booking:
            return self._bill(self.calls, 1, is_last=is_last)

    def bill_of_failure(self, *, is_useless: bool) -> tuple[Bill, bytes]:
        """The same for a job that may be retried by hand, and what takes the place of the journal's last record.

        Of a useless output the last answer must be another one next time.
        """
        instead = b""
        with self._booking:
            if is_useless and len(self.calls) > self._booked:
                self.calls[-1].settle(False)
            elif is_useless and self._last_record:
                instead = useless(self._last_record)
            return self._bill(self.calls, 1), instead

    def _bill(self, calls: list[Call], first: int, *, is_last: bool = False) -> Bill:
        return Bill([call.billed(self.resumes and not is_last) for call in calls], first)

    def _so_far(self) -> bytes:
        known = {"usage": self.usage(), "cost_usd": dollars(self.cost_nanos()), "replayed": self.replayed}
        return orjson.dumps(known)

    def _after_booking(self, answer: Booked | None, calls: list[Call], bill: Bill) -> None:
        if answer is None:
            return
        if answer == "stale":
            self.stop(problem("worker_lost", "Another attempt has taken over."))
            return
        self._booked += len(calls)
        self._last_record = next((c.journal for c in reversed(bill.calls) if c.journal), self._last_record)
        for call in calls:
            call.record = _nothing  # prompts and answers need not stay in memory
        if answer == "budget_exhausted":
            self.stop(problem("budget_exhausted", "A budget was used up while the job ran."))

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
