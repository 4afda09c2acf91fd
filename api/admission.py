"""Whether a submission is taken, and what is kept of it: the checks a job and a batch have in common."""

from __future__ import annotations

from typing import Any, TypeVar

import orjson
from pydantic import ValidationError
from starlette.requests import Request

from api.catalogue import TOO_DEEP, Mistake, Program
from api.reading import listed, shortened, trace_context
from api.resources import Resources
from dspy_jobs.problems import ProblemError, fail
from dspy_jobs.settings import Settings
from dspy_jobs.submissions import BatchSubmission, JobSubmission, _Submission

S = TypeVar("S", bound=_Submission)

#: Mistakes named in one answer.
MOST_ERRORS = 100


def read_submission(kind: type[S], content: dict[str, Any]) -> S:
    """A submission as the contract has it.

    Raises:
        ProblemError: it does not fit; every mistake is named.
    """
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise refusal("invalid_request_body", explain(error)) from None


def explain(error: ValidationError) -> list[Mistake]:
    """What pydantic found, in the words of the contract and without the caller's values; the first hundred mistakes."""
    found = error.errors(include_url=False, include_input=False)
    return [_mistake(e["type"], e["loc"], e["msg"]) for e in found[:MOST_ERRORS]]


def _mistake(kind: str, loc: tuple[int | str, ...], message: str) -> Mistake:
    path = [shortened(str(part)) for part in loc]
    detail = shortened(message.removeprefix("Value error, "))
    if kind == "extra_forbidden":
        detail = f"there is no field {path[-1]!r}"
    mistake = {"param": ".".join(path), "code": "invalid_request_body", "detail": detail}
    return mistake if loc else {**mistake, "param": None}


def refusal(code: str, mistakes: list[Mistake]) -> ProblemError:
    """The problem that names these mistakes."""
    first = mistakes[0]
    where = f"{first['param']}: " if first.get("param") else ""
    more = f" (and {len(mistakes) - 1} more)" if len(mistakes) > 1 else ""
    errors = [{name: value for name, value in mistake.items() if value is not None} for mistake in mistakes]
    return fail(code, f"{where}{first['detail']}{more}", errors=errors)


async def find_program(resources: Resources, name: str) -> Program:
    """A described program.

    Raises:
        ProblemError: it is not configured, or no worker has described it yet.
    """
    program = await resources.catalogue.find(name)
    if program is not None:
        return program
    if name in resources.settings.programs:
        detail = f"The program {name!r} is configured, but no worker has reported it yet; start a worker."
        raise ProblemError(fail("unavailable", detail).problem, {"retry-after": "2"})
    known = listed({*resources.settings.programs, *resources.catalogue.names})
    detail = f"There is no program {shortened(name)!r}; there are: {known}."
    raise fail("unknown_program", detail, errors=[{"param": "program", "code": "unknown_program", "detail": detail}])


def check_times(settings: Settings, submission: JobSubmission | BatchSubmission) -> None:
    """Refuse a time limit larger than configured.

    Raises:
        ProblemError: it is larger.
    """
    longest = settings.jobs.max_timeout_seconds
    if (submission.timeout_seconds or 0) > longest:
        detail = f"must be {longest:g} at most; see GET /v1/limits"
        mistake = {"param": "timeout_seconds", "code": "invalid_request_body", "detail": detail}
        raise refusal("invalid_request_body", [mistake])


def shared_record(request: Request, submission: JobSubmission | BatchSubmission, version: str) -> dict[str, Any]:
    """What is kept of a submission for the worker and for reading, apart from the inputs; only what was given.

    `version` is the program's, as the job will run it or, of a batch, most jobs may.
    """
    record = {
        "program_version": version,
        "parameters": submission.parameters and submission.parameters.model_dump(exclude_none=True),
        "timeout_seconds": submission.timeout_seconds,
        "cache": submission.cache_options() or None,
        "metadata": submission.metadata,
        "request_id": submission.request_id or request.scope["request_id"],
        **trace_context(request),
    }
    return {name: value for name, value in record.items() if value is not None}


def encode(record: dict[str, Any]) -> bytes:
    """A record as it is stored.

    Raises:
        ProblemError: it is nested too deeply.
    """
    try:
        return orjson.dumps(record)
    except TypeError:
        raise refusal("invalid_input", [TOO_DEEP]) from None
