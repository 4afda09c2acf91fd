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
    uses = [patience.ask() for _ in range(3)]
    assert [use and use.is_try for use in uses] == [False, False, False]


def test_after_a_failure_nobody_goes_until_the_time_is_over(failed: Patience, clock: Clock) -> None:
    """Then one goes, and no second one before the first knows."""
    clock.now += 9.9
    assert failed.ask() is None
    clock.now += 0.2
    assert [use and use.is_try for use in (failed.ask(), failed.ask(), failed.ask())] == [True, None, None]


def test_a_try_that_is_answered_lets_everybody_go(failed: Patience, clock: Clock) -> None:
    """At once."""
    clock.now += 11
    use = failed.ask()
    assert use is not None
    failed.answered(use)
    assert [use and use.is_try for use in (failed.ask(), failed.ask())] == [False, False]


def test_a_try_that_fails_starts_the_wait_again(failed: Patience, clock: Clock) -> None:
    """With another try at its end."""
    clock.now += 11
    use = failed.ask()
    assert use is not None
    assert use.is_try
    failed.failed(use)
    clock.now += 9
    assert failed.ask() is None
    clock.now += 2
    assert failed.ask() is not None


def test_an_answer_to_who_began_before_the_failure_proves_nothing(clock: Clock) -> None:
    """It may have been on its way for long."""
    patience = Patience(10, clock)
    begun = patience.ask()
    assert begun is not None
    patience.failed()
    patience.answered(begun)
    assert patience.ask() is None


def test_a_failure_while_others_are_answered_is_our_own(clock: Clock) -> None:
    """The server answers; it was this process that was late. Where nobody is answered, it is the server."""
    patience = Patience(10, clock)
    slow, quick = patience.ask(), patience.ask()
    assert slow is not None
    assert quick is not None
    clock.now += 1
    patience.answered(quick)
    patience.failed(slow)
    late = patience.ask()
    assert late is not None, "still in use"
    clock.now += 1
    patience.failed(late)
    assert patience.ask() is None


def test_many_failures_beside_answers_are_the_servers(clock: Clock) -> None:
    """A server that hangs on some requests and answers others is left alone, too."""
    patience = Patience(10, clock)
    failures = 0
    while (slow := patience.ask()) is not None and (quick := patience.ask()) is not None:
        clock.now += 0.5
        patience.answered(quick)
        patience.failed(slow)
        failures += 1
    assert failures == 6
