"""How much of a budget is left."""

from __future__ import annotations

from datetime import date

import pytest

from dspy_jobs.budgets import budget_views


def test_the_whole_comes_first_and_then_each_client() -> None:
    """Day and month of each; without a limit nothing is left or used up; lifetimes beside them are no budgets."""
    limits = {"day *": 20, "month b": 5, "day a": 7, "kept": 9}
    spent = {"day": {"*": 8, "a": 7, "other": 1}, "month": {"*": 900, "b": 4}}
    views = budget_views(limits, spent, date(2026, 1, 5))
    shown = [(v["client"], v["period"], v["limit_usd"], v["spent_usd"], v["left_usd"], v["exhausted"]) for v in views]
    assert shown == [
        (None, "day", 20e-9, 8e-9, 12e-9, False),
        (None, "month", None, 900e-9, None, False),
        ("a", "day", 7e-9, 7e-9, 0, True),
        ("a", "month", None, 0, None, False),
        ("b", "day", None, 0, None, False),
        ("b", "month", 5e-9, 4e-9, 1e-9, False),
    ]


@pytest.mark.parametrize(("limit", "spent", "left"), [(0, 0, 0), (5, 9, 0)])
def test_nothing_is_left_of_what_is_used_up(limit: int, spent: int, left: int) -> None:
    """A budget of nothing is used up from the start; calls in flight may have cost a little more than there was."""
    day, _ = budget_views({"day *": limit}, {"day": {"*": spent}, "month": {}}, date(2026, 1, 5))
    assert (day["left_usd"], day["exhausted"]) == (left, True)


@pytest.mark.parametrize(
    ("today", "day_ends", "month_ends"),
    [
        (date(2026, 1, 31), "2026-02-01", "2026-02-01"),
        (date(2026, 12, 1), "2026-12-02", "2027-01-01"),
        (date(2028, 2, 28), "2028-02-29", "2028-03-01"),
    ],
)
def test_a_budget_is_there_again_when_its_day_or_month_is_over(today: date, day_ends: str, month_ends: str) -> None:
    """At midnight, UTC."""
    ends = [view["resets_at"] for view in budget_views({}, {"day": {}, "month": {}}, today)]
    assert ends == [f"{day}T00:00:00.000Z" for day in (day_ends, month_ends)]
