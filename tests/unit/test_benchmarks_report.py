"""How a measurement's outcome is written."""

from __future__ import annotations

import pytest

from benchmarks.figures import Spread
from benchmarks.report import Report, Target, table


@pytest.mark.parametrize(
    ("median", "bound", "at_least", "holds"),
    [(0.8, 0.75, True, True), (0.7, 0.75, True, False), (80, 90, False, True), (91, 90, False, False)],
)
def test_a_target_is_judged_by_its_median(median: float, bound: float, at_least: bool, holds: bool) -> None:
    """The median decides in the direction the target has; a lucky or unlucky round does not."""
    assert Target("t", Spread(median, 0, 1000), bound, at_least).holds is holds


def test_a_table_is_markdown_with_aligned_columns() -> None:
    """Every line is as long as the others, so that it can be read unrendered."""
    lines = table(["name", "jobs/s"], [["bare", "1,000"], ["ours", "9"]]).splitlines()
    assert lines == [
        "| name | jobs/s |",
        "|------|-------:|",
        "| bare |  1,000 |",
        "| ours |      9 |",
    ]


def test_a_missed_target_stands_out() -> None:
    """The report says in words what was missed, by how much and with which bound."""
    report = Report("Rate", ["name", "jobs/s"], [["ours", "9"]])
    report.targets = [Target("against bare", Spread(0.5, 0.4, 0.6), 0.75, unit="×")]
    text = report.markdown()
    assert "**missed**" in text
    assert "0.50 (0.40–0.60)×" in text
    assert "≥ 0.75×" in text
    assert report.record()["targets"][0]["holds"] is False
