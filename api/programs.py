"""The programs there are, as workers describe them."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from api.admission import find_program
from api.answers import json_answer
from api.catalogue import Program
from api.reading import query
from api.resources import resources_of
from dspy_jobs.problems import fail


async def get_programs(request: Request) -> Response:
    """Every program a worker has described."""
    query(request, ())
    programs = await resources_of(request).catalogue.all()
    return json_answer({"data": [_view(program) for program in programs]})


async def get_program(request: Request) -> Response:
    """One program with its schemas."""
    query(request, ())
    return json_answer(_view(await program_of(request)))


async def program_of(request: Request) -> Program:
    """The program that a request's path names.

    Raises:
        ProblemError: there is none (404), or no worker has described it yet.
    """
    resources, name = resources_of(request), request.path_params["name"]
    if name not in resources.settings.programs and await resources.catalogue.find(name) is None:
        raise fail("not_found", f"There is no program {name!r}; see GET /v1/programs.")
    return await find_program(resources, name)


def _view(program: Program) -> dict[str, Any]:
    return {"object": "program", **program.description.model_dump()}
