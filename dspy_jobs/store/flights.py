"""Operations on jobs that share an answer: one runs, the others follow it, or take what was made before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dspy_jobs.store.script import Operation, script
from dspy_jobs.store.wire import time_of


@dataclass(frozen=True, slots=True)
class Flight:
    """The answer a job is after, and what it may do about others that are after the same. The default: nothing."""

    key: str = ""
    may_follow: bool = False
    """Whether it may wait for the answer of a job that runs, or take that of one that has just ended."""
    may_lead: bool = False
    """Whether others may follow it."""
    oldest_ms: int = 0
    """An answer made before this time (milliseconds since 1970) is not wanted."""

    def args(self) -> tuple[Any, ...]:
        """As the scripts take it."""
        may = ("follow " if self.may_follow else "") + ("lead" if self.may_lead else "")
        return self.key, may, self.oldest_ms


@dataclass(frozen=True, slots=True)
class Answered:
    """A job that succeeds with an output made before."""

    job_id: str
    outcome: bytes
    how: str
    """`hit` or `coalesced`."""
    saved_nanos: int | None
    """What making the output cost, in nano-dollars."""


def settle_answered(
    worker: str, answered: Sequence[Answered], expired: bytes, now_ms: int | None = None
) -> Operation[list[str]]:
    """End taken jobs that did not start with outputs made before.

    Answers for each `finished`, `stale`, `parked`, `expired`, or `paused`: its queue is, and it stays taken.
    """
    values = [(a.job_id, a.outcome, a.how, "" if a.saved_nanos is None else a.saved_nanos) for a in answered]
    args = (time_of(now_ms), worker, expired, *(value for row in values for value in row))
    return Operation(script("settle_answered"), args, lambda raw: [answer.decode() for answer in raw])


def send_waiting(now_ms: int | None = None) -> Operation[int]:
    """Send jobs whose leader's answer or whose client's budget is there. Answers how many lists hold more."""
    return Operation(script("send_waiting"), (time_of(now_ms),), int)
