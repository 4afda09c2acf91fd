"""`GET /v1/budgets`: how much of each budget is left."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from api.answers import json_answer
from api.costs import today
from api.reading import query
from api.resources import resources_of
from dspy_jobs import names
from dspy_jobs.budgets import budget_views
from dspy_jobs.costs import book_day, book_month
from dspy_jobs.store.books import limits_of_spending


async def get_budgets(request: Request) -> Response:
    """The budgets that workers keep to; as configured here while no worker has said."""
    resources = resources_of(request)
    query(request, ())
    now = await today(resources)
    async with resources.store.redis.pipeline(transaction=False) as pipe:
        for key in (names.BUDGETS, names.spent(book_day(now)), names.spent(book_month(now))):
            pipe.hgetall(key)
        limits, day, month = [_numbers(found) for found in await pipe.execute()]
    limits = limits or limits_of_spending(resources.settings)
    return json_answer({"data": budget_views(limits, {"day": day, "month": month}, now)})


def _numbers(found: dict[bytes, bytes]) -> dict[str, int]:
    return {name.decode(): int(value) for name, value in found.items()}
