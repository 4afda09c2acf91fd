"""What a failed call says about its provider, and a circuit that judges alone while Redis is away."""

from __future__ import annotations

import pytest
from dspy.lm15 import (
    AuthError,
    BillingError,
    ContextLengthError,
    InvalidRequestError,
    NotConfiguredError,
    RateLimitError,
    ServerError,
    TransportError,
)

from dspy_jobs.settings import BreakerSettings
from worker.circuit import LIMITED_IN_A_ROW, Circuit, Verdict, verdict_of
from worker.context import AttemptContext, AttemptStopped


def attempt() -> AttemptContext:
    """An attempt that is no probe."""
    return AttemptContext("job_1", 60, 10)


@pytest.fixture
def alone() -> Circuit:
    """A circuit that cannot reach Redis."""
    return Circuit("m", BreakerSettings(failure_threshold=3), lambda *_: None)


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (ServerError("500"), Verdict.FAULT),
        (TransportError("reset"), Verdict.FAULT),
        (AuthError("401"), Verdict.FATAL),
        (BillingError("402"), Verdict.FATAL),
        (NotConfiguredError("no key"), Verdict.FATAL),
        (RateLimitError("429"), Verdict.LIMITED),
        (ContextLengthError("too long"), Verdict.INNOCENT),
        (InvalidRequestError("400"), Verdict.INNOCENT),
        (ValueError("ours"), Verdict.INNOCENT),
    ],
)
def test_only_the_providers_own_faults_count(error: Exception, verdict: Verdict) -> None:
    """Callers' mistakes never count against a provider, rate limits have a rule of their own."""
    assert verdict_of(error, "m") is verdict


def test_alone_it_opens_after_faults_in_a_row(alone: Circuit) -> None:
    """An answered call in between begins the count anew; the last fault that is too many opens it."""
    for error in (ServerError("1"), ServerError("2")):
        alone.failed(error, attempt())
    alone.succeeded(attempt())
    for error in (ServerError("1"), ServerError("2"), InvalidRequestError("400")):
        alone.failed(error, attempt())
    alone.admit(attempt())
    alone.failed(ServerError("3"), attempt())
    with pytest.raises(AttemptStopped) as stopped:
        alone.admit(attempt())
    assert stopped.value.problem.code == "circuit_open"


def test_alone_a_refused_account_opens_it_at_once(alone: Circuit) -> None:
    """No further call can succeed, so none is made."""
    alone.failed(AuthError("401"), attempt())
    assert alone.is_open


def test_many_refusals_in_a_row_mean_a_full_provider(alone: Circuit) -> None:
    """One refused call is that job's matter; several with none answered between close the queue, not the circuit."""
    attempts = [attempt() for _ in range(LIMITED_IN_A_ROW)]
    for one in attempts:
        alone.failed(RateLimitError("429"), one)
    assert [one.provider_is_full for one in attempts] == [False] * (LIMITED_IN_A_ROW - 1) + [True]
    assert not alone.is_open
