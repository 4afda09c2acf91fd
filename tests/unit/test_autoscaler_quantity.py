"""Quantities are read and rounded as Kubernetes does."""

from __future__ import annotations

import math

import pytest

from autoscaler.quantity import MAX_MILLI, milli, parse_quantity


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, 0),
        (8.6, 8600),
        (2.867, 2867),
        (21 / 0.7, 30000),
        (0.0004, 0),
        (0.00051, 1),
        (-3.0, 0),
        (math.nan, 0),
        (math.inf, 0),
        (-math.inf, 0),
        (1e300, MAX_MILLI),
    ],
)
def test_metrics_have_three_decimals(value: float, expected: int) -> None:
    """A metric keeps three decimals; negative, NaN and infinite ones are 0."""
    assert milli(value) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0", 0.0), ("0.05", 0.05), ("50m", 0.05), (".1", 0.1), ("1e-2", 0.01), ("2k", 2000.0), ("1Ki", 1024.0)],
)
def test_quantities_are_read(text: str, expected: float) -> None:
    """Decimal numbers and Kubernetes' suffixes are understood."""
    assert parse_quantity(text) == pytest.approx(expected, rel=1e-15)


@pytest.mark.parametrize("text", ["", "ten", "10%", "1 k", "1KB", "nan", "0x1", "1_0"])
def test_other_text_is_no_quantity(text: str) -> None:
    """Other text is refused with an example of what to write."""
    with pytest.raises(ValueError, match="write a number such as"):
        parse_quantity(text)
