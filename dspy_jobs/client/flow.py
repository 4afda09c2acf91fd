"""What a client does step by step, without doing it: a generator that yields calls and pauses and is fed the answers.

A blocking and an asynchronous client run the same flows, so retries and waiting are written, and tested, once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from itertools import count
from typing import Any, TypeVar

import httpx

from dspy_jobs.client.call import Call, answer, problem_in
from dspy_jobs.client.errors import BatchPaused, ServiceUnreachable, WaitTimeout
from dspy_jobs.models import Batch, Job

T = TypeVar("T")
W = TypeVar("W", Job, Batch)

#: Seconds before the second try; doubles from try to try up to the second figure.
_BACKOFF, _LONGEST_BACKOFF = 0.25, 5.0

#: Seconds in which a service that never answered this client is asked again.
_FIRST_CONTACT = 2.0

#: Seconds one request of a wait holds the line.
_POLL = 20.0

#: Problems a job brings with it: it ran and ended, so asking again would run another job.
_OF_THE_JOB = ("rate_limit", "lock_timeout")


@dataclass(frozen=True)
class Pause:
    """Let this many seconds pass."""

    seconds: float


Outcome = httpx.Response | httpx.TransportError
Flow = Generator[Call[Any] | Pause, Any, T]


@dataclass
class Session:
    """What flows of one client share."""

    url: str
    retry_seconds: float = 30.0
    """Most seconds spent in pauses between the tries of one call."""
    clock: Callable[[], float] = time.monotonic
    answered: bool = False
    """Whether the service ever answered."""

    @property
    def patience(self) -> float:
        """Seconds to keep trying; short while nothing shows that there is a service at all."""
        return self.retry_seconds if self.answered else min(self.retry_seconds, _FIRST_CONTACT)


def pause_before_retry(call: Call[Any], outcome: Outcome, tries: int, left: float) -> float | None:
    """Seconds until the next try, or None to take the outcome as it is. `left`: seconds that may still be waited."""
    backoff = min(_BACKOFF * 2.0 ** min(tries - 1, 16), _LONGEST_BACKOFF)
    if isinstance(outcome, httpx.TransportError):
        pause = backoff if call.repeatable else None
    else:
        pause = asked_pause(outcome, backoff) if _was_put_off(call, outcome) else None
    return pause if pause is not None and pause <= left else None


def _was_put_off(call: Call[Any], response: httpx.Response) -> bool:
    """Whether the service did nothing and asks to be asked again."""
    if response.status_code not in (409, 429, 503) or response.status_code in call.also or call.is_of_now:
        return False
    code = problem_in(response).code
    if response.status_code == 409:
        return code == "idempotency_in_flight"
    return call.method == "GET" or code not in _OF_THE_JOB


def asked_pause(response: httpx.Response, default: float) -> float:
    """`Retry-After` in seconds, or the default where it is missing or a date."""
    value = response.headers.get("Retry-After", "")
    return float(value) if value.isascii() and value.isdigit() else default


def answered(session: Session, call: Call[T]) -> Flow[T]:
    """The call's answer, after as many tries as the session allows.

    Raises:
        ApiError: the service refused.
        ServiceUnreachable: it did not answer.
    """
    waited, sent = 0.0, False
    for tries in count(1):
        outcome: Outcome = yield call
        sent |= not isinstance(outcome, httpx.ConnectError | httpx.ConnectTimeout | httpx.ProxyError)
        session.answered |= isinstance(outcome, httpx.Response)
        pause = pause_before_retry(call, outcome, tries, session.patience - waited)
        if pause is None:
            break
        yield Pause(pause)
        waited += pause
    if isinstance(outcome, httpx.Response):
        return answer(call, outcome)
    reason = str(outcome) or type(outcome).__name__
    raise ServiceUnreachable(session.url, reason, sent=sent and call.method != "GET") from outcome


def finished(
    session: Session,
    poll: Callable[[float], Call[tuple[W, float]]],
    timeout: float | None,
    on_progress: Callable[[W], object] | None = None,
) -> Flow[W]:
    """What `poll` reads once it is done. With `on_progress`, which gets every reading, it is read once a second.

    Raises:
        WaitTimeout: it was not done after `timeout` seconds.
        BatchPaused: it is a batch that one of its limits has paused.
    """
    end = None if timeout is None else session.clock() + timeout
    longest = 1.0 if on_progress else _POLL
    while True:
        left = longest if end is None else max(0.0, end - session.clock())
        read, pause = yield from answered(session, poll(min(left, longest)))
        if on_progress:
            on_progress(read)
        if read.is_done:
            return read
        if isinstance(read, Batch) and read.is_stopped:
            raise BatchPaused(read)
        if end is not None and (left := end - session.clock()) <= 0:
            raise WaitTimeout(read, timeout or 0.0)
        if pause:
            yield Pause(min(pause, left))
