"""How clients use idempotency keys: one for each submission, the same for all its tries."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from dspy_jobs.client import ApiError, InvalidArgument, ServiceUnreachable, operations
from dspy_jobs.client.call import Call
from dspy_jobs.client.flow import Flow, Outcome, Pause, Session
from dspy_jobs.client.http import request
from dspy_jobs.problems import problem

SUBMISSIONS = {
    "submit": ("qa", {"question": "?"}),
    "predict": ("qa", {"question": "?"}),
    "submit_batch": ("qa", [{"inputs": {}}]),
}
COUNTS = dict.fromkeys(("total", "queued", "running", "succeeded", "failed", "canceled", "expired", "cached"), 0)
JOB = {"id": "job_1", "status": "succeeded", "program": "qa"}
BATCH = {"id": "batch_1", "status": "ended", "program": "qa", "counts": COUNTS}


def answers(status: int, code: str) -> httpx.Response:
    """A problem that asks to be asked again."""
    asked = httpx.Request("POST", "http://service/")
    content = problem(code, "…").model_dump(mode="json")
    return httpx.Response(status, json=content, headers={"Retry-After": "1"}, request=asked)


def calls(flow: Flow[Any], *outcomes: Outcome) -> list[Call[Any]]:
    """The calls a flow makes when it is fed these outcomes."""
    made, waiting, fed = [], iter(outcomes), None
    while True:
        try:
            step = flow.send(fed)
        except StopIteration:
            return made
        fed = None
        if not isinstance(step, Pause):
            made.append(step)
            fed = next(waiting)


@pytest.mark.parametrize("name", SUBMISSIONS)
def test_every_submission_has_a_key_of_its_own(name: str) -> None:
    """All tries of one submission carry the same key, two submissions different ones."""
    keys = []
    for _ in range(2):
        flow = getattr(operations, name)(Session("http://service"), *SUBMISSIONS[name])
        broken, busy = httpx.ReadError("broken"), answers(409, "idempotency_in_flight")
        done = httpx.Response(200, json=BATCH if name == "submit_batch" else JOB)
        made = calls(flow, httpx.ConnectError("refused"), broken, busy, done)
        assert len(made) == 4
        assert len({call.key for call in made}) == 1
        keys.append(made[0].key)
    assert None not in keys
    assert len(set(keys)) == 2


@pytest.mark.parametrize("name", SUBMISSIONS)
def test_a_key_of_ones_own_is_sent_as_it_is(name: str) -> None:
    """`idempotency_key` becomes the header."""
    flow = getattr(operations, name)(Session("http://service"), *SUBMISSIONS[name], idempotency_key="order-17")
    sent = request(httpx.Client(base_url="http://service"), next(flow))
    flow.close()
    assert sent.headers["Idempotency-Key"] == "order-17"
    assert "idempotency_key" not in str(sent.url)


@pytest.mark.parametrize("key", ["", "a b", "ü", "a\n", "x" * 256])
def test_an_unfit_key_is_refused_before_anything_is_sent(key: str) -> None:
    """A key the service would refuse is an `InvalidArgument`."""
    with pytest.raises(InvalidArgument, match="Idempotency-Key"):
        operations.submit(Session("http://service"), "qa", {}, idempotency_key=key)


@pytest.mark.parametrize(
    ("status", "code"), [(422, "idempotency_mismatch"), (409, "conflict"), (429, "rate_limit"), (502, "server")]
)
def test_what_would_be_answered_the_same_is_not_sent_again(status: int, code: str) -> None:
    """Refusals for good, and failures a job brings with it, are the caller's at once."""
    with pytest.raises(ApiError, match=code):
        calls(operations.predict(Session("http://service"), "qa", {}), answers(status, code))


def test_a_submission_given_up_says_that_it_may_have_been_done() -> None:
    """When one try may have arrived, the caller learns it even if the last one could not be sent."""
    refused = [httpx.ConnectError("refused") for _ in range(20)]
    with pytest.raises(ServiceUnreachable, match="may have been done"):
        calls(operations.submit(Session("http://service"), "qa", {}), httpx.ReadError("broken"), *refused)
    with pytest.raises(ServiceUnreachable) as unsent:
        calls(operations.submit(Session("http://service"), "qa", {}), *refused)
    assert "may have been done" not in str(unsent.value)
