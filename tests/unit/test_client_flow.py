"""Retries and waiting, step by step and without a clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from dspy_jobs.client import ServiceUnreachable, WaitTimeout, operations
from dspy_jobs.client.call import Call
from dspy_jobs.client.flow import Flow, Outcome, Pause, Session, pause_before_retry
from dspy_jobs.problems import problem

GET = Call("GET", "/v1/jobs/job_1", lambda response: response)
POST = Call("POST", "/v1/jobs", lambda response: response)
READY = Call("GET", "/health/ready", lambda response: response, also=(503,))
NOW = Call("GET", "/v1/autoscale", lambda response: response, is_of_now=True)


def answers(status: int, code: str = "unavailable", **headers: str) -> httpx.Response:
    """A refusal."""
    body = problem(code, "…").model_dump(mode="json")
    request = httpx.Request("GET", "http://service/")
    return httpx.Response(
        status, json=body, headers={k.replace("_", "-"): v for k, v in headers.items()}, request=request
    )


def job(status: str, **headers: str) -> httpx.Response:
    """A reading of a job."""
    body = {"id": "job_1", "status": status, "program": "qa"}
    return httpx.Response(200, json=body, headers={k.replace("_", "-"): v for k, v in headers.items()})


@pytest.mark.parametrize(
    ("call", "outcome", "tries", "left", "pause"),
    [
        (GET, answers(429, Retry_After="3"), 1, 30, 3),
        (GET, answers(503, Retry_After="3"), 1, 2.9, None),
        (GET, answers(503), 1, 30, 0.25),
        (GET, answers(503, Retry_After="Wed, 21 Oct 2015 07:28:00 GMT"), 3, 30, 1),
        (GET, answers(503, Retry_After="-1"), 1, 30, 0.25),
        (GET, answers(500), 1, 30, None),
        (GET, answers(404), 1, 30, None),
        (GET, httpx.ConnectError("refused"), 1, 30, 0.25),
        (GET, httpx.ReadTimeout("slow"), 9, 30, 5),
        (GET, httpx.ReadTimeout("slow"), 5000, 30, 5),
        (POST, httpx.ConnectError("refused"), 1, 30, None),
        (POST, httpx.ReadError("broken"), 1, 30, None),
        (POST, answers(429, "queue_full", Retry_After="7"), 1, 30, 7),
        (POST, answers(503, "unavailable", Retry_After="7"), 1, 30, 7),
        (POST, answers(429, "rate_limit", Retry_After="7"), 1, 30, None),
        (READY, answers(503, Retry_After="1"), 1, 30, None),
        (NOW, answers(503, Retry_After="1"), 1, 30, None),
        (NOW, httpx.ConnectError("refused"), 1, 30, 0.25),
    ],
)
def test_what_is_sent_again(call: Call[Any], outcome: Outcome, tries: int, left: float, pause: float | None) -> None:
    """Reads are sent again after 429, 503 and lost connections; writes only where the service did nothing."""
    assert pause_before_retry(call, outcome, tries, left) == pause


def run(
    flow: Flow[Any], *outcomes: Outcome, on_pause: Callable[[float], object] = lambda _: None
) -> tuple[Any, list[Any]]:
    """The flow's result when fed these outcomes, and the steps it took: headers of calls, seconds of pauses."""
    steps: list[Any] = []
    waiting = iter(outcomes)
    fed: Outcome | None = None
    while True:
        try:
            step = flow.send(fed)
        except StopIteration as end:
            return end.value, steps
        if isinstance(step, Pause):
            steps.append(step.seconds)
            on_pause(step.seconds)
            fed = None
        else:
            steps.append(step)
            fed = next(waiting)


def test_pauses_of_one_call_are_bounded_together() -> None:
    """A service that keeps answering 503 is given up once the pauses would exceed the bound."""
    session = Session("http://service", retry_seconds=7, answered=True)
    flow = operations.get(session, "job_1")
    with pytest.raises(Exception, match="unavailable"):
        run(flow, *[answers(503, Retry_After="3") for _ in range(3)])


def test_a_service_that_never_answered_is_given_up_soon() -> None:
    """A wrong address does not hold the caller for the whole bound, and the error says what to do."""
    pauses: list[float] = []
    refused = [httpx.ConnectError("connection refused") for _ in range(20)]
    flow = operations.get(Session("http://127.0.0.1:1", retry_seconds=60), "job_1")
    with pytest.raises(ServiceUnreachable, match=r"http://127\.0\.0\.1:1.*connection refused.*make up"):
        run(flow, *refused, on_pause=pauses.append)
    assert 0 < sum(pauses) <= 2


def test_a_service_that_answered_before_is_given_time_to_restart() -> None:
    """A wait survives a restart of the service."""
    gone = [httpx.ConnectError("refused") for _ in range(6)]
    flow = operations.wait(Session("http://service", retry_seconds=60), "job_1")
    ended, _ = run(flow, job("queued", Preference_Applied="wait=20"), *gone, job("succeeded"))
    assert ended.status == "succeeded"


def test_a_lost_answer_to_a_write_is_said_to_be_uncertain() -> None:
    """After a connection broke during a write the caller learns that it may have been done."""
    session = Session("http://service")
    with pytest.raises(ServiceUnreachable, match="may have been done"):
        run(operations.retry(session, "job_1"), httpx.ReadError("broken"))
    with pytest.raises(ServiceUnreachable) as refused:
        run(operations.retry(session, "job_1"), httpx.ConnectError("refused"))
    assert "may have been done" not in str(refused.value)


def test_waiting_holds_the_line_without_pauses() -> None:
    """As long as the service holds the line, requests follow each other directly."""
    held = {"Preference_Applied": "wait=20"}
    flow = operations.wait(Session("http://service"), "job_1")
    ended, steps = run(flow, job("queued", **held), job("running", **held), job("failed"))
    assert ended.status == "failed"
    assert [step.wait for step in steps] == [20, 20, 20]


def test_waiting_pauses_where_the_line_is_not_held() -> None:
    """A service that answers at once is asked again after `Retry-After`, or a second."""
    flow = operations.wait(Session("http://service"), "job_1")
    _, steps = run(flow, job("queued", Retry_After="4"), job("running"), job("succeeded"))
    assert steps[1::2] == [4, 1]


def test_a_wait_ends_at_its_timeout() -> None:
    """The last request and the last pause are cut to what is left; the error carries what was read last."""
    now = 100.0

    def advance(seconds: float) -> None:
        nonlocal now
        now += seconds

    session = Session("http://service", clock=lambda: now)
    flow = operations.wait(session, "job_1", timeout=5)
    with pytest.raises(WaitTimeout, match="still running after 5 s") as timeout:
        run(flow, *[job("running", Retry_After="3") for _ in range(3)], on_pause=advance)
    assert timeout.value.last.id == "job_1"
    assert now == 105


def test_no_time_to_wait_is_one_look() -> None:
    """`timeout=0` reads once and does not ask the service to hold the line."""
    flow = operations.wait(Session("http://service"), "job_1", timeout=0)
    ended, [call] = run(flow, job("succeeded"))
    assert (ended.status, call.wait) == ("succeeded", 0)


def test_progress_is_read_every_second() -> None:
    """With `on_progress` every reading is passed on, the last one too."""

    def batch(done: int, total: int = 2) -> httpx.Response:
        status = "ended" if done == total else "in_progress"
        counts = {"total": total, "queued": total - done, "succeeded": done}
        headers = {"Preference-Applied": "wait=1"}
        return httpx.Response(200, json={"id": "batch_1", "status": status, "counts": counts}, headers=headers)

    seen: list[int] = []
    flow = operations.wait_batch(Session("http://service"), "batch_1", lambda batch: seen.append(batch.counts.done))
    _, steps = run(flow, batch(0), batch(1), batch(2))
    assert seen == [0, 1, 2]
    assert {step.wait for step in steps} == {1}


def test_a_prediction_that_outlives_its_request_is_waited_for() -> None:
    """A 202 of `predict` goes on as a wait for the job."""
    flow = operations.predict(Session("http://service"), "qa", {"question": "?"})
    queued = httpx.Response(202, json={"id": "job_1", "status": "running", "program": "qa"})
    done = httpx.Response(200, json={"id": "job_1", "status": "succeeded", "program": "qa", "output": {"answer": "4"}})
    ended, steps = run(flow, queued, done)
    assert ended.output == {"answer": "4"}
    assert [step.path for step in steps] == ["/v1/predict", "/v1/jobs/job_1"]
