"""Who gets which variant: sticky, in proportion, and undisturbed by changes elsewhere."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspy_jobs.variants import assigned, unit_of

UNITS = [f"item {number}" for number in range(20_000)]
names = st.text("abcxyz09_.-", min_size=1, max_size=6)
weighted = st.dictionaries(names, st.floats(0, 1e6), max_size=6)


@given(program=names, weights=weighted, unit=st.text())
def test_an_assignment_is_sticky_and_never_without_weight(program: str, weights: dict[str, float], unit: str) -> None:
    """Whatever the order of the variants; a variant without weight gets nobody."""
    chosen = assigned(program, weights, unit)
    assert chosen == assigned(program, dict(reversed(weights.items())), unit)
    assert weights[chosen] > 0 if chosen else not any(weights.values())


def test_assignments_are_the_same_in_every_release() -> None:
    """An experiment must survive an upgrade: these values may never change."""
    weights = {"a": 1, "b": 1}
    assert "".join(assigned("qa", weights, unit) for unit in UNITS[:24]) == EXPECTED


EXPECTED = "aababbaaaabaaabbaaababbb"


@pytest.mark.parametrize(
    "weights", [{"a": 1, "b": 1}, {"a": 9, "b": 1}, {"a": 0.5, "b": 0.3, "c": 0.2, "off": 0}, {"a": 1e-9, "b": 3e-9}]
)
def test_weights_are_respected(weights: dict[str, float]) -> None:
    """Over many units the shares lie within five standard deviations of the weights'."""
    counted = Counter(assigned("qa", weights, unit) for unit in UNITS)
    for variant, weight in weights.items():
        share = weight / sum(weights.values())
        deviation = math.sqrt(len(UNITS) * share * (1 - share))
        assert abs(counted[variant] - share * len(UNITS)) <= 5 * deviation


def test_a_changed_weight_moves_units_only_to_or_from_that_variant() -> None:
    """And no more than its share grows by."""
    before, after = {"a": 5.0, "b": 3.0, "c": 2.0}, {"a": 5.0, "b": 3.0, "c": 4.0}
    pairs = [(assigned("qa", before, unit), assigned("qa", after, unit)) for unit in UNITS]
    moved = [(old, new) for old, new in pairs if old != new]
    assert {new for _, new in moved} == {"c"}
    assert len(moved) / len(UNITS) == pytest.approx(4 / 12 - 2 / 10, abs=0.02)


def test_programs_are_split_independently() -> None:
    """Else the same units would be the guinea pigs of every program."""
    weights = {"a": 1, "b": 1}
    same = sum(assigned("qa", weights, unit) == assigned("classify", weights, unit) for unit in UNITS)
    assert same / len(UNITS) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(
    ("request_id", "custom_id", "client", "unit"),
    [
        ("r", "c", "acme", "request r"),
        (None, "c", "acme", "item c"),
        (None, None, "acme", "client acme"),
        (None, None, "default", "job_1"),
    ],
)
def test_an_assignment_sticks_to_what_the_caller_gave(
    request_id: str | None, custom_id: str | None, client: str, unit: str
) -> None:
    """The request, else the item, else the client; a job of which nothing is known is on its own."""
    assert unit_of("job_1", request_id, custom_id, client) == unit
