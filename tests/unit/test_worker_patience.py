"""A failed server is left alone, then tried by one at a time."""

from __future__ import annotations

import pytest

from worker.patience import Patience


class Clock:
    """Time by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """Now."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """A clock that stands."""
    return Clock()


@pytest.fixture
def failed(clock: Clock) -> Patience:
    """Patience of ten seconds after a failure now."""
    patience = Patience(10, clock)
    patience.failed()
    return patience


def test_without_a_failure_everybody_goes() -> None:
    """And is no try."""
    patience = Patience(10)
    assert [patience.ask() for _ in range(3)] == [False, False, False]


def test_after_a_failure_nobody_goes_until_the_time_is_over(failed: Patience, clock: Clock) -> None:
    """Then one goes, and no second one before the first knows."""
    clock.now += 9.9
    assert failed.ask() is None
    clock.now += 0.2
    assert [failed.ask() for _ in range(3)] == [True, None, None]


def test_a_try_that_is_answered_lets_everybody_go(failed: Patience, clock: Clock) -> None:
    """At once."""
    clock.now += 11
    failed.answered(failed.ask() is True)
    assert [failed.ask() for _ in range(2)] == [False, False]


def test_a_try_that_fails_starts_the_wait_again(failed: Patience, clock: Clock) -> None:
    """With another try at its end."""
    clock.now += 11
    assert failed.ask() is True
    failed.failed()
    clock.now += 9
    assert failed.ask() is None
    clock.now += 2
    assert failed.ask() is True


def test_an_answer_to_who_began_before_the_failure_proves_nothing(clock: Clock) -> None:
    """It may have been on its way for long."""
    patience = Patience(10, clock)
    begun = patience.ask()
    assert begun is False
    patience.failed()
    patience.answered(begun)
    assert patience.ask() is None
