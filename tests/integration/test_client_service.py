"""The client and the command line against the real service."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dspy_jobs import ApiError, AsyncClient, Client, ServiceUnreachable, WaitTimeout, names
from dspy_jobs.cli import app
from dspy_jobs.descriptions import ProgramDescription
from dspy_jobs.models import Batch, Job
from dspy_jobs.settings import Settings
from dspy_jobs.store import SyncStore
from dspy_jobs.waiting import wait_until

TEXT = {"type": "string"}


def schema(name: str) -> dict[str, object]:
    """The schema of one text."""
    return {"type": "object", "properties": {name: TEXT}, "required": [name], "additionalProperties": False}


@contextmanager
def process(module: str, environ: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """One process of the service."""
    command = [sys.executable, "-m", module]
    child = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True)
    try:
        yield child
    finally:
        child.terminate()
        try:
            child.communicate(timeout=30)
        finally:
            child.kill()
            child.communicate()


@pytest.fixture
def environ(write_config: Callable[..., Settings], child_environ: dict[str, str]) -> dict[str, str]:
    """The environment of the service's processes."""
    settings = write_config('[programs.qa]\nsignature = "question -> answer"')
    return {**child_environ, "DSPY_JOBS_CONFIG": str(settings.source), "DSPY_JOBS_API_PORT": "0"}


@pytest.fixture
def url(environ: dict[str, str], store: SyncStore) -> Iterator[str]:
    """The address of an API that knows the program `qa`; nothing runs its jobs."""
    qa = ProgramDescription(
        name="qa", version="1", model="sandbox", input_schema=schema("question"), output_schema=schema("answer")
    )
    store.redis.hset(names.PROGRAMS, "qa", qa.model_dump_json())
    with process("api", environ) as api:
        assert api.stdout is not None
        yield api.stdout.readline().split()[-1]


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    """A client of that API."""
    with Client(url) as client:
        assert wait_until(client.ready, 30)
        yield client


@pytest.fixture
def worker(environ: dict[str, str], client: Client) -> Iterator[None]:
    """A worker beside it."""
    with process("worker", environ):
        assert wait_until(lambda: any(queue.workers for queue in client.queues()), 60)
        yield


def run(url: str, *args: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command line."""
    result = CliRunner().invoke(app, ["--url", url, *args], catch_exceptions=False)
    return result.exit_code, result.stdout, result.stderr


def test_a_job_is_followed_and_canceled(client: Client) -> None:
    """Without a worker a job stays queued, a wait runs out, and cancel ends it; then it can be retried and deleted."""
    job = client.submit("qa", {"question": "Why?"}, custom_id="mine", metadata={"a": 1}, priority="high")
    assert (job.status, job.custom_id, job.metadata) == ("queued", "mine", {"a": 1})
    with pytest.raises(WaitTimeout) as timeout:
        client.wait(job.id, timeout=0.1)
    assert isinstance(timeout.value.last, Job)
    assert timeout.value.last.wait_reason == "no_workers"
    assert client.cancel(job.id).status == "canceled"
    assert client.wait(job.id).is_done
    assert client.retry(job.id).status == "queued"
    client.cancel(job.id)
    client.delete(job.id)
    with pytest.raises(ApiError, match="gone"):
        client.get(job.id)


def test_a_batch_is_steered(client: Client) -> None:
    """A batch can be paused, resumed, canceled, and its canceled jobs retried."""
    items = [{"inputs": {"question": f"{n}?"}, "custom_id": str(n)} for n in range(3)]
    batch = client.submit_batch("qa", items, use_cache=False, metadata={"a": "ü"}, timeout_seconds=5.0)
    assert (batch.counts.total, batch.counts.queued, batch.metadata) == (3, 3, {"a": "ü"})
    assert client.pause_batch(batch.id).status == "paused"
    assert client.resume_batch(batch.id).status == "in_progress"
    assert list(client.results(batch.id)) == []
    client.cancel_batch(batch.id)
    assert client.wait_batch(batch.id, timeout=30).ended_reason == "canceled"
    assert {job.custom_id for job in client.results(batch.id, status="canceled")} == {"0", "1", "2"}
    assert [job.custom_id for job in client.results(batch.id, order="input")] == ["0", "1", "2"]
    assert client.retry_batch(batch.id, custom_ids=["1"]) == 1
    client.cancel_batch(batch.id)


def test_results_come_page_by_page(client: Client) -> None:
    """Reading on from a page's cursor yields every result once."""
    batch = client.submit_batch("qa", ({"inputs": {"question": f"{n}?"}} for n in range(25)))
    client.cancel_batch(batch.id)
    client.wait_batch(batch.id, timeout=30)
    ids, after = [], None
    while (page := client.result_page(batch.id, after=after, limit=10)).jobs:
        ids += [job.id for job in page.jobs]
        after = page.next
    assert len(set(ids)) == len(ids) == 25
    assert not page.incomplete


def test_the_service_describes_itself(client: Client) -> None:
    """Programs, queues and limits read as the contract says."""
    assert [program.name for program in client.programs()] == ["qa"]
    assert client.program("qa").input_schema == schema("question")
    [queue] = client.queues()
    assert (queue.model, queue.queued, queue.running, queue.workers) == ("sandbox", 0, 0, 0)
    assert client.limits()["items_per_batch"] == 50_000


def test_refusals_name_what_is_wrong(client: Client) -> None:
    """Problems arrive whole: code, status, and every bad item by line."""
    with pytest.raises(ApiError, match="unknown_program"):
        client.submit("none", {})
    with pytest.raises(ApiError) as refused:
        client.submit_batch("qa", [{"inputs": {"question": "?"}}, {"inputs": {"qestion": "?"}}])
    assert refused.value.status == 422
    assert refused.value.problem.errors is not None
    assert {mistake["line"] for mistake in refused.value.problem.errors} == {2}
    with pytest.raises(ApiError) as missing:
        client.batch("batch_none")
    assert missing.value.status == 404


@pytest.mark.usefixtures("worker")
def test_jobs_run_to_their_end(client: Client, url: str, tmp_path: Path) -> None:
    """predict, a followed batch and the command line all yield typed outputs with usage and cost."""
    job = client.predict("qa", {"question": "What is 2+2?"}, timeout=60)
    assert job.result().keys() == {"answer"}
    assert job.usage is not None
    assert job.cost_usd is not None
    seen: list[Batch] = []
    items = [{"inputs": {"question": f"What is {n}+2?"}, "custom_id": str(n)} for n in range(40)]
    batch = client.wait_batch(client.submit_batch("qa", items).id, seen.append, timeout=60)
    assert (batch.counts.succeeded, batch.ended_reason) == (40, "completed")
    assert seen[-1] == batch
    assert [job.custom_id for job in client.results(batch.id, order="input")] == [str(n) for n in range(40)]

    async def waited() -> list[str]:
        async with AsyncClient(url) as other:
            jobs = await asyncio.gather(*(other.submit("qa", {"question": f"{n}?"}) for n in range(5)))
            ended = await asyncio.gather(*(other.wait(job.id, 60) for job in jobs))
            return [job.status for job in ended]

    assert asyncio.run(waited()) == ["succeeded"] * 5

    code, out, _ = run(url, "submit", "qa", "--input", "question=Why?", "--timeout", "60")
    assert (code, "→ answer" in out) == (0, True)
    file, results = tmp_path / "questions.csv", tmp_path / "answers.jsonl"
    file.write_text('\ufeffcustom_id,question\r\na,"=1+1, or ""2""?"\r\nb,Why?\r\n')
    code, out, err = run(url, "batch", "submit", str(file), "--program", "qa", "--timeout", "60", "-o", str(results))
    assert (code, "completed" in out) == (0, True), err
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    assert {line["custom_id"] for line in lines} == {"a", "b"}
    assert all(line["output"]["answer"] for line in lines)


def test_a_stopped_service_is_unreachable(environ: dict[str, str]) -> None:
    """When the API has gone, the client says where it looked and the command line exits 3."""
    with process("api", environ) as api:
        assert api.stdout is not None
        gone = api.stdout.readline().split()[-1]
        with Client(gone) as client:
            client.limits()
    with Client(gone) as client, pytest.raises(ServiceUnreachable, match=gone):
        client.programs()
    code, out, err = run(gone, "programs")
    assert (code, out, gone in err) == (3, "", True)
