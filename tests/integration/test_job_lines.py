"""The one line in which the log tells how a job ended, for every way in which jobs end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import structlog

from dspy_jobs import chores, job_lines, names
from dspy_jobs.ids import new_batch_id, new_job_id
from dspy_jobs.logs import carried_ids
from dspy_jobs.settings import Settings
from dspy_jobs.store import SyncStore, operations, recovery
from dspy_jobs.waiting import wait_until
from tests.integration.store_scene import LIFETIMES
from tests.integration.test_worker_attempts import Bench
from worker.context import AttemptContext

CONFIG = """
[programs.qa]
signature = "question -> answer"
[programs.echo]
factory = "tests.programs:echo"
cache = false
[programs.crash]
factory = "tests.programs:crash"
[programs.stubborn]
factory = "tests.programs:stubborn"
[models.down]
model = "openai/sandbox-down"
base_url = "BASE"
[models.slow]
model = "openai/sandbox;latency=0.1"
base_url = "BASE"
"""

#: What a job used that ended without an attempt, and what nobody could tell.
NOTHING = {"run_seconds": 0, "input_tokens": 0, "output_tokens": 0, "calls": 0, "cost_usd": 0}
UNKNOWN = dict.fromkeys(NOTHING)

Lines = list[dict[str, Any]]


@pytest.fixture
def bench(write_config: Callable[..., Settings], sandbox_url: str, store: SyncStore) -> Bench:
    """A worker's insides."""
    return Bench(write_config(CONFIG.replace("BASE", f"{sandbox_url}/v1")), store)


@pytest.fixture
def lines() -> Iterator[Lines]:
    """What is logged of jobs."""
    with structlog.testing.capture_logs() as captured:
        yield captured


def _of(lines: Lines, *job_ids: str) -> Lines:
    """The lines that tell what became of some jobs."""
    return [line for line in lines if line.get("job_id") in job_ids and line["event"].startswith("job_")]


def _only(lines: Lines, job_id: str, event: str) -> dict[str, Any]:
    """The one line about a job."""
    (line,) = _of(lines, job_id)
    assert line["event"] == event
    seldom = {"inputs", "output", "detail", "exception", "raised_at"}
    assert job_lines.JobLine.__annotations__.keys() - line.keys() | {"exception", "raised_at"} == seldom
    return line


def _has(line: dict[str, Any], **wanted: Any) -> None:
    assert {name: line[name] for name in wanted} == wanted


# ---- jobs a worker ran -----------------------------------------------------------------------------------------


def test_a_job_that_ran_is_told_with_times_tokens_and_cost(bench: Bench, lines: Lines) -> None:
    """The line agrees with the job's record."""
    job = bench.run("qa", inputs={"question": "why?"}, request_id="req_1")
    line = _only(lines, job.id, "job_succeeded")
    assert job.outcome is not None
    usage, attempt, created = job.outcome["usage"], job.outcome["attempt"], int(job.fields["created_at"])
    _has(line, log_level="info", request_id="req_1", attempt=1, program="qa", model="sandbox", variant=None)
    _has(line, input_tokens=usage["input_tokens"], output_tokens=usage["output_tokens"], calls=1)
    _has(line, cost_usd=job.outcome["cost_usd"], cache="miss", code=None)
    _has(line, wait_seconds=(int(job.fields["started_at"]) - created) / 1000)
    _has(line, run_seconds=(attempt["ended_at"] - attempt["started_at"]) / 1000)
    _has(line, total_seconds=(attempt["ended_at"] - created) / 1000)
    assert 0 < line["cost_usd"] < 1
    assert "batch_id" not in line


def test_jobs_outside_the_cache_say_so(bench: Bench, lines: Lines) -> None:
    """By their program, or by their own wish."""
    first = bench.run("echo", inputs={"text": "t"})
    second = bench.run("qa", inputs={"question": "q"}, cache={"mode": "off"})
    _has(_only(lines, first.id, "job_succeeded"), cache="bypass", calls=0, cost_usd=0)
    _has(_only(lines, second.id, "job_succeeded"), cache="bypass", calls=1)


def test_a_failed_job_is_told_with_its_code(bench: Bench, lines: Lines) -> None:
    """A price that is not known is null."""
    job = bench.run("qa", model="down", inputs={"question": "q"}, max_attempts=1)
    line = _only(lines, job.id, "job_failed")
    _has(line, log_level="warning", code="server", cache="miss", calls=0)
    assert "raised_at" not in line


def test_a_programs_bug_is_told_with_its_place_and_not_with_its_words(
    bench: Bench, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where to mend it; what an exception says may hold what a caller gave. A provider's failure has no such place."""

    def buggy(*_: Any) -> Any:
        raise ZeroDivisionError("SECRET")

    monkeypatch.setattr(type(bench.chunks.runner), "_output", buggy)
    line = _only(lines, bench.run("echo", inputs={"text": "t"}, max_attempts=1).id, "job_failed")
    _has(line, code="program_error", exception="ZeroDivisionError")
    assert line["raised_at"].startswith(f"{__file__}:")
    assert "SECRET" not in str(line)


def test_each_attempt_has_a_line(bench: Bench, lines: Lines) -> None:
    """One that is tried again, then the one that ends the job."""
    job_id = bench.submit("qa", "down", inputs={"question": "q"}, max_attempts=2)
    bench.chunks.run([job_id])
    bench.store.run(operations.wake_delayed(now_ms=int(bench.read(job_id).fields["until"])))
    bench.chunks.run([job_id])
    first, second = _of(lines, job_id)
    _has(first, event="job_retrying", attempt=1, code="server")
    _has(second, event="job_failed", attempt=2, code="server", wait_seconds=first["wait_seconds"])


def test_lines_inside_of_an_attempt_bear_the_jobs_ids(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before and after nothing is borne."""
    seen: list[dict[str, Any]] = []

    def looks(*_: Any) -> Any:
        seen.append(carried_ids())
        raise LookupError

    monkeypatch.setattr(type(bench.chunks.runner), "run", looks)
    job = bench.run("echo", inputs={"text": "t"}, request_id="req_1")
    assert seen == [{"job_id": job.id, "attempt": 1, "request_id": "req_1"}]
    assert carried_ids() == {}


def test_an_outcome_that_comes_too_late_is_told_so(bench: Bench, lines: Lines) -> None:
    """The job was given to another attempt meanwhile, or has been told to end."""
    job_id = bench.submit("qa", "slow", inputs={"question": "q"})
    thread = threading.Thread(target=bench.chunks.run, args=([job_id],))
    thread.start()
    assert wait_until(lambda: job_id in bench.chunks.running, 10)
    bench.store.redis.hset(names.job(job_id), "attempt", 2)
    thread.join(10)
    _has(_only(lines, job_id, "job_outcome_discarded"), attempt=1, calls=1, log_level="warning")
    bench.store.redis.flushall()


def test_an_outcome_whose_answer_was_lost_is_told_as_what_it_is(bench: Bench, lines: Lines, monkeypatch: Any) -> None:
    """A connection that is cut behind the script has it sent again."""
    job_id = bench.submit("echo", inputs={"text": "t"})
    finish = operations.finish_job

    def sent_twice(*args: Any, **more: Any) -> Any:
        operation = finish(*args, **more)
        bench.store.run(operation)
        return operation

    monkeypatch.setattr(operations, "finish_job", sent_twice)
    bench.chunks.run([job_id])
    _only(lines, job_id, "job_succeeded")


def test_a_job_that_was_canceled_while_it_ran_is_told(bench: Bench, lines: Lines) -> None:
    """With what it used until then."""
    job_id = bench.submit("stubborn", "slow", inputs={"text": "t"})
    thread = threading.Thread(target=bench.chunks.run, args=([job_id],))
    thread.start()
    assert wait_until(lambda: job_id in bench.chunks.running, 10)
    bench.store.run(operations.cancel_job(job_id))
    bench.housekeeping.round()
    thread.join(10)
    _has(_only(lines, job_id, "job_canceled"), code="canceled", log_level="info")


def test_a_job_that_was_canceled_when_its_attempt_failed_is_told(bench: Bench, lines: Lines) -> None:
    """It is not tried again."""
    job_id = bench.submit("qa", "down", inputs={"question": "q"}, max_attempts=5)
    settle = bench.chunks.runner.run

    def canceled_meanwhile(*args: Any) -> Any:
        bench.store.run(operations.cancel_job(job_id))
        return settle(*args)

    object.__setattr__(bench.chunks.runner, "run", canceled_meanwhile)
    bench.chunks.run([job_id])
    _has(_only(lines, job_id, "job_canceled"), code="canceled", attempt=1)


def test_a_stuck_attempt_and_a_refused_outcome_are_told(bench: Bench, lines: Lines) -> None:
    """What the attempt used is in the line of the one that was stuck; of the other it is not known."""
    job_id = bench.submit("echo", inputs={"text": "t"})
    bench.store.run(operations.take_jobs("w1", [job_id]))
    claim = bench.store.run(operations.claim_job("w1", job_id, "n"))
    context = AttemptContext(job_id, -30, 1, ids={"job_id": job_id, "attempt": 1})
    bench.chunks.running[job_id] = (claim, context)
    assert bench.chunks.abandon_stuck() == 1
    _has(_only(lines, job_id, "job_failed"), code="timeout", calls=0, cost_usd=0)


# ---- jobs that were answered -----------------------------------------------------------------------------------


def test_answered_jobs_are_told_like_those_that_ran(bench: Bench, lines: Lines) -> None:
    """One runs, an equal one of its message has its answer, a later one the stored one."""
    ids = [bench.submit("qa", inputs={"question": "q"}, request_id=f"req_{n}") for n in range(3)]
    bench.chunks.run(ids[:2])
    bench.store.redis.delete(*bench.store.redis.keys(names.flight("*")))
    bench.chunks.run(ids[2:])
    ran, equal, later = (_only(lines, job_id, "job_succeeded") for job_id in ids)
    assert [line["cache"] for line in (ran, equal, later)] == ["miss", "coalesced", "hit"]
    for number, line in enumerate((equal, later), start=1):
        _has(line, attempt=1, request_id=f"req_{number}", code=None, **NOTHING)
        assert 0 <= line["wait_seconds"] == line["total_seconds"] < 60


def test_followers_of_a_running_job_are_told_once(bench: Bench, lines: Lines) -> None:
    """They are sent again when their leader has ended, and end as what they are."""
    leader, *followers = (bench.submit("qa", "slow", inputs={"question": "q"}) for _ in range(3))
    thread = threading.Thread(target=bench.chunks.run, args=([leader],))
    thread.start()
    assert wait_until(lambda: leader in bench.chunks.running, 10)
    bench.chunks.run(followers)
    assert not _of(lines, *followers)
    thread.join(10)
    bench.chunks.run(followers)
    assert {_only(lines, job_id, "job_succeeded")["cache"] for job_id in followers} == {"coalesced"}


# ---- jobs that ended without a worker --------------------------------------------------------------------------


def _submit(store: SyncStore, **fields: Any) -> str:
    job_id = new_job_id()
    fields = {"program": "qa", "model": "fast", "max_attempts": 3, **fields}
    store.run(operations.submit_job(job_id, b"{}", "dspy.fast", 3, fields, LIFETIMES, 1000))
    return job_id


def _batch(store: SyncStore, size: int) -> tuple[str, list[str]]:
    head = operations.BatchHead(new_batch_id(), "dspy.fast", 6, "qa", "fast", 3, LIFETIMES)
    ids = [new_job_id() for _ in range(size)]
    store.run(operations.stage_items(head, [(job_id, b"{}") for job_id in ids]))
    store.run(operations.commit_batch(head, b"{}", size, 1000))
    store.run(operations.release_jobs(head.id, 0, [1] * size))
    return head.id, ids


def _start(store: SyncStore, worker: str, ids: Sequence[str]) -> None:
    store.run(operations.take_jobs(worker, ids))
    for job_id in ids:
        store.run(operations.claim_job(worker, job_id, job_id))


def test_a_queued_job_is_canceled_once(store: SyncStore, lines: Lines) -> None:
    """Whoever cancels it tells of it; to cancel it again is nothing new."""
    job_id = _submit(store, variant="b")
    for _ in range(2):
        assert store.run(operations.cancel_job(job_id)) == ("canceled", "canceled")
    line = _only(lines, job_id, "job_canceled")
    _has(line, program="qa", model="fast", variant="b", attempt=0, cache=None, code="canceled", **NOTHING)
    assert 0 <= line["wait_seconds"] == line["total_seconds"] < 60


def test_each_job_of_a_canceled_batch_is_told(store: SyncStore, lines: Lines) -> None:
    """In steps, each once."""
    batch_id, ids = _batch(store, 5)
    store.follow(chores.cancel(batch_id))
    assert store.run(operations.cancel_batch(batch_id)) == ("ended", -1)
    for job_id in ids:
        _has(_only(lines, job_id, "job_canceled"), batch_id=batch_id)


def test_an_expired_job_is_told_by_whoever_finds_it(bench: Bench, lines: Lines) -> None:
    """The housekeepers, or a worker that wants to start it."""
    store = bench.store
    found, met = _submit(store), _submit(store)
    store.run(operations.take_jobs("w1", [met]))
    for job_id in (found, met):
        store.redis.hset(names.job(job_id), "expires_at", 1)
    now = int(store.redis.time()[0]) * 1000 + 60_000
    assert store.run(recovery.expire_due(100, 0, ["dspy.fast"], now)) == 1
    _has(_only(lines, found, "job_expired"), log_level="warning", code="expired", cache=None, **NOTHING)
    bench.chunks.run([met])
    _has(_only(lines, met, "job_expired"), code="expired", cache=None, attempt=1, model="fast", **NOTHING)


def test_lost_attempts_are_told_and_jobs_that_are_given_up(store: SyncStore, lines: Lines) -> None:
    """What a lost attempt used is not known. The worker is named, with how many jobs it held."""
    again, over, canceled, held = (_submit(store) for _ in range(4))
    _start(store, "w1", [again, over, canceled])
    store.run(operations.take_jobs("w1", [held]))
    store.redis.hset(names.job(over), "lost", 2)
    store.run(operations.cancel_job(canceled))
    now = int(store.redis.time()[0]) * 1000 + 60_000
    assert store.run(operations.recover_lost(3, now_ms=now)) == (2, 1)
    _has(_only(lines, again, "job_requeued"), log_level="warning", code="worker_lost", attempt=1, cache=None, **UNKNOWN)
    _has(_only(lines, over, "job_failed"), code="worker_lost", **UNKNOWN)
    _has(_only(lines, canceled, "job_canceled"), code="canceled", **UNKNOWN)
    assert not _of(lines, held)
    (lost,) = [line for line in lines if line["event"] == "worker_lost"]
    assert (lost["worker"], lost["jobs"]) == ("w1", 4)


def test_what_a_stopping_worker_gives_back_is_told(store: SyncStore, lines: Lines) -> None:
    """A running job is queued again, one whose cancellation was asked for ends."""
    running, canceled = (_submit(store) for _ in range(2))
    _start(store, "w1", [running, canceled])
    store.run(operations.cancel_job(canceled))
    assert store.run(recovery.surrender_jobs("w1")) == 2
    _has(_only(lines, running, "job_requeued"), code="worker_lost", **UNKNOWN)
    _has(_only(lines, canceled, "job_canceled"), code="canceled", **UNKNOWN)


# ---- content ---------------------------------------------------------------------------------------------------


def test_inputs_and_outputs_are_told_only_where_it_is_switched_on(
    write_config: Callable[..., Settings], store: SyncStore, lines: Lines
) -> None:
    """Cut; of a failed job what the problem says, too."""
    bench = Bench(write_config(CONFIG.replace("BASE", "http://127.0.0.1:1"), DSPY_JOBS_LOG_CONTENT="true"), store)
    text = "given " * 1000
    ran = bench.run("echo", inputs={"text": text})
    failed = bench.run("crash", inputs={"text": "given"})
    line = _of(lines, ran.id)[0]
    assert line["inputs"] == ('{"text":"' + text)[:1000]
    assert line["output"] == ('{"answer":"' + text)[:1000]
    _has(_of(lines, failed.id)[0], inputs='{"text":"given"}', detail="RuntimeError: no luck with given")


def test_inputs_and_outputs_of_answered_jobs_are_told_too(
    write_config: Callable[..., Settings], store: SyncStore, lines: Lines, sandbox_url: str
) -> None:
    """The output is the one they were given."""
    bench = Bench(write_config(CONFIG.replace("BASE", f"{sandbox_url}/v1"), DSPY_JOBS_LOG_CONTENT="true"), store)
    ids = [bench.submit("qa", inputs={"question": "q"}) for _ in range(2)]
    bench.chunks.run(ids)
    first, second = _of(lines, *ids)
    assert second["cache"] == "coalesced"
    assert (second["inputs"], second["output"]) == (first["inputs"], first["output"])


def test_a_job_without_a_batch_has_no_batch_in_lines_of_housekeeping(store: SyncStore, lines: Lines) -> None:
    """What does not apply is absent, whoever writes the line."""
    job_id = new_job_id()
    route = {"program": "qa", "model": "fast", "max_attempts": 3}
    store.run(operations.submit_job(job_id, b'{"inputs": {}}', names.queue("fast"), 3, route, LIFETIMES, 100))
    store.run(operations.cancel_job(job_id))
    assert "batch_id" not in _only(lines, job_id, "job_canceled")
