"""Everything a client can ask of the service, each once, as a flow that either kind of client runs."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterable, Mapping
from datetime import date
from typing import Any
from urllib.parse import quote

import httpx
import orjson
from pydantic import TypeAdapter

from dspy_jobs.client.body import Body
from dspy_jobs.client.call import Call, T
from dspy_jobs.client.errors import InvalidArgument
from dspy_jobs.client.flow import Flow, Session, answered, asked_pause, finished
from dspy_jobs.models import (
    Autoscale,
    Batch,
    BatchEstimate,
    Budget,
    Costs,
    Health,
    Job,
    Program,
    Queue,
    ResultPage,
    Score,
    VariantReport,
)
from dspy_jobs.names import IDEMPOTENCY_KEY

#: Results asked for at once: few enough to hold, many enough that a request's cost does not count.
PAGE = 500

#: Seconds `POST /v1/predict` holds the line.
_PREDICT_WAIT = 30.0

_programs = TypeAdapter(list[Program])
_queues = TypeAdapter(list[Queue])
_jobs = TypeAdapter(list[Job])
_variants = TypeAdapter(list[VariantReport])
_budgets = TypeAdapter(list[Budget])


def submit(
    session: Session, /, program: str, inputs: Mapping[str, Any], *, idempotency_key: str | None = None, **options: Any
) -> Flow[Job]:
    """Queue one job.

    `options` are the contract's fields by name: model, variant, parameters, use_cache, cache, priority, custom_id,
    request_id, timeout_seconds, expires_in_seconds, max_attempts, metadata, webhook. `cache` is `{"mode"?,
    "max_age_seconds"?, "namespace"?}` with the mode `default`, `refresh`, `only` or `off`, or the mode alone. With an
    `idempotency_key` of your own the same submission queues one job however often it is made, within a day; without,
    only this call's own tries do.

    Raises:
        ApiError: `idempotency_mismatch`: the key was used for another submission.
        InvalidArgument: the key is not 1 to 255 visible ASCII characters.
    """
    body, key = _submission(program, inputs, options), _key(idempotency_key)
    return answered(session, Call("POST", "/v1/jobs", _job, json=body, key=key))


def get(session: Session, /, job_id: str) -> Flow[Job]:
    """The job as it is now."""
    return answered(session, Call("GET", _path("jobs", job_id), _job))


def wait(session: Session, /, job_id: str, timeout: float | None = None) -> Flow[Job]:
    """The job once it has ended, however it ended. `timeout` in seconds; None waits as long as it takes.

    Raises:
        WaitTimeout: it had not ended by then.
    """
    return finished(session, _poll(_path("jobs", job_id), _job), timeout)


def cancel(session: Session, /, job_id: str) -> Flow[Job]:
    """Stop the job: at once if it was queued, as soon as its worker notices if it runs."""
    return answered(session, Call("POST", _path("jobs", job_id, "cancel"), _job))


def retry(session: Session, /, job_id: str) -> Flow[Job]:
    """Queue a failed, canceled or expired job again under the same id."""
    return answered(session, Call("POST", _path("jobs", job_id, "retry"), _job))


def delete(session: Session, /, job_id: str) -> Flow[None]:
    """Erase an ended job's inputs and outputs."""
    return answered(session, Call("DELETE", _path("jobs", job_id), lambda _: None))


def score(session: Session, /, job_id: str, name: str, value: float) -> Flow[Score]:
    """Say what an ended job's output is worth, by whatever measure; the same name again replaces it."""
    body = {"name": name, "value": value}
    return answered(session, Call("POST", _path("jobs", job_id, "score"), _score, json=body))


def predict(
    session: Session,
    /,
    program: str,
    inputs: Mapping[str, Any],
    *,
    timeout: float | None = None,
    idempotency_key: str | None = None,
    **options: Any,
) -> Flow[Job]:
    """Submit and wait in one call; the job succeeded. Options as for `submit`.

    Raises:
        ApiError: the job failed; its problem is the error's.
        WaitTimeout: it had not ended after `timeout` seconds.
    """
    held = _PREDICT_WAIT if timeout is None else min(timeout, _PREDICT_WAIT)
    start = session.clock()
    body, key = _submission(program, inputs, options), _key(idempotency_key)
    job = yield from answered(session, Call("POST", "/v1/predict", _job, json=body, wait=held, key=key))
    if job.is_done:
        return job
    left = None if timeout is None else max(0.0, timeout - (session.clock() - start))
    job = yield from wait(session, job.id, left)
    job.result()
    return job


def submit_batch(
    session: Session,
    /,
    program: str,
    items: Iterable[Mapping[str, Any]],
    *,
    idempotency_key: str | None = None,
    **options: Any,
) -> Flow[Batch]:
    """Queue many jobs of one program, all or none.

    An item is `{"inputs": {…}, "custom_id"?: "…", "metadata"?: {…}, "variant"?: "…"}`. The items are read to their
    end before anything is sent, and kept on disk when they are large. Options as for `submit`; all items share them.
    And `limits`, `{"max_cost_usd"?, "max_error_rate"?, "min_items"?}`: reaching one pauses the batch.

    Raises:
        ApiError: `invalid_input` and its like name every bad item in `problem.errors`.
        InvalidArgument: an item cannot be written as JSON.
    """
    params = _flat({"program": program, **options})
    key = _key(idempotency_key)
    with Body(items) as body:
        return (yield from answered(session, Call("POST", "/v1/batches", _batch, params=params, body=body, key=key)))


def estimate_batch(
    session: Session, /, program: str, items: Iterable[Mapping[str, Any]], **options: Any
) -> Flow[BatchEstimate]:
    """What a batch would come to: valid and invalid items, tokens, cost, time. Nothing is queued.

    Items and options as for `submit_batch`. Invalid items are no error: they are counted and named.

    Raises:
        ApiError: what all items share is wrong.
        InvalidArgument: an item cannot be written as JSON.
    """
    params = _flat({"program": program, **options}) | {"dry_run": "true"}
    with Body(items) as body:
        call = Call("POST", "/v1/batches", _estimate, params=params, body=body, changes_nothing=True)
        return (yield from answered(session, call))


def batch(session: Session, /, batch_id: str) -> Flow[Batch]:
    """The batch as it is now."""
    return answered(session, Call("GET", _path("batches", batch_id), _batch))


def wait_batch(
    session: Session,
    /,
    batch_id: str,
    on_progress: Callable[[Batch], object] | None = None,
    timeout: float | None = None,
) -> Flow[Batch]:
    """The batch once all its jobs have ended. `on_progress` is called with a fresh reading about once a second.

    Raises:
        WaitTimeout: it had not ended after `timeout` seconds.
        BatchPaused: it has reached one of its limits, so it will not end before it is resumed. Somebody's own pause is
            waited out.
    """
    return finished(session, _poll(_path("batches", batch_id), _batch), timeout, on_progress)


def cancel_batch(session: Session, /, batch_id: str) -> Flow[Batch]:
    """Cancel what is queued and stop what runs."""
    return answered(session, Call("POST", _path("batches", batch_id, "cancel"), _batch))


def pause_batch(session: Session, /, batch_id: str) -> Flow[Batch]:
    """Start no further job of it; what runs finishes."""
    return answered(session, Call("POST", _path("batches", batch_id, "pause"), _batch))


def resume_batch(session: Session, /, batch_id: str, *, limits: Mapping[str, Any] | None = None) -> Flow[Batch]:
    """Go on after a pause. `limits` replaces those of the batch that it names; None as a value takes one away.

    Raises:
        ApiError: `conflict`: the batch has spent what it may, and is given no more.
    """
    body = None if limits is None else {"limits": dict(limits)}
    return answered(session, Call("POST", _path("batches", batch_id, "resume"), _batch, json=body))


def retry_batch(
    session: Session, /, batch_id: str, *, status: list[str] | None = None, custom_ids: list[str] | None = None
) -> Flow[int]:
    """Queue again what did not succeed, or of that only the given states or ids. Answers how many jobs that were."""
    chosen = {name: value for name, value in (("status", status), ("custom_ids", custom_ids)) if value is not None}
    path = _path("batches", batch_id, "retry")
    return answered(session, Call("POST", path, lambda r: int(r.json()["requeued"]), json=chosen))


def result_page(
    session: Session,
    /,
    batch_id: str,
    *,
    after: str | None = None,
    status: str | None = None,
    order: str | None = None,
    limit: int = PAGE,
) -> Flow[ResultPage]:
    """Results from a cursor on, at any time. `order="input"` once the batch has ended; else in order of completion."""
    wanted = {"after": after, "status": status, "order": order, "limit": limit}
    params = {name: value for name, value in wanted.items() if value is not None}
    return answered(session, Call("GET", _path("batches", batch_id, "results"), _result_page, params=params))


def programs(session: Session, /) -> Flow[list[Program]]:
    """The programs that can be run."""
    return answered(session, Call("GET", "/v1/programs", lambda r: _programs.validate_python(r.json()["data"])))


def program(session: Session, /, name: str) -> Flow[Program]:
    """One program with the JSON Schemas of its inputs and outputs."""
    return answered(session, Call("GET", _path("programs", name), lambda r: Program.model_validate_json(r.content)))


def variants(
    session: Session, /, program: str, *, scores: bool = False, score: str | None = None
) -> Flow[list[VariantReport]]:
    """The variants of a program and what became of their jobs; `scores` brings every value, `score` only one name's."""
    wanted = {"scores": "true" if scores else None, "score": score}
    params = {name: value for name, value in wanted.items() if value is not None}
    path = _path("programs", program, "variants")
    return answered(session, Call("GET", path, lambda r: _variants.validate_python(r.json()["data"]), params=params))


def jobs(
    session: Session,
    /,
    *,
    status: str | None = None,
    program: str | None = None,
    model: str | None = None,
    batch: str | None = None,
    limit: int = 20,
) -> Flow[list[Job]]:
    """The newest jobs that fit, at most `limit` (1 to 1000)."""
    wanted = {"status": status, "program": program, "model": model, "batch": batch, "limit": str(limit)}
    params = {name: value for name, value in wanted.items() if value is not None}
    return answered(session, Call("GET", "/v1/jobs", lambda r: _jobs.validate_python(r.json()["data"]), params=params))


def queues(session: Session, /) -> Flow[list[Queue]]:
    """The queues, one a model, with what waits and runs in each."""
    return answered(session, Call("GET", "/v1/queues", lambda r: _queues.validate_python(r.json()["data"])))


def pause_queue(session: Session, /, name: str) -> Flow[Queue]:
    """Start no further job of a queue until it is resumed; what runs finishes, and submitting goes on."""
    return answered(session, Call("POST", _path("queues", name, "pause"), _queue))


def resume_queue(session: Session, /, name: str) -> Flow[Queue]:
    """Let a paused queue's jobs run again."""
    return answered(session, Call("POST", _path("queues", name, "resume"), _queue))


def costs(
    session: Session,
    /,
    *,
    first: date | str | None = None,
    last: date | str | None = None,
    group_by: Iterable[str] = ("day",),
) -> Flow[Costs]:
    """What model calls have cost from the first to the last day (UTC, both included); this month so far by default.

    `group_by` are some of day, model, variant, program, client.
    """
    given = {"from": first, "to": last, "group_by": ",".join(group_by)}
    params = {name: str(value) for name, value in given.items() if value is not None}
    return answered(session, Call("GET", "/costs", lambda r: Costs.model_validate_json(r.content), params=params))


def budgets(session: Session, /) -> Flow[list[Budget]]:
    """How much of each budget is left."""
    return answered(session, Call("GET", "/v1/budgets", lambda r: _budgets.validate_python(r.json()["data"])))


def autoscale(session: Session, /) -> Flow[Autoscale]:
    """How many call slots the outstanding jobs need: what KEDA and the autoscaler scale on.

    Raises:
        ApiError: it cannot be told at this moment; that is not waited out.
    """
    read = Autoscale.model_validate_json
    return answered(session, Call("GET", "/v1/autoscale", lambda r: read(r.content), is_of_now=True))


def limits(session: Session, /) -> Flow[dict[str, Any]]:
    """Sizes beyond which a request is refused."""
    return answered(session, Call("GET", "/v1/limits", lambda r: dict(r.json())))


def config(session: Session, /) -> Flow[dict[str, Any]]:
    """The configuration the service runs, without its secrets."""
    return answered(session, Call("GET", "/config", lambda r: dict(r.json())))


def health(session: Session, /) -> Flow[Health]:
    """How every part of the service is; also of one that is unhealthy."""
    read = Call("GET", "/health", lambda r: Health.model_validate_json(r.content), also=(503,))
    return answered(session, read)


def metrics(session: Session, /) -> Flow[str]:
    """The numbers for Prometheus, in its text format."""
    return answered(session, Call("GET", "/metrics", lambda r: r.text))


def ready(session: Session, /) -> Flow[bool]:
    """Whether the service can take jobs now."""
    return answered(session, Call("GET", "/health/ready", lambda r: r.is_success, also=(503,)))


def _job(response: httpx.Response) -> Job:
    return Job.model_validate_json(response.content)


def _batch(response: httpx.Response) -> Batch:
    return Batch.model_validate_json(response.content)


def _score(response: httpx.Response) -> Score:
    return Score.model_validate_json(response.content)


def _estimate(response: httpx.Response) -> BatchEstimate:
    return BatchEstimate.model_validate_json(response.content)


def _queue(response: httpx.Response) -> Queue:
    return Queue.model_validate_json(response.content)


def _result_page(response: httpx.Response) -> ResultPage:
    return ResultPage(
        jobs=[Job.model_validate_json(line) for line in response.content.split(b"\n") if line.strip()],
        next=response.headers.get("X-Next-Cursor"),
        incomplete=response.headers.get("X-Incomplete") == "true",
    )


def _poll(path: str, read: Callable[[httpx.Response], T]) -> Callable[[float], Call[tuple[T, float]]]:
    """Calls that hold the line; they read the value and the seconds to pause before the next one."""

    def reading(response: httpx.Response) -> tuple[T, float]:
        held = "Preference-Applied" in response.headers
        return read(response), 0.0 if held else asked_pause(response, 1.0)

    return lambda seconds: Call("GET", path, reading, wait=seconds)


def _path(kind: str, name: str, *more: str) -> str:
    if not name.strip("."):
        raise InvalidArgument(f"{name!r} is not a name or id; /v1/{kind} needs one")
    return "/".join(("/v1", kind, quote(name, safe=""), *more))


def _submission(program: str, inputs: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    given = {name: value for name, value in options.items() if value is not None}
    return {"program": program, "inputs": dict(inputs), **given}


def _key(given: str | None) -> str:
    """The caller's key, or a fresh one."""
    if given is None:
        return secrets.token_hex(16)
    if not re.fullmatch(IDEMPOTENCY_KEY, given):
        raise InvalidArgument(f"{given!r} is not an Idempotency-Key: 1 to 255 visible ASCII characters, no spaces")
    return given


def _flat(fields: Mapping[str, Any]) -> dict[str, str]:
    """A batch's fields as query parameters, those of nested fields beside the others; those that are None left out."""
    flat = {name: value for name, value in fields.items() if name not in ("cache", "limits")}
    cache = fields.get("cache") or {}
    cache = {"mode": cache} if isinstance(cache, str) else cache
    flat |= {"cache" if name == "mode" else f"cache_{name}": v for name, v in cache.items()}
    flat |= fields.get("limits") or {}
    return {name: _param(value) for name, value in flat.items() if value is not None}


def _param(value: Any) -> str:
    """A field as a query parameter: words as they are, everything else as JSON."""
    return value if isinstance(value, str) else orjson.dumps(value).decode()
