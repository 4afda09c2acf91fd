"""How much is measured."""

from __future__ import annotations

import pytest

from benchmarks.options import Options


@pytest.mark.parametrize(("quick", "size"), [(False, 5000), (True, 500)])
def test_quick_means_a_tenth(quick: bool, size: int) -> None:
    """`--quick` divides sizes by ten."""
    assert Options(quick=quick).size(5000) == size


def test_a_round_is_measured_even_without_time() -> None:
    """A measurement that has begun gives one round; no further one begins when the time is over."""
    assert list(Options(rounds=3, seconds_limit=0).each_round()) == [0]
    assert list(Options(rounds=3, seconds_limit=1000).each_round()) == [0, 1, 2]
