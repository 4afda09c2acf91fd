"""What both clients send and how they read the answers."""

from __future__ import annotations

import asyncio
import inspect
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import date
from typing import Any

import httpx
import pytest

import dspy_jobs
from dspy_jobs import ApiError, AsyncClient, Client, InvalidArgument
from dspy_jobs.errors import JobExpired, JobFailed
from dspy_jobs.models import Job
from dspy_jobs.problems import problem
from dspy_jobs.settings import service_url
from tests.unit.service_scene import HEALTH

JOB = {"id": "job_1", "object": "job", "status": "queued", "program": "qa", "created_at": "2025-01-02T03:04:05.678Z"}
COUNTS = {"total": 1, "queued": 1, "running": 0, "succeeded": 0, "failed": 0, "canceled": 0, "expired": 0, "cached": 0}
BATCH = {"id": "batch_1", "object": "batch", "status": "in_progress", "program": "qa", "counts": COUNTS}
PROGRAM = {"name": "qa", "version": "1", "model": "fast", "input_schema": {}, "output_schema": {}}
SCORE = {"object": "score", "job_id": "job_1", "name": "accuracy", "value": 0.9}
VARIANT = {"name": "b", "weight": 1, "model": "fast", "jobs": 3, "scores": {"accuracy": {"n": 2, "mean": 0.5}}}
QUEUE = {"name": "dspy.fast", "model": "fast", "queued": 3, "running": 1, "gate": {"open": True}, "workers": 2}
AUTOSCALE = {"work": 22.5, "work_slots": 18, "waiting": 100, "inflight": 8, "concurrency": 8, "queues": {}}
COSTS = {
    "from": "2026-01-01", "to": "2026-01-02", "group_by": ["day"], "data": [{"day": "2026-01-02", "cost_nanos": 5}],
    "total": {"cost_nanos": 5}, "complete": True,
}  # fmt: skip

WITH_ID = ("submit", "get", "cancel", "retry", "batch", "cancel_batch", "pause_batch", "resume_batch")

Handler = Callable[[httpx.Request], httpx.Response]


@pytest.fixture(params=["blocking", "awaited"])
def call(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Makes one call of a client by name, of either kind, against a handler."""

    def blocking(handler: Handler, name: str, *args: Any, **kwargs: Any) -> Any:
        with Client("http://service/", transport=httpx.MockTransport(handler)) as client:
            answer = getattr(client, name)(*args, **kwargs)
            return list(answer) if name == "results" else answer

    def awaited(handler: Handler, name: str, *args: Any, **kwargs: Any) -> Any:
        async def run() -> Any:
            async with AsyncClient("http://service/", transport=httpx.MockTransport(handler)) as client:
                answer = getattr(client, name)(*args, **kwargs)
                return [job async for job in answer] if name == "results" else await answer

        return asyncio.run(run())

    return blocking if request.param == "blocking" else awaited


@pytest.mark.parametrize(
    ("name", "args", "sent", "answer"),
    [
        ("submit", ("qa", {"question": "?"}), ("POST", "/v1/jobs"), (202, JOB)),
        ("get", ("job_1",), ("GET", "/v1/jobs/job_1"), (200, JOB)),
        ("get", ("../x?y",), ("GET", "/v1/jobs/..%2Fx%3Fy"), (200, JOB)),
        ("cancel", ("job_1",), ("POST", "/v1/jobs/job_1/cancel"), (202, JOB)),
        ("retry", ("job_1",), ("POST", "/v1/jobs/job_1/retry"), (202, JOB)),
        ("score", ("job_1", "accuracy", 0.9), ("POST", "/v1/jobs/job_1/score"), (200, SCORE)),
        ("delete", ("job_1",), ("DELETE", "/v1/jobs/job_1"), (204, None)),
        ("batch", ("batch_1",), ("GET", "/v1/batches/batch_1"), (200, BATCH)),
        ("cancel_batch", ("batch_1",), ("POST", "/v1/batches/batch_1/cancel"), (202, BATCH)),
        ("pause_batch", ("batch_1",), ("POST", "/v1/batches/batch_1/pause"), (200, BATCH)),
        ("resume_batch", ("batch_1",), ("POST", "/v1/batches/batch_1/resume"), (200, BATCH)),
        ("retry_batch", ("batch_1",), ("POST", "/v1/batches/batch_1/retry"), (202, {"requeued": 3})),
        ("programs", (), ("GET", "/v1/programs"), (200, {"data": [PROGRAM]})),
        ("program", ("qa",), ("GET", "/v1/programs/qa"), (200, PROGRAM)),
        ("variants", ("qa",), ("GET", "/v1/programs/qa/variants"), (200, {"data": [VARIANT]})),
        ("queues", (), ("GET", "/v1/queues"), (200, {"data": [QUEUE]})),
        ("pause_queue", ("dj.m",), ("POST", "/v1/queues/dj.m/pause"), (200, QUEUE)),
        ("resume_queue", ("dj.m",), ("POST", "/v1/queues/dj.m/resume"), (200, QUEUE)),
        ("costs", (), ("GET", "/costs?group_by=day"), (200, COSTS)),
        ("budgets", (), ("GET", "/v1/budgets"), (200, {"data": [{"client": None, "period": "day"}]})),
        ("autoscale", (), ("GET", "/v1/autoscale"), (200, AUTOSCALE)),
        ("limits", (), ("GET", "/v1/limits"), (200, {"items_per_batch": 50000})),
        ("ready", (), ("GET", "/health/ready"), (200, {"status": "ready"})),
        ("health", (), ("GET", "/health"), (503, HEALTH)),
        ("config", (), ("GET", "/config"), (200, {"default_model": "fast"})),
        ("metrics", (), ("GET", "/metrics"), (200, {})),
    ],
)
def test_each_call_has_its_address(
    call: Callable[..., Any], name: str, args: tuple[Any, ...], sent: tuple[str, str], answer: tuple[int, Any]
) -> None:
    """Every call of either client goes to the contract's method and path and reads the contract's answer."""
    seen: list[tuple[str, str]] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append((request.method, request.url.raw_path.decode()))
        return httpx.Response(answer[0], json=answer[1]) if answer[1] is not None else httpx.Response(answer[0])

    read = call(handler, name, *args)
    assert seen == [sent]
    expected = {
        "retry_batch": 3, "delete": None, "ready": True, "limits": {"items_per_batch": 50000}, "metrics": "{}",
        "config": {"default_model": "fast"},
    }  # fmt: skip
    if name in expected:
        assert read == expected[name]
    else:
        first = read[0] if isinstance(read, list) else read
        about = {"costs": "complete", "budgets": "period", "autoscale": "work", "health": "components"}.get(
            name, "id" if name in WITH_ID else "name"
        )
        assert first.model_dump(exclude_unset=True).keys() >= {about}


def test_costs_are_asked_for_by_days_and_groups(call: Callable[..., Any]) -> None:
    """Days may be dates or text; the answer's numbers are integers of nano-dollars too."""
    asked: list[dict[str, str]] = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(dict(request.url.params))
        return httpx.Response(200, json=COSTS)

    costs = call(handler, "costs", first=date(2026, 1, 1), last="2026-01-02", group_by=["model", "client"])
    assert asked == [{"from": "2026-01-01", "to": "2026-01-02", "group_by": "model,client"}]
    assert (costs.first, costs.data[0].day, costs.total.cost_nanos) == (date(2026, 1, 1), date(2026, 1, 2), 5)


def test_a_job_is_sent_whole(call: Callable[..., Any]) -> None:
    """Options become the contract's fields; those that are None are left out."""
    bodies: list[Any] = []

    def handler(request: httpx.Request) -> httpx.Response:
        bodies.append(json.loads(request.content))
        return httpx.Response(202, json=JOB)

    job = call(handler, "submit", "qa", {"question": "a = \x00 ü"}, model="fast", priority=None, metadata={"a": 1})
    assert bodies == [{"program": "qa", "inputs": {"question": "a = \x00 ü"}, "model": "fast", "metadata": {"a": 1}}]
    assert job.created_at.isoformat() == "2025-01-02T03:04:05.678000+00:00"


def test_a_batch_is_streamed_as_ndjson(call: Callable[..., Any]) -> None:
    """Items become one line each, options query parameters; after a 429 all of it is sent again."""
    tries: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        tries.append(request)
        full = problem("queue_full", "full").model_dump(mode="json")
        return (
            httpx.Response(429, json=full, headers={"Retry-After": "0"})
            if len(tries) == 1
            else httpx.Response(202, json=BATCH)
        )

    def items() -> Iterator[dict[str, Any]]:
        for number in range(1000):
            yield {"inputs": {"question": f"zwei\n+ {number}?"}, "custom_id": str(number)}

    batch = call(answer, "submit_batch", "qa", items(), model="fast", use_cache=False, metadata={"a": "b"})
    assert batch.counts.total == 1
    first, second = tries
    assert dict(second.url.params) == {"program": "qa", "model": "fast", "use_cache": "false", "metadata": '{"a":"b"}'}
    assert second.headers["Content-Type"] == "application/x-ndjson"
    assert first.content == second.content
    lines = second.content.split(b"\n")
    assert len(second.content) == int(second.headers["Content-Length"])
    assert lines.pop() == b""
    assert [json.loads(line)["custom_id"] for line in lines] == [str(number) for number in range(1000)]


def test_nested_fields_of_a_batch_lie_flat_in_its_query(call: Callable[..., Any]) -> None:
    """Members of cache and limits become parameters of their own; those that are None are left out."""
    sent: list[dict[str, str]] = []

    def handler(request: httpx.Request) -> httpx.Response:
        sent.append(dict(request.url.params))
        return httpx.Response(202, json=BATCH)

    cache = {"mode": "refresh", "max_age_seconds": 60, "namespace": None}
    call(handler, "submit_batch", "qa", [{"inputs": {}}], cache=cache, limits={"max_cost_usd": 0.5})
    assert sent == [{"program": "qa", "cache": "refresh", "cache_max_age_seconds": "60", "max_cost_usd": "0.5"}]


def test_an_estimate_only_asks(call: Callable[..., Any]) -> None:
    """It is sent as a batch is, but without a key, and again where the line broke, for it changes nothing."""
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        request.read()
        seen.append(request)
        if len(seen) == 1:
            raise httpx.ReadError("the line broke")
        answer = {"valid": 1, "invalid": 0, "cached": None, "est_cost_usd": {"low": 0.1, "high": None}, "new": 1}
        return httpx.Response(200, json=answer)

    found = call(handler, "estimate_batch", "qa", [{"inputs": {}}], model="fast", cache={"namespace": "n"})
    assert [dict(request.url.params) for request in seen] == [
        {"program": "qa", "model": "fast", "cache_namespace": "n", "dry_run": "true"}
    ] * 2
    assert [request.content for request in seen] == [b'{"inputs":{}}\n'] * 2
    assert not any("idempotency-key" in request.headers for request in seen)
    assert (found.valid, found.cached, found.est_cost_usd.low, found.est_cost_usd.high) == (1, None, 0.1, None)


def test_a_batch_is_resumed_under_other_limits(call: Callable[..., Any]) -> None:
    """None takes a limit away, so it is sent; without limits there is no body."""
    sent: list[bytes] = []

    def handler(request: httpx.Request) -> httpx.Response:
        sent.append(request.content)
        return httpx.Response(200, json=BATCH)

    call(handler, "resume_batch", "batch_1")
    call(handler, "resume_batch", "batch_1", limits={"max_cost_usd": None, "min_items": 3})
    assert (sent[0], json.loads(sent[1])) == (b"", {"limits": {"max_cost_usd": None, "min_items": 3}})


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, "\ud800"])
def test_an_item_that_is_no_json_is_named(call: Callable[..., Any], value: Any) -> None:
    """An item that JSON cannot express is refused by its number, before anything is sent."""

    def handler(request: httpx.Request) -> httpx.Response:
        raise AssertionError("something was sent")

    with pytest.raises(InvalidArgument, match="item 2 cannot be written as JSON"):
        call(handler, "submit_batch", "qa", [{"inputs": {}}, {"inputs": {"question": value}}])


def test_results_follow_the_cursor(call: Callable[..., Any]) -> None:
    """Pages are read until the cursor stands still, with the same filter, an empty page between them or not."""
    pages = {None: (["job_1", "job_2"], "2"), "2": ([], "3"), "3": (["job_3"], "4"), "4": ([], "4")}
    asked: list[dict[str, str]] = []

    def handler(request: httpx.Request) -> httpx.Response:
        params = dict(request.url.params)
        asked.append(params)
        ids, cursor = pages[params.get("after")]
        text = "".join(json.dumps({**JOB, "id": job_id, "output": {"a": "\u2028"}}) + "\n" for job_id in ids)
        return httpx.Response(200, text=text, headers={"X-Next-Cursor": cursor, "X-Incomplete": "true"})

    jobs = call(handler, "results", "batch_1", status="failed")
    assert [job.id for job in jobs] == ["job_1", "job_2", "job_3"]
    assert [params.get("after") for params in asked] == [None, "2", "3", "4"]
    assert {params["status"] for params in asked} == {"failed"}


def test_waiting_asks_to_hold_the_line(call: Callable[..., Any]) -> None:
    """A wait sends `Prefer: wait=N` and gives the answer longer than that to come."""
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={**JOB, "status": "succeeded"})

    call(handler, "wait", "job_1", timeout=3)
    prefer, _, seconds = seen[0].headers["Prefer"].partition("=")
    assert (prefer, int(seconds)) == ("wait", 3)
    assert seen[0].extensions["timeout"]["read"] > 30


@pytest.mark.parametrize(
    ("answer", "status", "code", "text"),
    [
        ((404, {"json": problem("not_found", "no job job_1").model_dump()}), 404, "not_found", "no job"),
        ((404, {"text": "<html>"}), 404, "unexpected", "is this dspy-jobs?"),
        ((200, {"text": "<html>"}), 200, "unexpected", "could not be read"),
        ((200, {"json": {"id": "job_1"}}), 200, "unexpected", "could not be read"),
        ((307, {"headers": {"Location": "http://elsewhere"}}), 307, "unexpected", "answered 307"),
    ],
)
def test_refusals_are_api_errors(
    call: Callable[..., Any], answer: tuple[int, dict[str, Any]], status: int, code: str, text: str
) -> None:
    """Whatever answers, a caller gets a job or an `ApiError` with status, code and a reason."""
    with pytest.raises(ApiError, match=text) as refused:
        call(lambda _: httpx.Response(answer[0], **answer[1]), "get", "job_1")
    assert (refused.value.status, refused.value.problem.code) == (status, code)


def test_not_ready_is_an_answer(call: Callable[..., Any]) -> None:
    """`ready` says no at once where the service says no."""
    assert call(lambda _: httpx.Response(503, json={}), "ready") is False


def test_a_broken_connection_is_tried_again(call: Callable[..., Any]) -> None:
    """One lost connection during a read is not the caller's business."""
    tries: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        tries.append(request)
        if len(tries) == 1:
            raise httpx.RemoteProtocolError("server disconnected", request=request)
        return httpx.Response(200, json=JOB)

    assert call(handler, "get", "job_1").id == "job_1"


def test_both_clients_have_the_same_calls() -> None:
    """What the blocking client can do the asynchronous one can, with the same parameters."""

    def calls(kind: type) -> dict[str, list[str]]:
        members = inspect.getmembers(kind, inspect.isfunction)
        return {name: list(inspect.signature(f).parameters)[1:] for name, f in members if not name.startswith("_")}

    blocking, awaited = calls(Client), calls(AsyncClient)
    assert blocking.pop("close") == awaited.pop("aclose")
    assert blocking == awaited
    assert {"submit", "wait", "results", "submit_batch"} <= blocking.keys()


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "ftp://service", "http://", "service"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    """A wrong address is an error of its own, not an unreachable service."""
    with pytest.raises(InvalidArgument, match="is not an address"):
        Client(url)


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_an_empty_id_is_refused(call: Callable[..., Any], name: str) -> None:
    """An id that would address something else is refused before anything is sent."""
    with pytest.raises(InvalidArgument, match="is not a name or id"):
        call(lambda _: httpx.Response(200, json=JOB), "get", name)


@pytest.mark.parametrize(
    ("environ", "url"),
    [
        ({"DSPY_JOBS_URL": "https://jobs.example/x"}, "https://jobs.example/x"),
        ({"DSPY_JOBS_API_PORT": "9000"}, "http://127.0.0.1:9000"),
        ({"DSPY_JOBS_API_HOST": "0.0.0.0"}, "http://127.0.0.1:8080"),
        ({"DSPY_JOBS_API_HOST": "::"}, "http://[::1]:8080"),
    ],
)
def test_the_address_comes_from_the_environment_or_the_configuration(
    environ: dict[str, str], url: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`DSPY_JOBS_URL` wins; else the client goes where the configuration makes the API listen."""
    monkeypatch.chdir(tmp_path)
    assert service_url(environ) == url


def test_a_result_is_the_output_or_an_error() -> None:
    """`Job.result()` gives the output, or raises what ended the job."""
    job = Job.model_validate({**JOB, "status": "succeeded", "output": {"answer": "4"}})
    assert job.result() == {"answer": "4"}
    failed = problem("program_error", "boom").model_dump(mode="json")
    with pytest.raises(JobFailed, match="program_error: boom"):
        Job.model_validate({**JOB, "status": "failed", "error": failed}).result()
    with pytest.raises(JobExpired):
        Job.model_validate({**JOB, "status": "expired"}).result()


def test_members_added_later_are_kept() -> None:
    """A newer service's members do not break an older client and can be read."""
    assert Job.model_validate({**JOB, "colour": "red"}).model_dump()["colour"] == "red"


def test_the_package_is_light_until_the_client_is_used() -> None:
    """Importing `dspy_jobs`, or the command line, loads neither httpx nor rich; naming the client does."""
    program = (
        "import sys, dspy_jobs, dspy_jobs.cli.batches, dspy_jobs.cli.jobs;"
        "assert not {'httpx', 'rich', 'dspy', 'celery', 'fastapi'} & sys.modules.keys(), sorted(sys.modules);"
        "dspy_jobs.Client; assert 'httpx' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
    with pytest.raises(AttributeError, match="nothing"):
        dspy_jobs.nothing  # noqa: B018
