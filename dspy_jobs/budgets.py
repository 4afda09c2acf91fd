"""How much of each budget is left: pure functions from what Redis counts to what `GET /v1/budgets` shows.

A budget is used up once as much is spent as it has; jobs wait from then on until it is raised or its day or month (UTC)
is over. They may wait a little earlier, for what runs counts with what it will probably cost.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

from dspy_jobs.money import dollars
from dspy_jobs.outcomes import rfc3339

#: Whose budget the one over all clients is, in Redis.
ALL = "*"

Nanos = Mapping[str, int]


def budget_views(limits: Nanos, spent: Mapping[str, Nanos], today: date) -> list[dict[str, Any]]:
    """The day's and the month's budget in all, then of each client that has one.

    Args:
        limits: nano-dollars by `{period} {client}`, as in the hash `dj:budgets`.
        spent: nano-dollars by client, for `day` and `month`.
        today: the day in UTC.
    """
    named = {name.partition(" ")[2] for name in limits if name.startswith(("day ", "month "))}
    return [
        _view(client, period, limits.get(f"{period} {client}"), spent[period].get(client, 0), today)
        for client in (ALL, *sorted(named - {ALL}))
        for period in ("day", "month")
    ]


def _view(client: str, period: str, limit: int | None, spent: int, today: date) -> dict[str, Any]:
    return {
        "client": None if client == ALL else client,
        "period": period,
        "limit_usd": None if limit is None else dollars(limit),
        "spent_usd": dollars(spent),
        "left_usd": None if limit is None else dollars(max(0, limit - spent)),
        "exhausted": limit is not None and spent >= limit,
        "resets_at": _end(period, today),
    }


def _end(period: str, today: date) -> str:
    """When a day or month is over."""
    tomorrow = today + timedelta(days=1)
    next_month = (today.replace(day=1) + timedelta(days=31)).replace(day=1)
    end = tomorrow if period == "day" else next_month
    return rfc3339(datetime(end.year, end.month, end.day, tzinfo=UTC).timestamp() * 1000)
