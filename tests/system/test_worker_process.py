"""A real `python -m worker` process: Celery, threads, signals, and Celery's own result backend."""

from __future__ import annotations

import time

import orjson
import pytest
from celery import Celery
from celery.result import AsyncResult

from dspy_jobs import chores, names
from dspy_jobs.errors import JobFailed
from dspy_jobs.messages import MESSAGE_TEMPLATE
from dspy_jobs.redis_url import celery_url
from dspy_jobs.store.demand import read_outstanding
from dspy_jobs.waiting import wait_until
from tests.system.fleet import Fleet

pytestmark = pytest.mark.system


@pytest.fixture
def celery_app(redis_url: str) -> Celery:
    """Any Celery app of a user's, with nothing of ours but the address."""
    return Celery("users", broker=celery_url(redis_url), backend=celery_url(redis_url), set_as_current=False)


def test_async_result_agrees_with_the_record(fleet: Fleet, celery_app: Celery) -> None:
    """`AsyncResult(job_id).get()` gives the output the job's record has, or raises the problem it failed with."""
    early = fleet.submit("qa", question="early?")
    failing = fleet.submit("crash", text="t")
    fleet.start()
    output = AsyncResult(early, app=celery_app).get(timeout=30)
    job = fleet.wait(early, "succeeded")
    assert job.outcome is not None
    assert output == job.outcome["result"]
    assert AsyncResult(early, app=celery_app).get(timeout=5) == output
    with pytest.raises(JobFailed, match="program_error"):
        AsyncResult(failing, app=celery_app).get(timeout=30)


def test_sigterm_finishes_what_runs_and_hands_back_the_rest(fleet: Fleet) -> None:
    """A stopping worker ends its running jobs, gives its remainder back at once and exits 0."""
    first = fleet.start()
    batch = fleet.submit_batch("sleepy", [{"text": "0.5"}] * 40)
    assert wait_until(lambda: fleet.count(batch, "running") == 8, 20)
    first.terminate()
    assert first.wait(20) == 0
    assert fleet.count(batch, "running") == 0
    assert fleet.count(batch, "succeeded") >= 8
    assert fleet.workers() == 0
    fleet.start()
    fleet.wait_for_batch(batch)
    assert {job.fields["attempt"] for job in fleet.jobs_of(batch)} == {"1"}


@pytest.mark.slow
def test_a_narrow_model_is_kept_busy(fleet: Fleet) -> None:
    """Two workers share a model of which two jobs may run at once: there are never more, and the room is used."""
    fleet.start()
    fleet.start()
    jobs, latency, at_once = 100, 0.1, 2
    batch = fleet.submit_batch("qa", [{"question": f"What is {n}?"} for n in range(jobs)], model="narrow")
    began, seen = time.monotonic(), set()
    while fleet.batch(batch)["status"] != "ended":
        seen.add(fleet.count(batch, "running"))
        assert time.monotonic() < began + 60
    assert max(seen) == at_once
    assert time.monotonic() - began < 2 * jobs * latency / at_once


@pytest.mark.slow
def test_a_rolling_restart_starts_no_job_again(fleet: Fleet) -> None:
    """All workers are replaced, one after the other, while a batch runs: no job starts twice, each worker exits 0."""
    first, second = fleet.start(), fleet.start()
    batch = fleet.submit_batch("sleepy", [{"text": "0.3"}] * 2000)  # more than can run meanwhile
    for worker in (first, second):
        done = fleet.count(batch, "succeeded")
        assert wait_until(lambda done=done: fleet.count(batch, "succeeded") > done + 8, 30)  # type: ignore[misc]
        fleet.start()
        worker.terminate()
        assert worker.wait(20) == 0
    fleet.store.follow(chores.cancel(batch))
    fields = fleet.wait_for_batch(batch)
    assert int(fields["succeeded"]) + int(fields["canceled"]) == 2000
    assert {job.fields.get("attempt", "0") for job in fleet.jobs_of(batch)} == {"0", "1"}


def test_a_second_sigterm_gives_everything_back_at_once(fleet: Fleet) -> None:
    """Jobs that would run for minutes are queued again at once, charged with no failed attempt."""
    worker = fleet.start()
    job_id = fleet.submit("sleepy", text="600")
    fleet.wait(job_id, "running")
    worker.terminate()
    assert wait_until(lambda: "worker_draining" in fleet.log(), 20)
    worker.terminate()
    assert worker.wait(20) == 0
    job = fleet.read(job_id)
    assert (job.status, job.fields.get("tries")) == ("queued", None)


def test_a_killed_workers_jobs_run_elsewhere(fleet: Fleet) -> None:
    """After SIGKILL another worker queues again what the dead one ran and held, and every count stays exact."""
    first = fleet.start()
    fleet.start()
    batch = fleet.submit_batch("sleepy", [{"text": "0.4"}] * 80)
    assert wait_until(lambda: fleet.count(batch, "running") == 16, 20)
    first.kill()
    fields = fleet.wait_for_batch(batch)
    assert fields["succeeded"] == "80"
    assert fleet.store.redis.llen(names.batch_results(batch)) == 80


def test_a_worker_that_hears_nothing_more_ends_itself(fleet: Fleet) -> None:
    """A consumer that stalls, though its process lives and renews its lease, is told of and ended; a new one starts."""
    deaf = fleet.start("tests.system.deaf_worker")
    fleet.wait(fleet.submit("echo", text="heard"), "succeeded")
    unheard = fleet.submit("echo", text="unheard")
    told: list[float] = []

    def ended() -> bool:
        workers = fleet.store.run(read_outstanding([])).workers
        told.extend(worker.silent_seconds or 0 for worker in workers if not worker.is_draining)
        return deaf.poll() is not None

    assert wait_until(ended, 30)
    assert deaf.returncode == 0
    assert max(told) > 1.5, "one that hears asks every second"
    assert "worker_stalled" in fleet.log()
    assert fleet.read(unheard).status == "queued"
    fleet.start()
    fleet.wait(unheard, "succeeded")


def test_the_message_is_one_celery_would_make() -> None:
    """An unmodified Celery app finds task, id and arguments in our template where its own messages have them."""
    filled = MESSAGE_TEMPLATE.replace("@ID@", "job_1").replace("@TAG@", "7").replace("@ARGS@", '\\"job_1\\"')
    message = orjson.loads(filled)
    theirs = Celery("theirs").amqp.as_task_v2("job_1", names.TASK, args=[["job_1"]], kwargs={})
    assert orjson.loads(message["body"])[:2] == [theirs.body[0], theirs.body[1]]
    assert {key: theirs.headers[key] for key in ("task", "id")} == {
        key: message["headers"][key] for key in ("task", "id")
    }
