"""The API with more routes that do nothing behind the same middleware: what HTTP itself costs.

`POST /noop` reads and checks the body as `POST /v1/jobs` does, and `GET /noop/{id}` answers a stored text; neither
talks to Redis. `/fastapi` has the same two as FastAPI's tutorial writes them, with its own reading of parameters
and body. All come first in the router, which spares them its search.
"""

from __future__ import annotations

import sys

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api import __main__ as api_process
from api import app as api_app
from api.admission import find_program, read_submission, refusal
from api.reading import json_body
from api.resources import resources_of
from dspy_jobs.settings import Settings
from dspy_jobs.submissions import BUILT_IN_PROGRAM, JobSubmission

_ANSWER = b'{"id":"job_01jd0000000000000000000000","object":"job","status":"queued"}'

_create_app = api_app.create_app


async def post_noop(request: Request) -> Response:
    """Check a submission as the API does and forget it."""
    resources = resources_of(request)
    content = await json_body(request, resources.settings.limits.item_bytes, "A job")
    submission = read_submission(JobSubmission, content)
    program = await find_program(resources, submission.program or BUILT_IN_PROGRAM)
    if mistakes := program.mistakes(submission.program_inputs()):
        raise refusal("invalid_input", mistakes)
    return Response(_ANSWER, 202, media_type="application/json")


async def get_noop(_: Request) -> Response:
    """Answer what is always the same."""
    return Response(_ANSWER, 200, media_type="application/json")


async def get_plainly(id: str) -> dict[str, str]:  # noqa: A002  # the parameter's name in the path
    """The same with FastAPI's own reading and writing."""
    return {"id": id, "object": "job", "status": "queued"}


async def post_plainly(submission: JobSubmission) -> dict[str, str | None]:
    """The same with FastAPI's own reading and writing."""
    return {"program": submission.program, "object": "job", "status": "queued"}


def main() -> int:
    """Run the API process with these routes in front."""

    def with_noop(settings: Settings) -> FastAPI:
        app = _create_app(settings)
        app.add_api_route("/fastapi/{id}", get_plainly, methods=["GET"])
        app.add_api_route("/fastapi", post_plainly, methods=["POST"], status_code=202)
        routes = app.router.routes
        routes[:] = [
            Route("/noop/{id}", get_noop, methods=["GET"]),
            Route("/noop", post_noop, methods=["POST"]),
            *routes[-2:],
            *routes[:-2],
        ]
        return app

    api_process.create_app = with_noop  # type: ignore[attr-defined]
    return api_process.main()


if __name__ == "__main__":
    sys.exit(main())
