"""The HTTP process as a whole: its start, its size, thousands who wait, and Redis going away and coming back."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from dspy_jobs import names
from dspy_jobs.redis_server import embedded_redis
from dspy_jobs.redis_url import embedded_socket
from dspy_jobs.store import SyncStore, connect
from dspy_jobs.waiting import wait_until
from tests.conftest import ROOT
from tests.integration.conftest import running_api
from tests.integration.played_worker import PlayedWorker

QUESTION = {"program": "qa", "inputs": {"question": "why?"}}
WAITING = 2000


def megabytes(process: int) -> float:
    """Resident memory of a process, in MiB."""
    return int(re.findall(r"VmRSS:\s+(\d+)", Path(f"/proc/{process}/status").read_text())[0]) / 1024


def test_a_port_in_use_is_named_with_the_remedy(child_environ: dict[str, str]) -> None:
    """One line on stderr with the port and the setting, and exit code 2."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        environ = {**child_environ, "DSPY_JOBS_API_PORT": str(port)}
        done = subprocess.run([sys.executable, "-m", "api"], capture_output=True, text=True, cwd=ROOT, env=environ)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert str(port) in done.stderr
    assert "DSPY_JOBS_API_PORT" in done.stderr


def test_the_process_stays_small(api: httpx.Client) -> None:
    """Below 90 MiB after an upload of 10,000 items."""
    item = orjson.dumps({"inputs": {"question": "x" * 50}})
    body = b"\n".join([item] * 10_000)
    answer = api.post("/v1/batches?program=qa", content=body, headers={"content-type": "application/x-ndjson"})
    assert answer.status_code == 202
    assert megabytes(int(api.headers["x-test-pid"])) < 90


def test_thousands_wait_on_one_process(api: httpx.Client, worker: PlayedWorker, store: SyncStore) -> None:
    """Two thousand clients hold the line; each is woken by the end of its own job."""
    worker.appear()  # for a minute: on a busy machine it takes longer than the ten seconds it would get by taking a job
    asyncio.run(everybody_waits(api, worker, store))


async def everybody_waits(api: httpx.Client, worker: PlayedWorker, store: SyncStore) -> None:
    """Submit with a wait from many connections, end every job, read every answer."""
    submission = orjson.dumps(QUESTION)
    request = (
        b"POST /v1/jobs HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nprefer: wait=60\r\n"
        b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(submission) + submission
    )
    address = (api.base_url.host, api.base_url.port)
    answers = [asyncio.create_task(exchange(address, request)) for _ in range(WAITING)]
    loop = asyncio.get_running_loop()
    assert await loop.run_in_executor(None, wait_until, lambda: store.redis.zcard(names.JOBS) == WAITING, 60)
    assert not any(answer.done() for answer in answers)
    ids = [job_id.decode() for job_id in store.redis.zrange(names.JOBS, 0, -1)]
    await loop.run_in_executor(None, worker.succeed_all, ids)
    heads = [(await answer).split(b"\r\n\r\n") for answer in answers]
    assert {orjson.loads(body)["status"] for _, body in heads} == {"succeeded"}
    assert sorted(orjson.loads(body)["id"] for _, body in heads) == ids


async def exchange(address: tuple[str, int | None], request: bytes) -> bytes:
    """One request on a connection of its own."""
    reader, writer = await asyncio.open_connection(*address)
    writer.write(request)
    try:
        return await reader.read()
    finally:
        writer.close()


def test_a_stopping_process_answers_who_waits(redis_url: str, programs: None) -> None:
    """Asked to stop, the process lets a waiting request answer with the job as it is, and exits 0."""
    with running_api(redis_url) as api:
        job = api.post("/v1/jobs", json=QUESTION).json()
        pid = int(api.headers["x-test-pid"])
        request = f"GET /v1/jobs/{job['id']} HTTP/1.1\r\nhost: x\r\nprefer: wait=60\r\n\r\n"
        with socket.create_connection((api.base_url.host, api.base_url.port or 80), timeout=20) as line:
            line.sendall(request.encode())
            line.settimeout(0.3)
            with pytest.raises(TimeoutError):
                line.recv(1)
            line.settimeout(20)
            os.kill(pid, signal.SIGTERM)
            assert line.recv(65536).startswith(b"HTTP/1.1 200 OK")


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder short enough for a socket's path."""
    with tempfile.TemporaryDirectory(prefix="dj-") as folder:
        yield Path(folder)


def test_the_process_outlives_redis(home: Path) -> None:
    """Without Redis answers are 503 with Retry-After; when it is back the process goes on, waiting requests too."""
    url = f"unix://{embedded_socket(home)}?db=0"
    with running_api(url) as api:
        gone = api.post("/v1/jobs", json=QUESTION)
        assert (gone.status_code, gone.json()["code"], gone.json()["retryable"]) == (503, "unavailable", True)
        assert int(gone.headers["retry-after"]) > 0
        assert api.get("/ready").status_code == 503
        assert api.get("/health/live").status_code == 200
        with embedded_redis(home), connect(url) as client:
            describe(client)
            assert wait_until(lambda: api.get("/ready").status_code == 200, 20)
            job = api.post("/v1/jobs", json=QUESTION).json()
        assert api.get(f"/v1/jobs/{job['id']}").status_code == 503
        with embedded_redis(home), connect(url) as client:
            assert wait_until(lambda: api.get("/ready").status_code == 200, 20)
            PlayedWorker(SyncStore(client)).succeed(job["id"])
            held = api.get(f"/v1/jobs/{job['id']}", headers={"prefer": "wait=5"})
            assert held.json()["status"] == "succeeded"


def test_a_full_redis_is_unavailable(home: Path) -> None:
    """What Redis has no memory for is refused with 503, and taken again when there is room."""
    url = f"unix://{embedded_socket(home)}?db=0"
    with embedded_redis(home), connect(url) as client, running_api(url) as api:
        describe(client)
        assert api.post("/v1/jobs", json=QUESTION).status_code == 202
        client.config_set("maxmemory", "1mb")
        answer = api.post("/v1/jobs", json=QUESTION)
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
        assert "maxmemory" in answer.json()["detail"]
        client.config_set("maxmemory", "0")
        assert api.post("/v1/jobs", json=QUESTION).status_code == 202


def describe(client: Any) -> None:
    """Publish the program `qa`."""
    schema = {"type": "object", "properties": {"question": {"type": "string"}}, "required": ["question"]}
    description = {"name": "qa", "version": "v1", "model": "sandbox", "input_schema": schema, "output_schema": {}}
    client.hset(names.PROGRAMS, "qa", orjson.dumps(description))
