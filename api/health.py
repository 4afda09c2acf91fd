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
from dspy_jobs.problems import problem


async def get_live(request: Request) -> Response:
    """The process runs; says nothing of Redis, for restarting this process would not mend it."""
    query(request, ())
    return json_answer({"status": "ok", "version": __version__})


async def get_ready(request: Request) -> Response:
    """The process can take jobs: Redis answers, and a worker has said which programs there are."""
    query(request, ())
    resources = resources_of(request)
    try:
        await resources.store.redis.ping()
        programs = await resources.catalogue.all()
    except RedisError as error:
        return problem_answer(request.scope, redis_problem(error))
    if not programs:
        return problem_answer(request.scope, problem("unavailable", "No worker has reported its programs; start one."))
    return json_answer({"status": "ok", "version": __version__, "redis": "ok", "programs": len(programs)})
