"""Medians, spreads and ratios of measurements."""

from __future__ import annotations

import pytest

from benchmarks.figures import Spread, paired_ratios, percentile


def test_a_spread_is_the_median_and_the_extremes() -> None:
    """One outlier moves an extreme and leaves the median."""
    assert Spread.of([3.0, 100.0, 1.0]) == Spread(3.0, 1.0, 100.0)


def test_no_samples_are_refused() -> None:
    """A measurement without rounds has no figures, rather than zeros."""
    with pytest.raises(ValueError, match="one round"):
        Spread.of([])


@pytest.mark.parametrize(
    ("spread", "digits", "text"),
    [
        (Spread(1234.4, 1000, 2000), 0, "1,234 (1,000–2,000)"),
        (Spread(0.756, 0.756, 0.756), 2, "0.76"),
    ],
)
def test_a_spread_shows_its_extremes_where_there_are_any(spread: Spread, digits: int, text: str) -> None:
    """A single round shows one number, several show how far they lie apart."""
    assert spread.text(digits) == text


def test_ratios_are_taken_round_by_round() -> None:
    """A machine that slows down for both contenders in one round leaves their ratio as it was."""
    assert paired_ratios([100, 50, 10], [200, 100, 20]) == Spread(0.5, 0.5, 0.5)


def test_ratios_need_as_many_rounds_of_both() -> None:
    """Rounds that were not taken in turns are not compared."""
    with pytest.raises(ValueError, match="take turns"):
        paired_ratios([1.0], [1.0, 2.0])


def test_percentiles_lie_within_the_samples() -> None:
    """The median of 1…100 lies in the middle, the 99th percentile near the end, never beyond it."""
    samples = [float(number) for number in range(1, 101)]
    assert percentile(samples, 50) == 50.5
    assert 99 < percentile(samples, 99) <= 100
