"""`python -m worker.flower` as a process, and how it keeps in step with the ledger."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from celery.events.state import State

from dspy_jobs import names
from dspy_jobs.ids import new_job_id
from dspy_jobs.settings import Settings
from dspy_jobs.stack.ports import free_port
from dspy_jobs.store import SyncStore, connect, operations
from dspy_jobs.store.records import Claim
from dspy_jobs.waiting import wait_until
from tests.conftest import ROOT
from tests.integration.played_worker import MODEL, PlayedWorker
from tests.integration.store_scene import LIFETIMES
from worker.event_feed import EventFeed
from worker.flower_truth import Truth
from worker.job_events import JobEvents

AUTH = ("ada", "love:lace")


def _submit(store: SyncStore, **fields: Any) -> str:
    job_id = new_job_id()
    route = {"program": "qa", "model": MODEL, "max_attempts": 3} | fields
    store.run(operations.submit_job(job_id, b'{"inputs": {}}', names.queue(MODEL), 3, route, LIFETIMES, 100))
    return job_id


@contextmanager
def running_flower(environ: dict[str, str], port: int) -> Iterator[httpx.Client]:
    """Flower, ended with the block, and somebody who may use it."""
    process = subprocess.Popen([sys.executable, "-m", "worker.flower"], cwd=ROOT, env=environ)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}/ops/flower", auth=AUTH, trust_env=False, timeout=30) as client:
        try:
            assert wait_until(lambda: process.poll() is not None or _answers(client), 30)
            yield client
        finally:
            process.terminate()
            assert process.wait(30) == 0


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/healthcheck").is_success
    except httpx.TransportError:
        return False


@pytest.fixture
def environ(write_config: Callable[..., Settings], child_environ: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """For a Flower that others can reach, behind a proxy."""
    flower = f'[flower]\nhost = "0.0.0.0"\nport = {free_port()}\nurl_prefix = "/ops/flower"\nmax_tasks = 2\n'
    source = write_config(flower + '[programs.qa]\nsignature = "question -> answer"').source
    return {**child_environ, "DSPY_JOBS_CONFIG": str(source), "DSPY_JOBS_DATA_DIR": str(tmp_path / "data")}


def test_it_does_not_start_without_credentials(environ: dict[str, str]) -> None:
    """Where others can reach it: one line that says what to set, and exit code 2."""
    done = subprocess.run(
        [sys.executable, "-m", "worker.flower"], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("flower.host is 0.0.0.0, so others can reach Flower: set FLOWER_BASIC_AUTH=name:password")


def test_it_remembers_jobs_over_a_restart(environ: dict[str, str], store: SyncStore, redis_url: str) -> None:
    """Only who has the credentials sees anything; after a restart its last jobs are there, as the ledger has them."""
    (port,) = (int(p) for p in re.findall(r"port = (\d+)", Path(environ["DSPY_JOBS_CONFIG"]).read_text()))
    environ = {**environ, "FLOWER_BASIC_AUTH": ":".join(AUTH)}
    ids = [_submit(store) for _ in range(3)]
    with running_flower(environ, port) as flower:
        for path in ("/", "/tasks", "/metrics", "/api/tasks", f"/task/{ids[0]}"):
            assert flower.get(path, auth=("ada", "lovelace")).status_code == 401, path
            assert flower.get(path, auth=None).status_code == 401, path
        assert flower.get(f"http://127.0.0.1:{port}/ops/flower").headers["location"] == "/ops/flower/"
        assert wait_until(lambda: _tell(redis_url, *ids) and len(_states(flower)) == 2, 20)
        assert _states(flower) == dict.fromkeys(ids[1:], "STARTED"), "the oldest is forgotten"
        assert b"flower_events_total" in flower.get("/metrics").content
    PlayedWorker(store).succeed(ids[1])
    with running_flower(environ, port) as flower:
        assert _states(flower).keys() == set(ids[1:])
        assert wait_until(lambda: _states(flower)[ids[1]] == "SUCCESS", 20)
        page = flower.get(f"/task/{ids[1]}").text
    assert "worker@here" in page
    assert not (Path(environ["DSPY_JOBS_DATA_DIR"]) / "flower").stat().st_mode & 0o077


def _tell(redis_url: str, *ids: str) -> bool:
    """As a worker tells that it has started these jobs; whether somebody heard it."""
    consumer: Any = SimpleNamespace(hostname="worker@here", event_dispatcher=SimpleNamespace(groups=set()))
    events = JobEvents()
    with connect(redis_url) as client:
        feed = EventFeed(events, client)
        feed.start = lambda: None  # type: ignore[method-assign]
        feed.follow(consumer)
        for job_id in ids:
            events.started(Claim(job_id, 1, 0, 0, "", "qa", MODEL, {}, 3, 0, 0, (), False))
        feed.round()
    return bool(consumer.event_dispatcher.groups)


def _states(flower: httpx.Client) -> dict[str, str]:
    return {job_id: task["state"] for job_id, task in flower.get("/api/tasks").json().items()}


class Listener:
    """What Flower knows of jobs, and the ledger beside it."""

    def __init__(self, store: SyncStore) -> None:
        self.state = State()
        self._truth = Truth(store.redis, self.state)

    def hear(self, kind: str, job_id: str) -> None:
        """A worker's event."""
        now = time.time()
        event = {"type": kind, "uuid": job_id, "hostname": "worker@here", "timestamp": now, "clock": 0}
        self.state.event({**event, "local_received": now})

    def look(self) -> None:
        """Compare with the ledger."""
        asyncio.run(self._truth.look())

    def shows(self, job_id: str) -> tuple[str, str | None]:
        """State and exception of a job."""
        task = self.state.tasks[job_id]
        return task.state, task.exception


@pytest.fixture
def listener(store: SyncStore) -> Listener:
    """A Flower that has heard of nothing yet."""
    return Listener(store)


def test_what_no_worker_told_of_is_looked_up(listener: Listener, store: SyncStore, worker: PlayedWorker) -> None:
    """A job that ended or waits again unheard is shown so with the second look, for its worker may be about to say."""
    succeeded, failed, canceled, lost, runs = ids = [_submit(store) for _ in range(5)]
    for job_id in ids:
        listener.hear("task-started", job_id)
    worker.succeed(succeeded)
    worker.fail(failed, "timeout")
    store.run(operations.cancel_job(canceled))
    worker.start(runs)
    listener.look()
    assert {listener.shows(job_id)[0] for job_id in ids} == {"STARTED"}
    listener.look()
    assert listener.shows(succeeded) == ("SUCCESS", None)
    assert listener.shows(failed) == ("FAILURE", "timeout: The provider or the program took too long")
    assert listener.shows(canceled) == ("REVOKED", "canceled: It was canceled")
    assert listener.shows(lost)[0] == "RETRY"
    assert listener.shows(runs) == ("STARTED", None)
    assert listener.state.event_count == 5 + 4
    listener.look()
    listener.look()
    assert listener.state.event_count == 5 + 4, "nothing is told twice"


def test_what_a_worker_tells_in_time_is_not_told_again(
    listener: Listener, store: SyncStore, worker: PlayedWorker
) -> None:
    """A worker's own event comes up to half a second after the ledger knows; it counts once."""
    job_id = _submit(store)
    listener.hear("task-started", job_id)
    worker.succeed(job_id)
    listener.look()
    listener.hear("task-succeeded", job_id)
    listener.look()
    assert listener.state.event_count == 2


def test_a_worker_that_is_gone_runs_nothing(listener: Listener) -> None:
    """What it ran when it was heard last is not shown as active for ever."""
    listener.state.event(
        {"type": "worker-online", "hostname": "gone", "timestamp": 1, "local_received": 1, "active": 9}
    )
    listener.look()
    assert listener.state.workers["gone"].active == 0
