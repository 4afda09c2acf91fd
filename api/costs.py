"""`GET /costs`: what model calls have cost, by day, model, variant, program or client."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta

from starlette.requests import Request
from starlette.responses import Response

from api.answers import json_answer
from api.reading import bad_parameter, query
from api.resources import Resources, resources_of
from dspy_jobs import names
from dspy_jobs.costs import GROUPS, MOST_DAYS, Costs, Span, book_day

#: Days read in one round trip; between two of them other requests get their turn.
_STEP = 20
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


async def get_costs(request: Request) -> Response:
    """The sums of the books of some days, this month's so far by default."""
    resources = resources_of(request)
    given = query(request, ("from", "to", "group_by"))
    groups = _groups(given)
    now = await today(resources)
    span = _span(given, now)
    costs = Costs(groups)
    await _read(resources, span, costs)
    kept_since = now - timedelta(days=resources.settings.costs.retention_days - 1)
    answer = {
        "from": span.first.isoformat(),
        "to": span.last.isoformat(),
        "group_by": groups,
        "data": costs.rows(),
        "total": costs.total(),
        "complete": costs.complete and span.first >= kept_since,
    }
    return json_answer(answer)


async def today(resources: Resources) -> date:
    """The day in UTC by Redis's clock, which is the one that books go by."""
    seconds, _ = await resources.store.redis.time()
    return datetime.fromtimestamp(seconds, UTC).date()


async def _read(resources: Resources, span: Span, costs: Costs) -> None:
    days = list(span)
    for start in range(0, len(days), _STEP):
        some = days[start : start + _STEP]
        # In a transaction, for entries move from the open books to the closed ones.
        async with resources.store.redis.pipeline(transaction=True) as pipe:
            for day in some:
                pipe.hgetall(names.costs(book_day(day)))
                pipe.hgetall(names.closed_costs(book_day(day)))
            found = await pipe.execute()
        for day, open_books, closed in zip(some, found[::2], found[1::2], strict=True):
            costs.add(day, open_books)
            costs.add(day, closed)


def _groups(given: dict[str, str]) -> tuple[str, ...]:
    groups = tuple(given.get("group_by", "day").split(","))
    if not set(groups) <= set(GROUPS) or len(set(groups)) < len(groups):
        raise bad_parameter("group_by", f"group_by must be some of {', '.join(GROUPS)}, each once, joined by commas.")
    return tuple(group for group in GROUPS if group in groups)


def _span(given: dict[str, str], now: date) -> Span:
    last = _day(given, "to") or now
    span = Span(_day(given, "from") or last.replace(day=1), last)
    if span.days < 1:
        raise bad_parameter("from", f"from must not be later than to, which is {last}.")
    if span.days > MOST_DAYS:
        raise bad_parameter("from", f"from and to may span {MOST_DAYS} days at most; these span {span.days}.")
    return span


def _day(given: dict[str, str], name: str) -> date | None:
    value = given.get(name)
    if value is None:
        return None
    # Python would read other forms of ISO 8601 too, and what is a mistake elsewhere must be one here.
    with suppress(ValueError):
        if _DAY.fullmatch(value):
            return date.fromisoformat(value)
    raise bad_parameter(name, f"{name} must be a day in UTC, as in 2026-01-31.")
