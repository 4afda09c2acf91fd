"""Flower as a person sees it, in a real browser, against the API of the same stack."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from browser import BOUND, Browser, browser
from stack_process import StackProcess, environ_for, running_stack

from dspy_jobs.waiting import wait_until

pytestmark = [pytest.mark.system, pytest.mark.slow]

#: Stands in every input.
SECRET = "platypus"
USER = "ada"
PASSWORD = "lovelace"


@pytest.fixture(scope="module")
def window() -> Iterator[Browser]:
    """A browser for all tests here."""
    with browser() as window:
        yield window


@pytest.fixture(scope="module")
def stack(window: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StackProcess]:
    """A stack whose Flower wants credentials, with one worker of two threads."""
    environ = environ_for(
        tmp_path_factory.mktemp("data"), DSPY_JOBS_WORKER_CONCURRENCY="2", FLOWER_BASIC_AUTH=f"{USER}:{PASSWORD}"
    )
    with running_stack(environ) as stack:
        stack.wait_for("ready")
        assert wait_until(lambda: bool(_ask(stack, "/workers?json=1")["data"]), BOUND), "Flower hears the worker"
        yield stack


def _ask(stack: StackProcess, path: str) -> dict[str, Any]:
    """Flower's own data."""
    url = f"{stack.wait_for('ready')['flower']}{path}"
    return dict(httpx.get(url, auth=(USER, PASSWORD), trust_env=False, timeout=BOUND).json())


@pytest.fixture(scope="module")
def jobs(stack: StackProcess) -> dict[str, dict[str, Any]]:
    """What the API says of a single job, of one that failed and of one that came in a chunk. All have ended."""
    with stack.client() as api:
        single = _submit(api, "/v1/jobs", inputs={"question": f"What is a {SECRET}?"})
        failed = _submit(
            api, "/v1/jobs", inputs={"question": f"Where is a {SECRET}?"}, model="sandbox-down", max_attempts=1
        )
        items = [{"inputs": {"question": f"What does {SECRET} {number} eat?"}} for number in range(24)]
        batch = _submit(api, "/v1/batches", items=items)
        assert wait_until(lambda: api.get(f"/v1/batches/{batch}").json()["status"] == "ended", BOUND)
        of_batch = api.get("/v1/jobs", params={"batch": batch, "limit": 24}).json()["data"]
        assert wait_until(lambda: api.get(f"/v1/jobs/{failed}").json()["status"] == "failed", BOUND)
        first = min(of_batch, key=lambda job: str(job["id"]))
        read = {"single": _read(api, single), "failed": _read(api, failed), "in a chunk": _read(api, first["id"])}
    ended = {"succeeded": "SUCCESS", "failed": "FAILURE"}
    wanted = {job["id"]: ended[job["status"]] for job in read.values()}
    assert wait_until(lambda: wanted.items() <= _states(stack).items(), BOUND), (wanted, _states(stack))
    return read


def _states(stack: StackProcess) -> dict[str, str]:
    return {job_id: task["state"] for job_id, task in _ask(stack, "/api/tasks?limit=100").items()}


def _submit(api: httpx.Client, path: str, **body: Any) -> str:
    answer = api.post(path, json={"program": "qa", **body})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def _read(api: httpx.Client, job_id: str) -> dict[str, Any]:
    return dict(api.get(f"/v1/jobs/{job_id}").json())


@pytest.fixture
def flower(stack: StackProcess, window: Browser) -> str:
    """Flower's address, once the browser has told it the credentials."""
    address = str(stack.wait_for("ready")["flower"])
    window.open(address.replace("//", f"//{USER}:{PASSWORD}@"))
    return address


def test_nobody_is_let_in_without_credentials(stack: StackProcess, window: Browser) -> None:
    """A browser that knows none is shown nothing."""
    window.open(str(stack.wait_for("ready")["flower"]))
    assert "Online workers" not in window.source
    assert "worker-" not in window.source
    assert any("401" in complaint for complaint in window.complaints())


def test_the_dashboard_lists_the_workers(stack: StackProcess, window: Browser, flower: str) -> None:
    """The worker that the stack runs is there and online, and its page tells of its threads."""
    worker = f"worker-{stack.wait_for('worker_ready')['worker']}"
    assert window.shows("Online workers", worker, "Online")
    window.open(f"{flower}/broker")
    assert window.shows("dspy.sandbox")
    (name,) = window.links("/worker/", at=f"{flower}/workers")
    window.open(name)
    assert window.shows(worker, "Worker.consumption:ThreadPool")
    assert SECRET not in window.source
    assert window.complaints() == []


@pytest.mark.parametrize(
    ("which", "state", "words"),
    [
        ("single", "SUCCESS", ["single job", "'cache': 'miss'"]),
        ("failed", "FAILURE", ["server: The provider failed"]),
        ("in a chunk", "SUCCESS", ["one of a chunk of", "'cache': 'miss'"]),
    ],
)
def test_the_page_of_a_job(
    window: Browser, flower: str, jobs: dict[str, dict[str, Any]], which: str, state: str, words: list[str]
) -> None:
    """Under the id that the API gave: the same program, model, batch and attempt, the same end, and no input."""
    job = jobs[which]
    window.open(f"{flower}/task/{job['id']}")
    said = {"program": job["program"], "model": job["model"], "attempt": job["attempt"], "batch": job["batch_id"]}
    assert window.shows(job["id"], job["program"], state, *words)
    assert all(f"'{name}': {value!r}" in window.text for name, value in said.items() if value)
    assert (job["status"] == "succeeded") == (state == "SUCCESS")
    assert SECRET not in window.source
    assert state == "FAILURE" or job["output"]["answer"] not in window.source
    assert window.complaints() == []


def test_a_job_is_found_by_its_id(window: Browser, flower: str, jobs: dict[str, dict[str, Any]]) -> None:
    """The list's search finds a job that came in a chunk, and the chunk it came in; no row shows an input."""
    job = jobs["in a chunk"]
    window.open(f"{flower}/tasks")
    window.type_into("#tasks-table_filter input", job["id"])
    assert window.shows("filtered from", "SUCCESS", "CHUNK", "one of a chunk of", "Showing 1 to 2 of 2 tasks")
    assert jobs["single"]["id"] not in window.text
    assert SECRET not in window.source
    # A dashboard's link to a batch: all of its jobs and the chunks they came in, not the other jobs.
    window.open(f"{flower}/tasks?search={job['batch_id']}")
    assert window.shows("filtered from", "CHUNK", job["program"])
    assert jobs["single"]["id"] not in window.text
    assert window.complaints() == []
    window.open(f"{flower}/tasks?search={job['id']}")
    assert window.shows("filtered from", "Showing 1 to 2 of 2 tasks")
    (chunk,) = window.links("/task/chunk-")
    window.open(chunk)
    assert window.shows("chunk of", "Children", job["id"])
