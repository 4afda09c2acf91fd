"""`GET /v1/autoscale`: how many call slots are needed, for KEDA, our own autoscaler and people."""

from __future__ import annotations

import asyncio

from redis.exceptions import TimeoutError as RedisTimeout
from starlette.requests import Request
from starlette.responses import Response

from api.answers import json_answer
from api.reading import query
from api.resources import Resources, resources_of
from dspy_jobs.demand import Demand
from dspy_jobs.store.demand import read_demand
from dspy_jobs.views import demand_view

#: Seconds Redis gets. KEDA gives up after 3, and an answer that says what is wrong is better than none.
_PATIENCE_SECONDS = 2.0


async def get_autoscale(request: Request) -> Response:
    """The demand at this moment. No answer is ever made of what could not be read: a zero would stop the fleet."""
    resources = resources_of(request)
    query(request, ())
    demand = await present_demand(resources)
    return json_answer(demand_view(demand, resources.settings.worker.concurrency))


async def present_demand(resources: Resources) -> Demand:
    """What all queues ask for now.

    Raises:
        redis.exceptions.RedisError: Redis is unreachable or takes too long.
    """
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            return await resources.store.run(read_demand(resources.settings))
    except TimeoutError:
        raise RedisTimeout("the demand could not be read in time") from None
