"""Turns what handlers raise into problems."""

from __future__ import annotations

import structlog
from fastapi import FastAPI
from redis.exceptions import OutOfMemoryError, ReadOnlyError, RedisError, ResponseError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match

from api.answers import json_answer, problem_answer
from api.reading import query
from dspy_jobs.problems import CODES, Problem, ProblemError, fail, problem

_log = structlog.get_logger("api")


def install(app: FastAPI) -> None:
    """Answer everything a handler or the router raises."""
    app.add_exception_handler(ProblemError, _problem)
    app.add_exception_handler(RedisError, _redis)
    app.add_exception_handler(HTTPException, _http)


def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, ProblemError)
    return problem_answer(request.scope, error.problem, error.headers)


def _redis(request: Request, error: Exception) -> Response:
    if not is_unavailability(error):
        raise error
    _log.warning("redis_failed", error=type(error).__name__)
    return problem_answer(request.scope, redis_problem(error))


def is_unavailability(error: Exception) -> bool:
    """Whether an error of Redis is a state it is in; else it is a mistake of ours."""
    return not isinstance(error, ResponseError) or isinstance(error, OutOfMemoryError | ReadOnlyError)


def redis_problem(error: Exception) -> Problem:
    """What a caller hears while Redis is unreachable or full."""
    if isinstance(error, ReadOnlyError):
        return problem("unavailable", "Redis takes no writes just now, as after a failover; try again shortly.")
    if "OOM " in str(error) or "maxmemory" in str(error):
        return problem("unavailable", "Redis is full (maxmemory); nothing can be stored until there is room.")
    return problem("unavailable", "Redis cannot be reached; nothing was lost, try again shortly.")


def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path, method = request.scope["path"], request.scope["method"]
    if error.status_code == 405:
        allowed = ", ".join(_methods(request))
        found = problem("method_not_allowed", f"{path} does not take {method}; it takes {allowed}.")
        return problem_answer(request.scope, found, {"allow": allowed})
    return problem_answer(request.scope, problem("not_found", f"There is no {path}; see /docs for what there is."))


def _methods(request: Request) -> list[str]:
    """Every method of this path: the router names only those of the first route that fits."""
    fitting = (r for r in request.app.routes if r.matches(request.scope)[0] is not Match.NONE)
    return sorted({method for route in fitting for method in route.methods or ()})


async def read_problem(request: Request) -> Response:
    """What a problem's `type` leads to."""
    query(request, ())
    code = request.path_params["code"]
    if code not in CODES:
        raise fail("not_found", f"There is no problem code {code!r}.")
    meaning = CODES[code]
    content = {"code": code, "title": meaning.title, "status": meaning.status, "retryable": meaning.retryable}
    return json_answer(content)
