"""Whose a job is: the name a trusted proxy gives, from the request to the job's record and back."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from dspy_jobs import names
from dspy_jobs.store import SyncStore
from tests.integration.played_worker import PlayedWorker

JOB = {"program": "qa", "inputs": {"question": "why?"}}
BATCH = {"program": "qa", "items": [{"inputs": {"question": "why?"}}]}


@pytest.fixture
def api(start_api: Any) -> httpx.Client:
    """An API behind a proxy that names clients."""
    client: httpx.Client = start_api(DSPY_JOBS_API_CLIENT_HEADER="X-Client")
    return client


@pytest.mark.parametrize(
    ("header", "shown"), [({"x-client": "acme"}, "acme"), ({}, None), ({"x-client": "default"}, None)]
)
def test_a_job_and_a_batch_are_their_clients(
    api: httpx.Client, store: SyncStore, worker: PlayedWorker, header: dict[str, str], shown: str | None
) -> None:
    """The record of each job has the name, for budgets and books; who has none is nobody in particular."""
    job = api.post("/v1/jobs", json=JOB, headers=header).json()
    batch = api.post("/v1/batches", json=BATCH, headers=header).json()
    (item,) = worker.jobs_of(batch["id"])
    read = [api.get(f"/v1/jobs/{job_id}").json() for job_id in (job["id"], item)]
    assert [view["client"] for view in (job, *read, batch)] == [shown] * 4
    expected = shown.encode() if shown else None
    assert [store.redis.hget(names.job(job_id), "client") for job_id in (job["id"], item)] == [expected] * 2


@pytest.mark.parametrize("name", ["a b", "-a", "a|b", "*", "x" * 65, "ä"])
def test_what_cannot_be_a_name_is_refused(api: httpx.Client, store: SyncStore, name: str) -> None:
    """400 that names the header; a name is part of the names of books and budgets."""
    for path, body in (("/v1/jobs", JOB), ("/v1/batches", BATCH), ("/v1/predict", JOB)):
        answer = api.post(path, json=body, headers=[(b"x-client", name.encode())])
        assert (answer.status_code, answer.json()["errors"][0]["param"]) == (400, "X-Client")
    assert api.get("/v1/jobs").json()["data"] == []


def test_two_clients_may_use_one_idempotency_key(api: httpx.Client) -> None:
    """Neither is answered with the other's job, or hears that there is one."""
    answers = [
        api.post("/v1/jobs", json={**JOB, "custom_id": name}, headers={"idempotency-key": "1", "x-client": name})
        for name in ("a", "b", "a")
    ]
    assert [answer.status_code for answer in answers] == [202] * 3
    first, other, again = (answer.json()["id"] for answer in answers)
    assert (again, first == other) == (first, False)


def test_nobody_names_a_client_unless_it_is_configured(start_api: Any) -> None:
    """Without a trusted proxy a header is only what a stranger says."""
    job = start_api().post("/v1/jobs", json=JOB, headers={"x-client": "a b"}).json()
    assert job["client"] is None
