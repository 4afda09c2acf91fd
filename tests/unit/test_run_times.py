"""Quantiles out of the histogram of run times."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspy_jobs.run_times import quantile_ms


def histogram(times: list[int]) -> Counter[int]:
    """As the store's script counts."""
    return Counter(math.ceil(math.log(max(1, ms)) / math.log(1.02 / 0.98)) for ms in times)


@given(times=st.lists(st.integers(1, 3_600_000), min_size=1), share=st.sampled_from([0, 0.5, 0.95, 1]))
def test_a_quantile_is_told_to_two_percent(times: list[int], share: float) -> None:
    """Of whatever was measured, from a millisecond to an hour."""
    exact = sorted(times)[math.floor(share * (len(times) - 1))]
    assert quantile_ms(histogram(times), share) == pytest.approx(exact, rel=0.0201)


def test_of_nothing_there_is_no_quantile() -> None:
    """Unknown is not zero."""
    assert quantile_ms({}, 0.5) is None
