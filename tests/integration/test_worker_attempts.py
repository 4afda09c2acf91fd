"""A worker's threads against a real Redis and the sandbox model, without Celery around them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx
import orjson
import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from dspy_jobs import names
from dspy_jobs.ids import new_job_id
from dspy_jobs.settings import Settings
from dspy_jobs.states import WaitReason
from dspy_jobs.store import SyncStore, gates, operations
from dspy_jobs.store.records import Claim, StoredJob
from dspy_jobs.waiting import wait_until
from worker.attempt import Runner
from worker.bookkeeping import Bookkeeper
from worker.chunk import STUCK_SECONDS, ChunkRunner
from worker.circuit import circuits_of
from worker.context import AttemptContext
from worker.housekeeping import Housekeeping
from worker.instruments import Instruments
from worker.language_models import LanguageModels
from worker.process import publish_prices
from worker.programs import load_programs
from worker.rates import rate_storage
from worker.response_cache import ResponseCache
from worker.stored_answers import stored_answers
from worker.witnesses import Witnesses

PROGRAMS = (
    "echo", "crash", "leak", "unserialisable", "enormous", "surrogate", "sleepy", "exits", "three_steps", "endless",
    "stubborn", "typed", "reasoned", "infinite", "misspeaks", "mute",
)  # fmt: skip

CONFIG = "\n".join(f'[programs.{name}]\nfactory = "tests.programs:{name}"' for name in PROGRAMS)


class Bench:
    """A worker's insides, and a caller beside it."""

    def __init__(self, settings: Settings, store: SyncStore, worker: str = "w1") -> None:
        circuits = circuits_of(settings, store)
        self.cache = ResponseCache(settings)
        self.instruments = Instruments(settings, self.cache.counts)
        rates = rate_storage(settings.redis_url or "")
        models = LanguageModels(settings, circuits, rates, self.instruments.calls_of)
        runner = Runner(settings, worker, load_programs(settings), models, self.cache)
        self.settings = settings
        self.store = store
        measured = SyncStore(store.redis, self.instruments.round_trip)
        witnesses = Witnesses(worker, settings.log_content, self.instruments)
        self.chunks = ChunkRunner(
            runner, measured, stored_answers(runner, measured), witnesses, Bookkeeper(measured, worker),
            keep_output=self.cache.put,
        )  # fmt: skip
        self.housekeeping = Housekeeping(self.chunks, store, [names.queue(m) for m in settings.models], circuits)

    def submit(self, program: str, model: str = "sandbox", max_attempts: int = 1, **request: Any) -> str:
        """Queue a job."""
        job_id = new_job_id()
        fields = {"program": program, "model": model, "max_attempts": max_attempts}
        self.store.run(
            operations.submit_job(
                job_id, orjson.dumps(request), names.queue(model), 3, fields,
                operations.Lifetimes.of(self.settings.jobs), 1000,
            )
        )  # fmt: skip
        return job_id

    def run(self, program: str, **request: Any) -> StoredJob:
        """Queue a job, run its message, read it."""
        job_id = self.submit(program, **request)
        self.chunks.run([job_id])
        return self.read(job_id)

    def read(self, job_id: str) -> StoredJob:
        """The job as it now stands."""
        job = self.store.run(operations.read_jobs([job_id]))[0]
        assert job is not None
        return job


@pytest.fixture
def bench(write_config: Callable[..., Settings], store: SyncStore) -> Bench:
    """A worker with every fixture program and the sandbox in several moods."""
    return Bench(write_config(CONFIG + _moods()), store)


def _moods() -> str:
    moods = {
        "down": "sandbox-down",
        "limited": "sandbox;fail=429:1;retry_after=7",
        "garbled": "sandbox;malformed=1",
        "silent": "sandbox;hang=1",
        "locked": "sandbox;fail=401:1",
        "slow": "sandbox;latency=0.2",
        "absurd": "sandbox;usage=absurd",
        "untold": "sandbox;usage=none",
        "detailed": "sandbox;usage=detailed",
    }
    return "\n" + "\n".join(
        f'[models.{name}]\nmodel = "openai/{model}"\nbase_url = "BASE"\ntimeout_seconds = 2\n{_PRICES.get(name, "")}'
        for name, model in moods.items()
    )


_ORDINARY = "input_cost_per_1k = 0.001\noutput_cost_per_1k = 0.002"
_PRICES = {
    "absurd": _ORDINARY,
    "untold": _ORDINARY,
    "detailed": "input_cost_per_1k = 4\noutput_cost_per_1k = 8\n"
    "cached_input_cost_per_1k = 1\nreasoning_cost_per_1k = 16",
}


@pytest.fixture
def write_config(write_config: Callable[..., Settings], sandbox_url: str) -> Callable[..., Settings]:
    """The shared fixture, with the sandbox's address filled in for every mood."""
    return lambda text="": write_config(text.replace("BASE", f"{sandbox_url}/v1"))


def test_a_program_without_a_model_succeeds(bench: Bench) -> None:
    """A module of the user's own runs and its output is stored as JSON."""
    job = bench.run("echo", inputs={"text": "hello"})
    assert job.status == "succeeded"
    assert job.outcome is not None
    assert job.outcome["result"] == {"answer": "hello"}
    assert job.outcome["usage"]["calls"] == 0


def test_typed_values_go_both_ways(bench: Bench) -> None:
    """Typed inputs reach the program as Python values and typed outputs come back as JSON of the declared types."""
    job = bench.run("typed", inputs={"text": "t", "count": 3, "point": {"x": 1}})
    assert job.status == "succeeded", job.outcome
    output = job.outcome["result"] if job.outcome else {}
    assert output["kind"] in ("a", "b")
    assert isinstance(output["sure"], bool)
    assert all(isinstance(point["x"], int) for point in output["points"])


def test_usage_and_cost_are_summed_over_calls(bench: Bench) -> None:
    """Three calls are counted, with their tokens and their configured price."""
    job = bench.run("three_steps", inputs={"text": "t"})
    assert job.outcome is not None
    usage = job.outcome["usage"]
    assert usage["calls"] == 3
    assert usage["source"] == "provider"
    expected = (usage["input_tokens"] * 0.001 + usage["output_tokens"] * 0.002) / 1000
    assert job.outcome["cost_usd"] == pytest.approx(expected)


@pytest.mark.parametrize("model", ["absurd", "untold"])
def test_usage_that_is_not_told_is_counted(bench: Bench, model: str) -> None:
    """Where a provider reports no tokens, or more than there can be, they are counted here and priced by that."""
    job = bench.run("reasoned", model=model, inputs={"question": "why?"})
    assert job.status == "succeeded"
    assert job.outcome is not None
    usage = job.outcome["usage"]
    assert (usage["calls"], usage["source"]) == (1, "estimated")
    assert (100 < usage["input_tokens"] < 300, 5 < usage["output_tokens"] < 100) == (True, True)
    assert (usage["cached_input_tokens"], usage["reasoning_tokens"]) == (None, None)
    assert job.outcome["cost_usd"] == (usage["input_tokens"] * 1000 + usage["output_tokens"] * 2000) / 1e9


def test_cached_and_reasoning_tokens_are_told_apart(bench: Bench, sandbox_url: str) -> None:
    """A provider's details reach the job, agree with the provider's own books, and have their own prices."""
    httpx.delete(f"{sandbox_url}/ledger")
    job = bench.run("three_steps", model="detailed", inputs={"text": "t"})
    assert job.outcome is not None
    usage = job.outcome["usage"]
    paid = httpx.get(f"{sandbox_url}/ledger").json()["total"]
    names_there = {
        "input_tokens": "prompt_tokens",
        "cached_input_tokens": "cached_tokens",
        "output_tokens": "completion_tokens",
        "reasoning_tokens": "reasoning_tokens",
    }
    assert {here: usage[here] for here in names_there} == {here: paid[there] for here, there in names_there.items()}
    assert usage["cached_input_tokens"] > 0
    assert usage["reasoning_tokens"] > 0
    dollars = (
        (usage["input_tokens"] - usage["cached_input_tokens"]) * 4
        + usage["cached_input_tokens"] * 1
        + (usage["output_tokens"] - usage["reasoning_tokens"]) * 8
        + usage["reasoning_tokens"] * 16
    ) / 1000
    assert job.outcome["cost_usd"] == pytest.approx(dollars, abs=1e-12)


def test_an_attempt_that_cannot_even_begin_fails(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever breaks around a program ends that job as data, and the rest of its message runs."""
    first, second = (bench.submit("echo", inputs={"text": "t"}) for _ in range(2))
    context_for = bench.chunks.runner.context_for

    def breaks_once(claim: Claim, *given: Any) -> Any:
        if claim.id == first:
            raise LookupError("\ud800")
        return context_for(claim, *given)

    monkeypatch.setattr(type(bench.chunks.runner), "context_for", lambda _, *args: breaks_once(*args))
    bench.chunks.run([first, second])
    job = bench.read(first)
    assert job.outcome is not None
    assert (job.status, job.outcome["problem"]["code"]) == ("failed", "unexpected")
    assert bench.read(second).status == "succeeded"
    assert not bench.store.redis.smembers(names.worker_held("w1"))


def test_a_refused_outcome_fails_its_job(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """An outcome that Redis will never take becomes one that it takes; the rest of the message runs."""
    first, second = (bench.submit("echo", inputs={"text": text}) for text in "ab")
    finish = operations.finish_job

    def refused(*args: Any, **more: Any) -> Any:
        operation = finish(*args, **more)
        is_refused = args[1].id == first and args[2] == "succeeded"
        return replace(operation, args=()) if is_refused else operation

    monkeypatch.setattr(operations, "finish_job", refused)
    bench.chunks.run([first, second])
    job = bench.read(first)
    assert job.outcome is not None
    assert (job.status, job.outcome["problem"]["code"]) == ("failed", "unexpected")
    assert bench.read(second).status == "succeeded"


def test_a_stuck_attempt_waits_for_redis_without_holding_anybody_up(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While Redis is away giving it up fails at once and is kept for the next round, which ends the job."""
    job_id = bench.submit("echo", inputs={"text": "t"})
    take, claim_it = operations.take_jobs("w1", [job_id]), operations.claim_job("w1", job_id, "n")
    claim = bench.store.run_all([take, claim_it])[1]
    context = AttemptContext(job_id, -2 * STUCK_SECONDS, 1)
    bench.chunks.running[job_id] = (claim, context)
    with monkeypatch.context() as away:
        away.setattr(bench.store.redis.connection_pool, "get_connection", _refuse)
        with pytest.raises(RedisConnectionError):
            bench.chunks.abandon_stuck()
    assert (job_id in bench.chunks.running, bench.chunks.stuck_threads) == (True, 0)
    assert bench.chunks.abandon_stuck() == 1
    assert (bench.read(job_id).status, bench.chunks.stuck_threads) == ("failed", 1)


def _refuse(*_: Any) -> Any:
    raise RedisConnectionError("refused")


def test_a_broken_chunk_gives_back_what_it_did_not_start(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistake of the worker's own strands no job."""
    ids = [bench.submit("echo", inputs={"text": "t"}) for _ in range(3)]

    def breaks(*_: Any) -> bool:
        raise LookupError("a mistake")

    monkeypatch.setattr(type(bench.chunks), "_goes_on", breaks)
    bench.store.run(gates.close_gate(names.queue("sandbox"), WaitReason.PAUSED))
    bench.chunks.run(ids)
    bench.store.run(gates.open_gate(names.queue("sandbox"), WaitReason.PAUSED))
    assert not bench.store.redis.smembers(names.worker_held("w1"))
    monkeypatch.undo()
    bench.chunks.run(ids)
    assert {bench.read(job_id).status for job_id in ids} == {"succeeded"}


def test_a_chain_of_thought_gives_its_reasoning(bench: Bench) -> None:
    """Outputs that a DSPy module adds to the signature are part of the result."""
    job = bench.run("reasoned", inputs={"question": "why?"})
    assert job.outcome is not None
    assert set(job.outcome["result"]) == {"reasoning", "answer"}


@pytest.mark.parametrize(
    ("program", "code"),
    [
        ("crash", "program_error"),
        ("exits", "program_error"),
        ("unserialisable", "invalid_output"),
        ("surrogate", "invalid_output"),
        ("infinite", "invalid_output"),
        ("misspeaks", "program_error"),
        ("mute", "program_error"),
        ("enormous", "result_too_large"),
        ("endless", "call_budget_exceeded"),
        ("stubborn", "call_budget_exceeded"),
    ],
)
def test_a_bad_program_fails_as_data(bench: Bench, program: str, code: str) -> None:
    """Whatever a program does, the job ends with a problem of the promised code and is not retried."""
    job = bench.run(program, inputs={"text": "t"}, max_attempts=5)
    assert job.status == "failed"
    assert job.outcome is not None
    assert job.outcome["problem"]["code"] == code
    assert "Traceback" not in orjson.dumps(job.outcome).decode()


def test_secrets_in_error_texts_are_redacted(bench: Bench) -> None:
    """A key in an exception's text never reaches the stored problem."""
    job = bench.run("leak", inputs={"text": "t"})
    assert "sk-abcdefghijklmnop" not in orjson.dumps(job.outcome).decode()


@pytest.mark.parametrize(
    ("model", "code", "retryable"),
    [
        ("down", "server", True),
        ("garbled", "adapter_parse_error", True),
        ("silent", "timeout", True),
        ("locked", "auth", False),
    ],
)
def test_provider_faults_carry_dspys_code(bench: Bench, model: str, code: str, retryable: bool) -> None:
    """A provider's fault ends as a problem with DSPy's own code and classification."""
    job = bench.run("reasoned", model=model, inputs={"question": "q"})
    assert job.status == "failed"
    assert job.outcome is not None
    assert (job.outcome["problem"]["code"], job.outcome["problem"]["retryable"]) == (code, retryable)


def test_a_retryable_fault_is_tried_again_after_the_providers_wait(bench: Bench) -> None:
    """The job is queued again, not before `Retry-After`, and keeps the failed attempt."""
    job = bench.run("reasoned", model="limited", inputs={"question": "q"}, max_attempts=1)
    assert job.status == "queued"
    assert job.fields["wait"] == "rate_limited"
    assert int(job.fields["until"]) >= job.attempts[0]["ended_at"] + 6900
    assert job.attempts[0]["error"]["code"] == "rate_limit"


def test_a_program_that_only_other_workers_know_waits_for_one_of_them(bench: Bench) -> None:
    """In a rolling update an old worker may take a job of a new program: it goes back, and is no failed try."""
    job = bench.run("newest", inputs={"text": "t"})
    assert (job.status, job.fields["wait"]) == ("queued", WaitReason.RETRY_SCHEDULED)
    assert "tries" not in job.fields
    bench.chunks.runner.programs["newest"] = bench.chunks.runner.programs["echo"]
    bench.store.run(operations.wake_delayed(now_ms=int(job.fields["until"])))
    bench.chunks.run([job.id])
    assert bench.read(job.id).status == "succeeded"


def test_an_unreadable_answer_gets_one_more_try(bench: Bench) -> None:
    """An unparsable answer is paid for each time: two attempts, however many the job may have."""
    job = bench.run("reasoned", model="garbled", inputs={"question": "q"}, max_attempts=9)
    bench.store.run(operations.wake_delayed(now_ms=int(job.fields["until"])))
    bench.chunks.run([job.id])
    again = bench.read(job.id)
    assert (again.status, again.fields["attempt"]) == ("failed", "2")


def test_the_deadline_stops_a_program_of_many_steps(bench: Bench) -> None:
    """A program that catches everything is stopped before its next model call once its time is over."""
    job = bench.run("stubborn", model="slow", inputs={"text": "t"}, timeout_seconds=0.5)
    assert job.outcome is not None
    assert job.outcome["problem"]["code"] == "timeout"
    assert job.outcome["usage"]["calls"] <= 4


def test_a_running_job_stops_when_it_is_canceled(bench: Bench) -> None:
    """Cancelling a running job ends it as canceled at its next model call."""
    job_id = bench.submit("stubborn", model="slow", inputs={"text": "t"})
    thread = threading.Thread(target=bench.chunks.run, args=([job_id],))
    thread.start()
    assert wait_until(lambda: job_id in bench.chunks.running, 10)
    assert bench.store.run(operations.cancel_job(job_id)) == ("canceling", "running")
    bench.housekeeping.round()
    thread.join(10)
    assert bench.read(job_id).status == "canceled"


def test_a_message_delivered_twice_runs_once(bench: Bench) -> None:
    """A doubled delivery finds nothing left to take."""
    job = bench.run("echo", inputs={"text": "once"})
    bench.chunks.run([job.id])
    assert bench.read(job.id).fields["attempt"] == "1"


def test_a_draining_worker_hands_its_remainder_back(bench: Bench) -> None:
    """Jobs of a chunk that did not start go back to the queue with a message, and stay queued."""
    ids = [bench.submit("echo", inputs={"text": str(n)}) for n in range(5)]
    bench.store.redis.delete(names.queue_list(names.queue("sandbox"), 3))
    bench.chunks.is_draining.set()
    bench.chunks.run(ids)
    assert [bench.read(job_id).status for job_id in ids] == ["queued"] * 5
    assert bench.store.redis.llen(names.queue_list(names.queue("sandbox"), 3)) == 1
    assert bench.store.redis.scard(names.worker_held("w1")) == 0


def test_a_chunk_gives_way_to_something_more_urgent(bench: Bench) -> None:
    """Between two jobs of a chunk a thread hands the rest back when a more urgent message waits."""
    ids = [bench.submit("echo", inputs={"text": str(n)}) for n in range(3)]
    queue = names.queue("sandbox")
    bench.store.redis.delete(names.queue_list(queue, 3))
    bench.store.redis.lpush(names.queue_list(queue, 0), "urgent")
    bench.chunks.run(ids)
    assert [bench.read(job_id).status for job_id in ids] == ["succeeded", "queued", "queued"]


def test_lost_workers_jobs_are_queued_again(bench: Bench) -> None:
    """A job held by a worker that is no longer heard of is queued again, with the lost attempt on record."""
    job_id = bench.submit("echo", inputs={"text": "t"})
    bench.store.run(operations.renew_worker("dead", 0.001, b"{}", []))
    bench.store.run_all([operations.take_jobs("dead", [job_id]), operations.claim_job("dead", job_id, "n")])
    assert wait_until(lambda: bench.store.run(operations.recover_lost(3)) == (1, 0), 5)
    job = bench.read(job_id)
    assert (job.status, job.fields["wait"]) == ("queued", "worker_lost")
    assert job.attempts[0]["error"]["code"] == "worker_lost"
    bench.chunks.run([job_id])
    assert bench.read(job_id).status == "succeeded"


def test_known_prices_are_published(bench: Bench) -> None:
    """What is known beforehand of prices stands in Redis for the other processes, by the model's name."""
    bench.store.redis.hset(names.MODELS, "retired", "{}")
    publish_prices(bench.store.redis, bench.settings)
    published = {name.decode(): orjson.loads(raw) for name, raw in bench.store.redis.hgetall(names.MODELS).items()}
    assert published["sandbox"] == {"input_cost_per_1k": 0.001, "output_cost_per_1k": 0.002}
    assert published["detailed"] == {"input_cost_per_1k": 4.0, "output_cost_per_1k": 8.0}
    assert not {"retired", "down"} & set(published)
