"""What a batch is expected to use, by hand-made books and by the size of its inputs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspy_jobs.estimates import (
    FRAME_TOKENS,
    LEAST_OUTPUT,
    METRICS,
    MOST_OUTPUT,
    USUAL_OUTPUT,
    Forecast,
    History,
    Load,
    Pace,
    Prices,
    forecast,
    seconds,
)
from dspy_jobs.settings import ModelSettings

#: 100 runs of two calls each, of which ten answers were stored ones.
BOOKS = {
    "calls": 200, "input_tokens": 40_000, "output_tokens": 6_000, "cost": 500_000, "unpriced": 0, "untokened": 0,
    "jobs": 118, "hit": 6, "coalesced": 4, "ran": 100,
}  # fmt: skip
PRICES = Prices(0.001, 0.002)


def history(**changed: int) -> History:
    """What the books say, with some of them changed."""
    found = History.of({**BOOKS, **changed})
    assert found is not None
    return found


def test_the_mean_is_that_of_runs_without_stored_answers() -> None:
    """Tokens and cost of a run are those of its calls."""
    assert history() == History(runs=100, calls=2, input_tokens=400, output_tokens=60, cost_nanos=5000)


def test_calls_of_which_nothing_is_known_are_taken_for_mean_ones() -> None:
    """Not for calls of no tokens or no cost."""
    found = history(untokened=100, unpriced=150)
    assert (found.input_tokens, found.output_tokens, found.cost_nanos) == (800, 120, 20_000)
    assert history(unpriced=200).cost_nanos is None


@pytest.mark.parametrize("changed", [{"ran": 0}, {"calls": 0}, {"untokened": 200}])
def test_books_that_say_nothing_are_no_history(changed: dict[str, int]) -> None:
    """No run ended, no call was made, or no call told its tokens."""
    assert History.of({**BOOKS, **changed}) is None
    assert History.of({}) is None


def test_with_history_jobs_use_what_such_jobs_used() -> None:
    """A hundred runs: the range is the mean -/+ 0.1 + 1/10."""
    found = forecast(Load(1000, 5000), history(), PRICES, None)
    assert (found.input_tokens, found.output_tokens, found.calls) == (400_000, 60_000, 2000)
    assert (found.low, found.high) == (pytest.approx(4_000_000), pytest.approx(6_000_000))


def test_longer_inputs_than_ever_count_by_their_size() -> None:
    """No run takes fewer tokens than its own inputs have; the rest is paid as input."""
    found = forecast(Load(10, 80_000), history(), PRICES, None)
    assert found.input_tokens == 20_000
    beyond = (20_000 - 4_000) * 0.001 / 1000 * 1e9
    assert (found.low, found.high) == (pytest.approx((50_000 + beyond) * 0.8), pytest.approx((50_000 + beyond) * 1.2))


def test_without_priced_calls_tokens_are_priced_as_they_are_now() -> None:
    """And where nobody knows a price, there is no cost; that is not zero."""
    found = forecast(Load(10, 100), history(unpriced=200), PRICES, None)
    assert (found.low, found.high) == (pytest.approx(5_200_000 * 0.8), pytest.approx(5_200_000 * 1.2))
    unknown = forecast(Load(10, 100), history(unpriced=200), None, None)
    assert (unknown.low, unknown.high, unknown.input_tokens) == (None, None, 4000)


def test_without_history_jobs_use_what_their_inputs_suggest() -> None:
    """One call a job, a frame around the inputs, between a short answer and the longest."""
    found = forecast(Load(10, 4000), None, PRICES, None)
    tokens = 10 * FRAME_TOKENS + 1000
    assert (found.input_tokens, found.output_tokens, found.calls) == (tokens, 10 * USUAL_OUTPUT, 10)
    assert found.low == pytest.approx(PRICES.nanos(tokens / 2, 10 * LEAST_OUTPUT))
    assert found.high == pytest.approx(PRICES.nanos(tokens * 2, 10 * MOST_OUTPUT))
    assert forecast(Load(10, 4000), None, None, None).high is None


def test_the_longest_answer_is_bounded_by_the_model() -> None:
    """`max_tokens` moves the upper end, and what is usual or least if it is smaller."""
    assert forecast(Load(1, 0), None, Prices(0, 1), 5000).high == pytest.approx(5_000_000_000)
    short = forecast(Load(1, 0), None, Prices(0, 1), 10)
    assert (short.output_tokens, short.low, short.high) == (10, pytest.approx(10_000_000), pytest.approx(10_000_000))


def test_no_jobs_cost_nothing() -> None:
    """Whether or not prices are known."""
    assert forecast(Load(), None, None, None) == forecast(Load(), history(), PRICES, 5) == Forecast()


def test_an_unknown_part_makes_the_sum_unknown() -> None:
    """Tokens still add up."""
    total = Forecast(10, 20, 1, 5, 6) + Forecast(1, 2, 1, None, None)
    assert total == Forecast(11, 22, 2, None, None)


NUMBERS = st.integers(0, 10**9)


@given(
    st.builds(Load, NUMBERS, NUMBERS),
    st.none() | st.fixed_dictionaries(dict.fromkeys(METRICS, NUMBERS)).map(History.of),
    st.none() | st.builds(Prices, st.floats(0, 100), st.floats(0, 100)),
    st.none() | st.integers(1, 10**6),
)
def test_the_range_is_the_right_way_round(
    load: Load, found: History | None, prices: Prices | None, max_tokens: int | None
) -> None:
    """And never below zero; both ends are known or none."""
    work = forecast(load, found, prices, max_tokens)
    assert (work.low is None) == (work.high is None)
    assert work.low is None or work.high is None or 0 <= work.low <= work.high
    assert min(work.input_tokens, work.output_tokens, work.calls) >= 0


@pytest.mark.parametrize(
    ("jobs", "pace", "model", "expected"),
    [
        (0, Pace(5, 0, None), {}, 0),
        (100, Pace(20, 8, 2.0), {}, 30),
        (100, Pace(20, 0, 2.0), {}, None),
        (100, Pace(20, 8, None), {}, None),
        (1, Pace(0, 128, 2.0), {}, 2),
        (100, Pace(20, 8, 2.0), {"max_concurrent": 4}, 60),
        (100, Pace(20, 8, 2.0), {"requests_per_minute": 60}, 200),
        (100, Pace(20, 8, 2.0), {"tokens_per_minute": 600}, 50),
    ],
)
def test_time_is_what_the_threads_and_the_provider_allow(
    jobs: int, pace: Pace, model: dict[str, int], expected: float | None
) -> None:
    """Jobs that go before count; without a worker or a measured run nobody knows."""
    work = Forecast(400, 100, 200)
    assert seconds(jobs, work, pace, ModelSettings(model="openai/x", **model)) == expected  # type: ignore[arg-type]
