"""Whether the process lives, whether it can take jobs, and how every part of the service is.

All of them answer in little more than `api.health_seconds`, whatever hangs: who asks is a load balancer or a person at
night, and neither is served by a line that stays open.
"""

from __future__ import annotations

import asyncio
import time
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import Response

from api.answers import RETRY_SECONDS, json_answer, problem_answer
from api.health_rules import health_document
from api.looks import Look, Seen
from api.problems import redis_problem
from api.reading import query
from api.resources import resources_of
from dspy_jobs import __version__
from dspy_jobs.problems import problem
from dspy_jobs.redis_state import HANGS_REMEDY

T = TypeVar("T")


async def get_live(request: Request) -> Response:
    """The process runs; says nothing of Redis, for restarting this process would not mend it."""
    query(request, ())
    return json_answer({"status": "ok", "version": __version__})


async def get_ready(request: Request) -> Response:
    """The process can take jobs: Redis takes writes, and a worker, which may be gone, has told its programs."""
    query(request, ())
    seen = await resources_of(request).health.readiness.take()
    if seen.hangs:
        detail = f"Redis has not answered for {seen.hangs:.2f} s: {HANGS_REMEDY}."
        return problem_answer(request.scope, problem("unavailable", detail))
    if seen.error:
        return problem_answer(request.scope, redis_problem(seen.error))
    if seen.known and (complaint := seen.known.value.refuses):
        return problem_answer(request.scope, problem("unavailable", f"Redis {complaint.what}: {complaint.remedy}."))
    if seen.known is None or not seen.known.value.programs:
        return problem_answer(request.scope, problem("unavailable", "No worker has reported its programs; start one."))
    return json_answer({"status": "ok", "version": __version__, "redis": "ok", "programs": seen.known.value.programs})


async def get_health(request: Request) -> Response:
    """Every component, what is wrong with it and what to do."""
    query(request, ())
    resources = resources_of(request)
    checks = resources.health
    ledger, cache, disk = await asyncio.gather(checks.ledger.take(), _taken(checks.cache), _taken(checks.disk))
    document = health_document(resources.settings, ledger, cache, disk, time.time() * 1000)
    if document["status"] == "unhealthy":
        return json_answer(document, 503, {"retry-after": RETRY_SECONDS})
    return json_answer(document)


async def _taken(look: Look[T] | None) -> Seen[T] | None:
    """What is seen of something that not every installation has."""
    return None if look is None else await look.take()
