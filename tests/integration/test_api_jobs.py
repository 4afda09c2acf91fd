"""Single jobs over HTTP: submit, read, list, cancel, retry, erase, predict."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from dspy_jobs import names
from dspy_jobs.store import SyncStore
from dspy_jobs.waiting import wait_until
from tests.integration.played_worker import PlayedWorker

QUESTION = {"program": "qa", "inputs": {"question": "why?"}}


def submit(api: httpx.Client, **more: Any) -> dict[str, Any]:
    """Submit a question."""
    answer = api.post("/v1/jobs", json={**QUESTION, **more})
    assert answer.status_code == 202, answer.text
    return dict(answer.json())


def read(api: httpx.Client, job: dict[str, Any]) -> dict[str, Any]:
    """The job as it is now."""
    answer = api.get(f"/v1/jobs/{job['id']}")
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_a_submission_answers_with_the_job_and_where_to_find_it(api: httpx.Client) -> None:
    """202 with Location, Retry-After and the job as it can be read."""
    answer = api.post("/v1/jobs", json={**QUESTION, "custom_id": "c", "metadata": {"a": 1}, "request_id": "r-1"})
    job = answer.json()
    assert answer.status_code == 202
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}"
    assert answer.headers["retry-after"] == "1"
    assert job == read(api, job)
    assert (job["status"], job["custom_id"], job["metadata"], job["request_id"]) == ("queued", "c", {"a": 1}, "r-1")


def test_the_request_of_a_job_is_what_the_worker_needs(api: httpx.Client, worker: PlayedWorker) -> None:
    """The stored request has expanded inputs and every option that was given, and nothing else."""
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    body = {
        "input": "x",
        "model": "sandbox",
        "parameters": {"temperature": 0.5},
        "timeout_seconds": 7,
        "use_cache": False,
    }
    job = api.post("/v1/jobs", json=body, headers={"x-request-id": "abc", "traceparent": trace}).json()
    assert worker.start(job["id"]).request == {
        "inputs": {"input": "x"},
        "parameters": {"temperature": 0.5},
        "timeout_seconds": 7,
        "cache": {"mode": "off"},
        "program_version": "v1",
        "request_id": "abc",
        "traceparent": trace,
    }


def test_what_is_asked_of_the_cache_is_kept_in_one_form(api: httpx.Client, worker: PlayedWorker) -> None:
    """Only what was given is kept; nothing where nothing was asked."""
    given = {"mode": "only", "max_age_seconds": 315_360_000, "namespace": "eu.1"}
    assert worker.start(submit(api, cache=given)["id"]).request["cache"] == given
    for off in ({"use_cache": False}, {"cache": "off"}, {"cache": {"mode": "off"}, "use_cache": False}):
        assert worker.start(submit(api, **off)["id"]).request["cache"] == {"mode": "off"}
    for nothing in ({}, {"cache": {}}, {"cache": None, "use_cache": True}):
        assert "cache" not in worker.start(submit(api, **nothing)["id"]).request


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"cache": {"mode": "never"}}, "cache.mode"),
        ({"cache": {"max_age_seconds": -1}}, "cache.max_age_seconds"),
        ({"cache": {"max_age_seconds": 315_360_001}}, "cache.max_age_seconds"),
        ({"cache": {"max_age_seconds": 1e308}}, "cache.max_age_seconds"),
        ({"cache": {"namespace": "a b"}}, "cache.namespace"),
        ({"cache": {"namespace": "a" * 65}}, "cache.namespace"),
        ({"cache": "never"}, "cache.mode"),
        ({"cache": 7}, "cache"),
        ({"cache": {"namespace": "x"}, "use_cache": False}, "so `cache.namespace` has no meaning"),
        ({"cache": {"mode": "off", "max_age_seconds": 5}}, "so `cache.max_age_seconds` has no meaning"),
        ({"cache": {"ttl": 1}}, "there is no field 'ttl'"),
        ({"use_cache": False, "cache": {"mode": "only"}}, "`use_cache: false` contradicts the cache mode `only`"),
        ({"use_cache": True, "cache": {"mode": "off"}}, "`use_cache: true` contradicts the cache mode `off`"),
    ],
)
def test_a_wish_the_cache_cannot_fulfil_is_refused(api: httpx.Client, fields: dict[str, Any], text: str) -> None:
    """422 that names the field, or what contradicts what."""
    answer = api.post("/v1/jobs", json={**QUESTION, **fields})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request_body")
    assert text in answer.json()["detail"]


def test_a_job_tells_its_life(api: httpx.Client, worker: PlayedWorker) -> None:
    """Queued, running and succeeded are seen with their attempts, output, usage and cost."""
    job = submit(api)
    assert read(api, job)["wait_reason"] == "no_workers"
    worker.appear()
    assert "wait_reason" not in read(api, job)
    assert read(api, submit(api))["behind"] == 1
    worker.fail_for_now(job["id"], 0)
    waiting = read(api, job)
    assert (waiting["status"], waiting["attempts"][0]["error"]["code"]) == ("queued", "server")
    assert wait_until(lambda: read(api, job).get("wait_reason") != "retry_scheduled", 10), "nobody woke it"
    worker.succeed(job["id"], "because")
    done = read(api, job)
    assert (done["status"], done["output"], done["attempt"]) == ("succeeded", {"answer": "because"}, 2)
    unknown = {"cached_input_tokens": None, "reasoning_tokens": None}
    assert done["usage"] == {"input_tokens": 20, "output_tokens": 4, **unknown, "calls": 2, "source": "provider"}
    assert done["cost_usd"] == 0.000003
    assert [attempt["number"] for attempt in done["attempts"]] == [1, 2]


def test_an_unchanged_job_is_not_sent_again(api: httpx.Client, worker: PlayedWorker) -> None:
    """If-None-Match with the ETag answers 304, and 200 once the job has changed."""
    job = submit(api)
    tag = api.get(f"/v1/jobs/{job['id']}").headers["etag"]
    same = api.get(f"/v1/jobs/{job['id']}", headers={"if-none-match": f'"other", W/{tag}'})
    assert (same.status_code, same.content) == (304, b"")
    worker.succeed(job["id"])
    assert api.get(f"/v1/jobs/{job['id']}", headers={"if-none-match": tag}).status_code == 200


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/predict"])
def test_a_wait_ends_with_the_job(api: httpx.Client, worker: PlayedWorker, store: SyncStore, path: str) -> None:
    """`Prefer: wait` answers with the finished job and says what it applied."""
    with ThreadPoolExecutor(1) as threads:
        future = threads.submit(api.post, path, json=QUESTION, headers={"prefer": "respond-async, wait=20"})
        assert wait_until(lambda: store.redis.zcard(names.JOBS) == 1, 10)
        worker.succeed(store.redis.zrange(names.JOBS, 0, 0)[0].decode())
        answer = future.result()
    assert answer.json()["status"] == "succeeded"
    assert answer.headers["preference-applied"] == "wait=20"
    assert "retry-after" not in answer.headers
    assert answer.status_code == (200 if path == "/v1/predict" else 202)


def test_a_wait_that_runs_out_answers_with_the_job_as_it_is(api: httpx.Client) -> None:
    """Predict answers 202 as a submission does, and a read answers 200, when the time is over."""
    answer = api.post("/v1/predict", json=QUESTION, headers={"prefer": "wait=1"})
    assert (answer.status_code, answer.json()["status"]) == (202, "queued")
    held = api.get(answer.headers["location"], headers={"prefer": "wait=1"})
    assert (held.status_code, held.headers["preference-applied"]) == (200, "wait=1")


def test_a_failed_prediction_is_its_problem(api: httpx.Client, worker: PlayedWorker, store: SyncStore) -> None:
    """Predict answers a failed job with its problem, the mapped status and the job's id."""
    with ThreadPoolExecutor(1) as threads:
        future = threads.submit(api.post, "/v1/predict", json=QUESTION)
        assert wait_until(lambda: store.redis.zcard(names.JOBS) == 1, 10)
        job_id = store.redis.zrange(names.JOBS, 0, 0)[0].decode()
        worker.fail(job_id, "timeout")
        answer = future.result()
    assert (answer.status_code, answer.json()["code"], answer.json()["job_id"]) == (504, "timeout", job_id)
    assert answer.headers["content-type"] == "application/problem+json"


def test_cancel_and_retry(api: httpx.Client, worker: PlayedWorker) -> None:
    """A queued job is canceled at once and twice alike, a running one is asked to stop, an ended one refuses."""
    job = submit(api)
    for _ in range(2):
        answer = api.post(f"/v1/jobs/{job['id']}/cancel")
        assert (answer.status_code, answer.json()["status"]) == (200, "canceled")
    assert answer.json()["error"]["code"] == "canceled"
    again = api.post(f"/v1/jobs/{job['id']}/retry")
    assert (again.status_code, again.json()["status"], again.json()["id"]) == (202, "queued", job["id"])
    assert api.post(f"/v1/jobs/{job['id']}/retry").status_code == 409
    claim = worker.start(job["id"])
    answer = api.post(f"/v1/jobs/{job['id']}/cancel")
    assert (answer.status_code, answer.json()["status"]) == (202, "running")
    worker.end_failed(claim, "canceled", "canceled")
    assert api.post(f"/v1/jobs/{job['id']}/cancel").status_code == 200
    api.post(f"/v1/jobs/{job['id']}/retry")
    worker.succeed(job["id"])
    assert api.post(f"/v1/jobs/{job['id']}/cancel").json()["code"] == "conflict"


def test_an_erased_job_is_gone(api: httpx.Client, worker: PlayedWorker) -> None:
    """DELETE refuses what is queued or running, erases what has ended, and leaves 410 behind."""
    job = submit(api)
    assert api.delete(f"/v1/jobs/{job['id']}").status_code == 409
    worker.succeed(job["id"])
    assert api.delete(f"/v1/jobs/{job['id']}").status_code == 204
    for answer in (api.get(f"/v1/jobs/{job['id']}"), api.post(f"/v1/jobs/{job['id']}/retry")):
        assert (answer.status_code, answer.json()["code"]) == (410, "gone")
    assert api.get("/v1/jobs").json()["data"] == []


def test_a_listing_pages_through_the_newest_first(api: httpx.Client, worker: PlayedWorker) -> None:
    """Pages join to all matching jobs, newest first, without repeats."""
    jobs = [submit(api) for _ in range(7)]
    worker.succeed(jobs[3]["id"])
    pages, after = [], {}
    while True:
        page = api.get("/v1/jobs", params={"limit": 2, "status": "queued", **after}).json()
        pages.append([job["id"] for job in page["data"]])
        if not page["has_more"]:
            break
        after = {"after": page["next"]}
    assert [job_id for page in pages for job_id in page] == [job["id"] for job in reversed(jobs) if job is not jobs[3]]
    assert [len(page) for page in pages] == [2, 2, 2]


def test_too_many_queued_jobs_are_refused(start_api: Any) -> None:
    """Beyond the limit a submission gets 429 queue_full with Retry-After, a batch likewise."""
    api = start_api(DSPY_JOBS_LIMITS_QUEUED_JOBS="2")
    submit(api)
    batch = {"program": "qa", "items": [{"inputs": {"question": "a"}}, {"inputs": {"question": "b"}}]}
    assert api.post("/v1/batches", json=batch).json()["code"] == "queue_full"
    submit(api)
    answer = api.post("/v1/jobs", json=QUESTION)
    assert (answer.status_code, answer.json()["code"], answer.json()["retryable"]) == (429, "queue_full", True)
    assert int(answer.headers["retry-after"]) > 0


def test_a_wait_longer_than_any_is_the_longest(api: httpx.Client, worker: PlayedWorker) -> None:
    """However many digits it has; and several If-None-Match lines count as one list."""
    job = api.post("/v1/jobs", json=QUESTION).json()
    worker.succeed(job["id"])
    path = f"/v1/jobs/{job['id']}"
    answer = api.get(path, headers={"prefer": "wait=99999999999999999999"})
    assert answer.headers["preference-applied"] == "wait=60"
    several = [("if-none-match", '"x"'), ("if-none-match", answer.headers["etag"])]
    assert api.get(path, headers=several).status_code == 304
