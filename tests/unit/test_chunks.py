"""How many jobs go into one message."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspy_jobs.chunks import ASSUMED_SLOTS, chunk_sizes


@given(st.integers(0, 5000), st.integers(0, 300), st.integers(1, 200), st.integers(0, 2500))
def test_sizes_sum_to_what_is_to_be_sent(remaining: int, slots: int, largest: int, at_most: int) -> None:
    """Every job is sent once, in chunks of 1 to the largest allowed, the largest first."""
    sizes = chunk_sizes(remaining, slots, largest, at_most)
    assert sum(sizes) == min(remaining, at_most)
    assert all(1 <= size <= largest for size in sizes)
    assert sizes == sorted(sizes, reverse=True)


@given(st.integers(1, 5000), st.integers(1, 300), st.integers(1, 200), st.integers(1, 2500))
def test_no_chunk_is_more_than_a_threads_share(remaining: int, slots: int, largest: int, at_most: int) -> None:
    """No chunk exceeds an even share of what is left, so no thread is left with a tail."""
    for size in chunk_sizes(remaining, slots, largest, at_most):
        assert size <= max(1, remaining // slots)
        remaining -= size


@given(st.integers(1, 5000), st.integers(0, 300), st.integers(1, 200), st.integers(1, 500))
def test_steps_send_what_one_step_would(remaining: int, slots: int, largest: int, step: int) -> None:
    """Sent in several steps, the last chunks are still small: every job goes out, and none twice."""
    sent, steps = 0, 0
    while sent < remaining:
        sent += sum(chunk_sizes(remaining - sent, slots, largest, step))
        steps += 1
    assert (sent, steps) == (remaining, -(-remaining // step))


@pytest.mark.parametrize(
    ("remaining", "slots", "largest", "at_most", "sizes"),
    [
        (3, 128, 32, 2000, [1, 1, 1]),
        (10, 2, 32, 2000, [5, 2, 1, 1, 1]),
        (10, 2, 3, 2000, [3, 3, 2, 1, 1]),
        (100, 1, 32, 50, [32, 18]),
        (0, 4, 32, 2000, []),
    ],
)
def test_a_large_batch_starts_large_and_ends_small(
    remaining: int, slots: int, largest: int, at_most: int, sizes: list[int]
) -> None:
    """Worked examples."""
    assert chunk_sizes(remaining, slots, largest, at_most) == sizes


def test_unknown_slots_count_as_a_worker_of_the_usual_size() -> None:
    """Before any worker has spoken the fleet is taken for one worker."""
    assert chunk_sizes(1000, 0, 32, 1000) == chunk_sizes(1000, ASSUMED_SLOTS, 32, 1000)
