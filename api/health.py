"""Whether the process lives, and whether it can serve."""

from __future__ import annotations

from redis.exceptions import RedisError
from starlette.requests import Request
from starlette.responses import Response

from api.answers import json_answer, problem_answer
from api.problems import redis_problem
from api.reading import query
from api.resources import resources_of
from dspy_jobs import __version__


async def get_live(request: Request) -> Response:
    """The process runs; says nothing of Redis, for restarting this process would not mend it."""
    query(request, ())
    return json_answer({"status": "ok", "version": __version__})


async def get_ready(request: Request) -> Response:
    """The process can take jobs: Redis answers."""
    query(request, ())
    try:
        await resources_of(request).store.redis.ping()
    except RedisError as error:
        return problem_answer(request.scope, redis_problem(error))
    return json_answer({"status": "ok", "version": __version__, "redis": "ok"})
