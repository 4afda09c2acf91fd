"""The OpenAPI document: every operation, every answer it can give, with examples."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.responses import Response

from api import samples, schemas
from api.operations import OPERATIONS, Answer
from dspy_jobs.names import IDEMPOTENCY_KEY
from dspy_jobs.problems import CODES
from dspy_jobs.submissions import BatchItem, BatchSubmission, JobSubmission, Resumption, ScoreSubmission

_PROBLEM_TYPE = "application/problem+json"
_HEADERS = {
    "X-Request-Id": "The request's id, taken or made.",
    "Location": "Where it can be read.",
    "Retry-After": "Seconds after which to ask again.",
    "Preference-Applied": "The `wait` that was honoured.",
    "ETag": "Names this state; send it as `If-None-Match`.",
    "X-Next-Cursor": "`after` of the next request.",
    "X-Incomplete": "`true` while more will come.",
    "Idempotency-Replayed": "`true` where an earlier request with this `Idempotency-Key` had been carried out.",
    "Allow": "Methods of this address.",
}


def _described(method: str, path: str) -> dict[str, Any]:
    """What `add_api_route` takes for an operation."""
    operation = OPERATIONS[method, path]
    return {
        "operation_id": operation.id,
        "summary": operation.summary,
        "tags": [operation.tag],
        "response_class": Response,
        "openapi_extra": {"parameters": [*operation.parameters, *_request_headers(method)]},
    }


def _bodies(method: str, path: str) -> dict[str, Any]:
    """What is put in afterwards: FastAPI would drop every null of the examples."""
    operation = OPERATIONS[method, path]
    extra, codes = (("Idempotency-Replayed",), _KEY_CODES) if method == "POST" else ((), ())
    responses = {str(status): _answer(answer, extra) for status, answer in operation.answers.items()}
    bodies = {"responses": responses | _errors((*operation.errors, *codes), path, extra)}
    return {**bodies, "requestBody": operation.body} if operation.body else bodies


def _request_headers(method: str) -> list[dict[str, Any]]:
    return [_REQUEST_ID, _IDEMPOTENCY_KEY] if method == "POST" else [_REQUEST_ID]


_REQUEST_ID = {
    "name": "X-Request-Id",
    "in": "header",
    "required": False,
    "description": "Your id of the request: up to 128 visible ASCII characters.",
    "schema": {"type": "string"},
}
_IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "A key of your own for this one request; sent again with it, the request is not carried out again "
    "but answered as the first time.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": f"^{IDEMPOTENCY_KEY}$"},
}
#: What every operation with a key can answer beside its own.
_KEY_CODES = ("idempotency_mismatch", "idempotency_in_flight")


def _answer(answer: Answer, extra: tuple[str, ...]) -> dict[str, Any]:
    described: dict[str, Any] = {"description": answer.description, "headers": _headers((*answer.headers, *extra))}
    if answer.schema:
        described["content"] = {answer.media: {"schema": ref(answer.schema), "example": answer.example}}
    return described


def _headers(names: tuple[str, ...]) -> dict[str, Any]:
    return {name: {"description": _HEADERS[name], "schema": {"type": "string"}} for name in ("X-Request-Id", *names)}


def ref(name: str) -> dict[str, Any]:
    """A schema: one of the components by its name, or plain text, or any object."""
    if name in ("string", "object"):
        return {"type": name}
    return {"$ref": f"#/components/schemas/{name}"}


def _errors(codes: tuple[str, ...], path: str, extra: tuple[str, ...]) -> dict[str, Any]:
    by_status: defaultdict[int, list[str]] = defaultdict(list)
    for code in codes:
        by_status[CODES[code].status].append(code)
    return {str(status): _error(status, found, path, extra) for status, found in sorted(by_status.items())}


def _error(status: int, codes: list[str], path: str, extra: tuple[str, ...]) -> dict[str, Any]:
    examples = {code: {"summary": CODES[code].title, "value": samples.problem_sample(code, path)} for code in codes}
    again = ("Retry-After",) if status in (429, 503) or "idempotency_in_flight" in codes else ()
    return {
        "description": "; ".join(CODES[code].title for code in codes),
        "headers": _headers((*again, *extra)),
        "content": {_PROBLEM_TYPE: {"schema": ref("Problem"), "examples": examples}},
    }


_SHOWN: tuple[type[BaseModel], ...] = (
    schemas.Problem, schemas.Job, schemas.JobResult, schemas.JobList, schemas.Batch, schemas.BatchList,
    schemas.Requeued, schemas.Program, schemas.ProgramList, schemas.Score, schemas.VariantReports,
    schemas.QueueList, schemas.Limits, schemas.Alive, schemas.Ready, schemas.Health, schemas.Root, schemas.ProblemCode,
    schemas.Costs, schemas.BatchEstimate, schemas.BudgetList, schemas.Autoscale,
)  # fmt: skip


def _components() -> dict[str, Any]:
    from api.batch_retry import BatchRetry

    template = "#/components/schemas/{model}"
    taken = (JobSubmission, BatchSubmission, BatchItem, ScoreSubmission, BatchRetry, Resumption)
    models = [*((model, "serialization") for model in _SHOWN), *((model, "validation") for model in taken)]
    _, document = models_json_schema(models, ref_template=template)  # type: ignore[arg-type]
    components: dict[str, Any] = document["$defs"]
    with_items = components["BatchSubmission"]
    items = {"type": "array", "minItems": 1, "items": ref("BatchItem"), "description": "The jobs."}
    components["BatchWithItems"] = {
        **with_items,
        "title": "BatchWithItems",
        "properties": {**with_items["properties"], "items": items},
        "required": ["program", "items"],
    }
    return components


def install(app: FastAPI, routes: Iterable[tuple[str, str, Callable[..., Any]]]) -> None:
    """Serve the description of these routes (method, path, handler) as the application's document."""
    described_routes = APIRouter()
    for method, path, handler in routes:
        described_routes.add_api_route(path, handler, methods=[method], **_described(method, path))

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = get_openapi(
                title=app.title, version=app.version, summary=app.summary, routes=described_routes.routes
            )
            for method, path in OPERATIONS:
                made["paths"][path][method.lower()].update(_bodies(method, path))
            made.setdefault("components", {})["schemas"] = _components()
            app.openapi_schema = made
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]
