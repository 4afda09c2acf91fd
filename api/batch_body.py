"""A batch as it arrives: what its items share, and the items one after the other, from JSON or from lines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import orjson
from starlette.requests import Request

from api.admission import check_times, find_program, read_submission, refusal
from api.batch_query import PARAMETERS, nested
from api.items import ItemChecker
from api.lines import LineSplitter
from api.reading import JSON, NDJSON, bad_parameter, chunks, content_type, parse_object, query
from api.resources import Resources
from api.routing import Routing, client_of
from dspy_jobs.settings import LimitSettings
from dspy_jobs.submissions import BatchSubmission

#: Items checked before other requests get their turn.
_BREATH = 500

#: The batch's own fields, which an NDJSON upload gives as query parameters.
FIELDS = tuple(PARAMETERS)
_TEXTS = ("program", "model", "variant", "priority", "request_id", "cache", "cache_namespace")
#: What the other fields are that are no numbers.
_FORMS = {"use_cache": "true or false", "parameters": "a JSON object", "metadata": "a JSON object"}
_DRY_RUN = "dry_run"

#: Reads a batch's items into the checker; comes back after each.
Items = Callable[[ItemChecker], AsyncIterator[None]]


def is_dry_run(request: Request) -> bool:
    """Whether a batch is only to be estimated.

    Raises:
        ProblemError: the parameter is neither `true` nor `false`.
    """
    given = request.query_params.get(_DRY_RUN, "false")
    if given not in ("true", "false"):
        raise bad_parameter(_DRY_RUN, "dry_run must be one of: true, false.")
    return given == "true"


async def read_batch_body(request: Request, limits: LimitSettings) -> tuple[dict[str, Any], Items]:
    """What all items share, and the way to read the items.

    Raises:
        ProblemError: the request is malformed, as far as can be told before its items are read.
    """
    if content_type(request, (JSON, NDJSON)) == NDJSON:
        given = query(request, (*FIELDS, _DRY_RUN))
        given.pop(_DRY_RUN, None)
        content = nested({name: _value(name, text) for name, text in given.items()})
        return content, partial(_from_lines, request, limits)
    query(request, (_DRY_RUN,))
    content = parse_object(b"".join([chunk async for chunk in chunks(request, limits.batch_bytes, "A batch")]))
    items = content.pop("items", None)
    if type(items) is not list:
        mistake = {"param": "items", "code": "invalid_request_body", "detail": "must be a list of items"}
        raise refusal("invalid_request_body", [mistake])
    return content, partial(_from_list, items)


async def check_batch(
    request: Request, resources: Resources, content: dict[str, Any]
) -> tuple[BatchSubmission, Routing]:
    """Check what all items share.

    Raises:
        ProblemError: it is wrong, or names what there is not.
    """
    submission = read_submission(BatchSubmission, content)
    check_times(resources.settings, submission)
    if submission.program is None:
        detail = "is missing: the name of a program, see GET /v1/programs"
        raise refusal("invalid_request_body", [{"param": "program", "code": "invalid_request_body", "detail": detail}])
    program = await find_program(resources, submission.program)
    client = client_of(request, resources.settings)
    return submission, Routing.of(resources.settings, program, submission, client)


def _value(name: str, text: str) -> Any:
    """A batch's field as the query gives it: words as they are, everything else as JSON."""
    if name in _TEXTS:
        return text
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        mistake = {"param": name, "code": "invalid_parameter", "detail": f"must be {_FORMS.get(name, 'a number')}"}
        raise refusal("invalid_parameter", [mistake]) from None


async def _from_lines(request: Request, limits: LimitSettings, to: ItemChecker) -> AsyncIterator[None]:
    splitter = LineSplitter(limits.item_bytes)
    async for chunk in chunks(request, limits.batch_bytes, "A batch"):
        for number, line in splitter.feed(chunk):
            to.read_line(number, line)
            yield
            if number % _BREATH == 0:
                await asyncio.sleep(0)
    for number, line in splitter.finish():
        to.read_line(number, line)


async def _from_list(items: list[Any], to: ItemChecker) -> AsyncIterator[None]:
    for number, item in enumerate(items, 1):
        to.read_item(number, item)
        yield
        if number % _BREATH == 0:
            await asyncio.sleep(0)
