"""What integration tests share: the HTTP process, programs, a worker played by hand, a Redis to mistreat."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from signal import SIGCONT

import httpx
import orjson
import pytest

from dspy_jobs import names
from dspy_jobs.descriptions import ProgramDescription
from dspy_jobs.store import SyncStore
from dspy_jobs.waiting import wait_until
from tests.conftest import ROOT
from tests.integration.played_worker import MODEL, PlayedWorker
from tests.system.own_redis import OwnRedis

StartApi = Callable[..., httpx.Client]


@contextmanager
def running_api(redis_server: str, **environ: str) -> Iterator[httpx.Client]:
    """`python -m api` on a free port and a client for it; `process` of the client is the process."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("DSPY_JOBS_")}
    given = {"REDIS_URL": redis_server, "DSPY_JOBS_API_PORT": "0", "DSPY_JOBS_LOG_LEVEL": "error", **environ}
    process = subprocess.Popen(
        [sys.executable, "-m", "api"], stdout=subprocess.PIPE, text=True, cwd=ROOT, env={**inherited, **given}
    )
    assert process.stdout is not None
    url = process.stdout.readline().split()[-1]
    try:
        with httpx.Client(base_url=url, timeout=30, headers={"x-test-pid": str(process.pid)}) as client:
            assert wait_until(lambda: _lives(client), 20)
            yield client
    finally:
        process.terminate()
        process.wait(timeout=30)
        process.stdout.close()


def _lives(client: httpx.Client) -> bool:
    try:
        return client.get("/health/live").status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def api_process(redis_server: str) -> Iterator[httpx.Client]:
    """One API process for a module; it must not keep house in other modules' Redis."""
    with running_api(redis_server) as client:
        yield client


@pytest.fixture
def api(api_process: httpx.Client, programs: None) -> httpx.Client:
    """A client of an API process over an empty Redis in which the program `qa` is described."""
    return api_process


@pytest.fixture
def start_api(redis_url: str, programs: None) -> Iterator[StartApi]:
    """Starts API processes with settings of their own."""
    with ExitStack() as stack:
        yield lambda **environ: stack.enter_context(running_api(redis_url, **environ))


@pytest.fixture
def programs(store: SyncStore) -> None:
    """The descriptions of `qa` and `predict`, as a worker publishes them."""
    for name, field in (("qa", "question"), ("predict", "input")):
        schema = {
            "type": "object",
            "properties": {field: {"type": "string"}},
            "required": [field],
            "additionalProperties": False,
        }
        description = ProgramDescription(
            name=name, version="v1", model=MODEL, input_schema=schema, output_schema={"type": "object"}
        )
        store.redis.hset(names.PROGRAMS, name, orjson.dumps(description.model_dump()))
    store.redis.publish(names.PROGRAMS_CHANNEL, "test")


@pytest.fixture
def worker(store: SyncStore) -> PlayedWorker:
    """A worker played by hand."""
    return PlayedWorker(store)


@pytest.fixture
def own_redis() -> Iterator[OwnRedis]:
    """A Redis for the test alone, to mistreat."""
    with tempfile.TemporaryDirectory(prefix="dj-") as folder:
        server = OwnRedis(Path(folder))
        yield server
        with suppress(ProcessLookupError):
            server.signal(SIGCONT)
        server.end()
