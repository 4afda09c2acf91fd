"""What becomes of a job after an attempt that did not succeed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspy_jobs.problems import CODES, problem
from dspy_jobs.retries import (
    LIMITED_ATTEMPTS,
    NOT_HERE,
    NOT_HERE_ATTEMPTS,
    PROVIDER_FAULTS,
    FallBack,
    GiveUp,
    History,
    Retry,
    decide,
)
from dspy_jobs.settings import JobSettings
from dspy_jobs.states import WaitReason

JOBS = JobSettings(backoff_seconds=2, max_backoff_seconds=60)


def _decide(code: str, asked: float | None = None, chance: float = 0.5, **history: Any) -> Retry | FallBack | GiveUp:
    whole = History(**({"tries": 1, "limited": 1, "max_attempts": 5} | history))
    return decide(problem(code, "detail"), whole, asked, chance, JOBS)


@pytest.mark.parametrize(
    ("code", "history", "decision"),
    [
        ("server", {}, Retry(1.0)),
        ("server", {"tries": 2}, Retry(2.0)),
        ("server", {"tries": 4}, Retry(8.0)),
        ("server", {"tries": 5}, GiveUp()),
        ("server", {"tries": 1, "max_attempts": 1}, GiveUp()),
        ("server", {"tries": 50, "max_attempts": 100}, Retry(30.0)),
        ("server", {"tries": 5000, "max_attempts": 10_000}, Retry(30.0)),
        ("auth", {}, GiveUp()),
        ("program_error", {}, GiveUp()),
        ("adapter_parse_error", {}, Retry(1.0)),
        ("adapter_parse_error", {"tries": 2}, GiveUp()),
        ("adapter_parse_error", {"max_attempts": 1}, GiveUp()),
        ("rate_limit", {"tries": 5}, Retry(1.0, WaitReason.RATE_LIMITED, "limited")),
        ("rate_limit", {"limited": 3, "tries": 5}, Retry(4.0, WaitReason.RATE_LIMITED, "limited")),
        ("rate_limit", {"limited": LIMITED_ATTEMPTS + 1, "tries": 5}, GiveUp()),
        ("unknown_program", {"tries": 5, "limited": 3}, Retry(4.0, counter="limited")),
        ("unknown_program", {"limited": NOT_HERE_ATTEMPTS + 1}, GiveUp()),
        ("worker_lost", {"tries": 5}, Retry(0, WaitReason.WORKER_LOST, "none")),
        ("circuit_open", {"tries": 5}, Retry(0, WaitReason.CIRCUIT_OPEN, "none")),
    ],
)
def test_decisions(code: str, history: dict[str, int], decision: Retry | GiveUp) -> None:
    """With a chance of one half: what is retried, as what it counts, and half the bound that doubles up to its cap."""
    assert _decide(code, **history) == decision


@pytest.mark.parametrize(
    ("code", "history", "decision"),
    [
        ("server", {"tries": 1}, Retry(1.0)),
        ("server", {"tries": 5}, FallBack("b")),
        ("auth", {"tries": 1}, FallBack("b")),
        ("circuit_open", {"tries": 1}, FallBack("b")),
        ("rate_limit", {"limited": LIMITED_ATTEMPTS + 1, "tries": 5}, FallBack("b")),
        ("program_error", {"tries": 1}, GiveUp()),
        ("invalid_request", {"tries": 1}, GiveUp()),
        ("adapter_parse_error", {"tries": 5}, GiveUp()),
    ],
)
def test_another_model_is_tried_only_where_it_may_help(code: str, history: dict[str, int], decision: Any) -> None:
    """A provider that cannot serve the job gives way to the first model left; the job's own faults go with it."""
    assert _decide(code, fallbacks=("b", "c"), **history) == decision


@pytest.mark.parametrize("retryable", [True, False])
def test_a_job_that_used_up_its_own_time_does_not_fall_back(retryable: bool) -> None:
    """A provider's timeout may be another model's success; a job's own deadline is over on every model."""
    over = problem("timeout", "detail", retryable=retryable)
    decision = decide(over, History(5, 0, 5, ("b",)), None, 0.5, JOBS)
    assert decision == (FallBack("b") if retryable else GiveUp())


@pytest.mark.parametrize(("asked", "delay"), [(None, 0.0), (0.0, 0.0), (7.0, 7.0), (60.0, 60.0), (3600.0, 60.0)])
@pytest.mark.parametrize("code", ["rate_limit", "server"])
def test_a_providers_wait_is_kept_up_to_the_cap(code: str, asked: float | None, delay: float) -> None:
    """`Retry-After` is the least wait, and itself bounded."""
    decision = _decide(code, asked, chance=0.0)
    assert isinstance(decision, Retry)
    assert decision.delay_seconds == delay


@given(st.integers(1, 99), st.floats(0, 1, exclude_max=True), st.none() | st.floats(0, 1e9))
def test_waits_stay_within_their_bounds(tries: int, chance: float, asked: float | None) -> None:
    """No wait is shorter than what was asked for (up to the cap), or longer than that and the backoff's bound."""
    decision = _decide("server", asked, chance, tries=tries, max_attempts=100)
    assert isinstance(decision, Retry)
    least = min(asked or 0.0, JOBS.max_backoff_seconds)
    bound = min(JOBS.max_backoff_seconds, JOBS.backoff_seconds * 2 ** (tries - 1))
    assert least <= decision.delay_seconds <= least + bound


@given(st.sampled_from(sorted(CODES)), st.integers(0, 99), st.integers(0, 99), st.integers(1, 99))
def test_every_code_ends_some_day(code: str, tries: int, limited: int, most: int) -> None:
    """Once tries and patience with rate limits are used up, no attempt of the job's own is followed by another."""
    decision = _decide(code, tries=max(tries, most), limited=limited + LIMITED_ATTEMPTS + 1, max_attempts=most)
    assert isinstance(decision, GiveUp) or (isinstance(decision, Retry) and decision.counter == "none")


def test_a_problem_may_say_of_itself_that_it_is_final() -> None:
    """What the problem says counts, not what its code says by default."""
    final = problem("server", "detail", retryable=False)
    assert decide(final, History(1, 0, 5), None, 0.5, JOBS) == GiveUp()


def test_faults_told_apart_are_codes_there_are() -> None:
    """No code among them is misspelled."""
    assert set(CODES) >= PROVIDER_FAULTS
    assert set(CODES) >= NOT_HERE
