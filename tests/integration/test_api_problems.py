"""Every refusal over HTTP is a problem that names what is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        (b"", 400, "malformed_body", None),
        (b"{", 400, "malformed_body", None),
        (b'{"program": "qa", "inputs": {"question": NaN}}', 400, "malformed_body", None),
        (b'{"program": "qa", "inputs": {"question": "\\ud800"}}', 400, "malformed_body", None),
        (b'{"program": "qa", "inputs": {"question": "\xff"}}', 400, "malformed_body", None),
        (b"[1]", 422, "invalid_request_body", None),
        (b'{"program": "qa", "inputs": {"question": "x"}, "webhook": "https://x"}', 422, "invalid_request_body",
         "webhook"),
        (b'{"program": "qa", "inputs": {"question": "x"}, "max_attempts": 0}', 422, "invalid_request_body",
         "max_attempts"),
        (b'{"program": "qa", "inputs": {"question": "x"}, "timeout_seconds": 1e9}', 422, "invalid_request_body",
         "timeout_seconds"),
        (b'{"program": "qa", "inputs": {"question": "x"}, "expires_in_seconds": 1e300}', 422, "invalid_request_body",
         "expires_in_seconds"),
        (b'{"program": "qa", "inputs": {"question": "x"}, "parameters": {"temperature": 9}}', 422,
         "invalid_request_body", "parameters.temperature"),
        (b'{"program": "qa"}', 422, "invalid_request_body", None),
        (b'{"program": "qa", "inputs": {"question": 1}}', 422, "invalid_input", "inputs.question"),
        (b'{"program": "qa", "inputs": {}}', 422, "invalid_input", "inputs.question"),
        (b'{"program": "nope", "inputs": {}}', 422, "unknown_program", "program"),
        (b'{"program": "qa", "model": "gpt", "inputs": {"question": "x"}}', 422, "unknown_model", "model"),
        (b'{"program": "classify", "inputs": {"ticket": "x"}}', 503, "unavailable", None),
    ],
)  # fmt: skip
def test_a_wrong_submission_is_named(api: httpx.Client, body: bytes, status: int, code: str, param: str | None) -> None:
    """Each mistake has its status and code, and the error names the field."""
    answer = api.post("/v1/jobs", content=body, headers=JSON)
    problem = answer.json()
    assert (answer.status_code, problem["status"], problem["code"]) == (status, status, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["instance"] == "/v1/jobs"
    assert problem["request_id"] == answer.headers["x-request-id"]
    if param:
        assert param in [error["param"] for error in problem["errors"]]
    if status == 503:
        assert int(answer.headers["retry-after"]) > 0
        assert "no worker has reported it yet" in problem["detail"]


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", "/v1/jobs/", 404, "not_found"),
        ("GET", "/v1/jobs/x", 404, "not_found"),
        ("GET", "/v1/jobs/job_01jd3v5k8e2m4n6p8q0r2s4t6v", 404, "not_found"),
        ("GET", "/v1/batches/batch_01jd3v5k8e2m4n6p8q0r2s4t6v/results", 404, "not_found"),
        ("GET", "/v1/programs/nope", 404, "not_found"),
        ("GET", "/problems/nope", 404, "not_found"),
        ("PATCH", "/v1/jobs/x", 405, "method_not_allowed"),
        ("GET", "/v1/jobs?colour=red", 400, "invalid_parameter"),
        ("GET", "/v1/jobs?limit=0", 400, "invalid_parameter"),
        ("GET", "/v1/jobs?limit=1&limit=2", 400, "invalid_parameter"),
        ("GET", "/v1/jobs?after=zzz", 400, "invalid_parameter"),
        ("GET", "/v1/jobs?status=PENDING", 400, "invalid_parameter"),
        ("GET", "/v1/batches?after=job_01jd3v5k8e2m4n6p8q0r2s4t6v", 400, "invalid_parameter"),
        ("GET", "/v1/batches/batch_01jd3v5k8e2m4n6p8q0r2s4t6v/results?after=i1", 400, "invalid_parameter"),
        ("GET", "/v1/limits?x=1", 400, "invalid_parameter"),
    ],
)
def test_a_wrong_address_is_named(api: httpx.Client, method: str, path: str, status: int, code: str) -> None:
    """Unknown paths, methods, parameters, cursors and ids are problems like all others."""
    answer = api.request(method, path)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"
    if status == 405:
        assert answer.headers["allow"] == "DELETE, GET, HEAD"


def test_a_wrong_content_type_is_refused(api: httpx.Client) -> None:
    """415 names the types that are taken."""
    answer = api.post("/v1/jobs", content=b"a=1", headers={"content-type": "application/x-www-form-urlencoded"})
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")
    assert "application/json" in answer.json()["detail"]


def test_a_body_beyond_the_limit_is_refused(api: httpx.Client) -> None:
    """413 whether the length was said beforehand or not."""
    large = b'{"program": "qa", "inputs": {"question": "%s"}}' % (b"x" * 1_000_001)

    def pieces() -> Iterator[bytes]:
        yield from (large[i : i + 65536] for i in range(0, len(large), 65536))

    for content in (large, pieces()):
        answer = api.post("/v1/jobs", content=content, headers=JSON)
        assert (answer.status_code, answer.json()["code"]) == (413, "payload_too_large")


def test_inputs_nested_too_deeply_are_refused(api: httpx.Client) -> None:
    """What can be read but not stored is the caller's mistake, not ours."""
    deep = b"[" * 400 + b"]" * 400
    answer = api.post("/v1/jobs", content=b'{"program": "qa", "inputs": {"question": %s}}' % deep, headers=JSON)
    assert answer.status_code == 422


@pytest.mark.parametrize(("given", "kept"), [("abc-1", True), ("x" * 129, False), ("a b", False)])
def test_a_sane_request_id_is_echoed(api: httpx.Client, given: str, kept: bool) -> None:
    """A request id of up to 128 visible characters comes back; any other is replaced."""
    echoed = api.get("/health/live", headers={"x-request-id": given}).headers["x-request-id"]
    assert (echoed == given) is kept
    assert echoed


def test_the_service_tells_of_itself(api: httpx.Client) -> None:
    """Root, health, limits, programs, queues, problems, documents answer 200."""
    for path in ("/", "/health", "/health/live", "/health/ready", "/ready", "/config", "/docs", "/openapi.json"):
        assert api.get(path).status_code == 200, path
    assert api.get("/v1/limits").json()["items_per_batch"] == 50_000
    assert [program["name"] for program in api.get("/v1/programs").json()["data"]] == ["predict", "qa"]
    assert api.get("/v1/programs/qa").json()["input_schema"]["required"] == ["question"]
    assert api.get("/v1/programs/classify").status_code == 503
    assert api.get("/problems/queue_full").json()["status"] == 429


def test_queues_count_what_waits(api: httpx.Client, worker: Any) -> None:
    """A queue shows its queued and running jobs and its live workers."""
    worker.appear()
    first, _ = (api.post("/v1/jobs", json={"program": "qa", "inputs": {"question": "x"}}).json() for _ in range(2))
    worker.start(first["id"])
    queue = next(q for q in api.get("/v1/queues").json()["data"] if q["model"] == "sandbox")
    assert (queue["queued"], queue["running"], queue["workers"]) == (1, 1, 1)
    assert queue["oldest_wait_seconds"] >= 0
