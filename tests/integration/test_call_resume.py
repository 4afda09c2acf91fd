"""A program of many steps that fails at one of them does not pay again for those before, with a real model server."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from dspy_jobs import names
from dspy_jobs.settings import Settings
from dspy_jobs.states import WaitReason
from dspy_jobs.store import SyncStore, gates, operations
from dspy_jobs.store.books import Bill
from dspy_jobs.store.records import StoredJob
from dspy_jobs.views import job_view
from dspy_jobs.waiting import wait_until
from tests.integration.test_worker_attempts import Bench
from tests.programs import LINGER
from tests.sandbox_account import Account
from worker.bookkeeping import Bookkeeper

PROGRAMS = ("chain", "researcher", "twice", "picky", "three_steps", "two_steps", "endless", "lingers", "leaves_a_call")
CONFIG = "\n".join(f'[programs.{name}]\nfactory = "tests.programs:{name}"' for name in PROGRAMS)
FORGETFUL = '\n[programs.forgetful]\nfactory = "tests.programs:chain"\nresume = false\n'


KEYED = 'idempotency_header = "Idempotency-Key"'


class Provider(Account):
    """A model of the sandbox that only this test calls, with prices."""

    def __init__(self, url: str, modifiers: str, settings: str = "") -> None:
        super().__init__(url, modifiers)
        self._settings = settings

    def config(self) -> str:
        """As the worker's model `own`."""
        prices = "input_cost_per_1k = 0.15\noutput_cost_per_1k = 0.6\nbreaker = {failure_threshold = 100}\n"
        return "\n" + self.as_toml("own", prices + self._settings)

    count = Account.read

    def cost(self) -> int:
        """Nano-dollars for all that it answered."""
        return self.count("prompt_tokens") * 150_000 + self.count("completion_tokens") * 600_000


MakeBench = Callable[..., tuple[Bench, Provider]]


@pytest.fixture
def make_bench(write_config: Callable[..., Settings], store: SyncStore, sandbox_url: str) -> MakeBench:
    """A worker whose model `own` has the sandbox's modifiers, and settings (TOML) of its own."""

    def make(modifiers: str, settings: str = "") -> tuple[Bench, Provider]:
        provider = Provider(sandbox_url, modifiers, settings)
        return Bench(write_config(CONFIG + FORGETFUL + provider.config()), store), provider

    return make


def run_to_the_end(bench: Bench, program: str, inputs: dict[str, Any], max_attempts: int = 9) -> StoredJob:
    """Run a job, attempt after attempt, without waiting in between."""
    job_id = bench.submit(program, model="own", max_attempts=max_attempts, inputs=inputs, cache={"mode": "off"})
    bench.chunks.run([job_id])
    return go_on(bench, job_id)


def go_on(bench: Bench, job_id: str) -> StoredJob:
    """Run what is left of a job's attempts."""
    while (job := bench.read(job_id)).status == "queued":
        bench.store.run(operations.wake_delayed(now_ms=int(job.fields.get("until", 0))))
        bench.chunks.run([job_id])
    return job


def replays(job: StoredJob) -> list[tuple[int | None, int]]:
    """Paid and replayed calls of each attempt, as the API shows them."""
    return [(attempt["calls"], attempt["replayed"]) for attempt in job_view(job)["attempts"]]


def books(store: SyncStore) -> dict[str, int]:
    """All metrics of the books, summed over days, models and programs."""
    sums: dict[str, int] = {}
    for key in store.redis.keys("dj:costs:*"):
        for field, value in store.redis.hgetall(key).items():
            metric = field.decode().rpartition("|")[2]
            sums[metric] = sums.get(metric, 0) + int(value)
    return sums


def assert_books_agree(store: SyncStore, provider: Provider) -> None:
    """What was booked is what the provider answered, to the token and the nano-dollar."""
    booked = books(store)
    assert (booked["calls"], booked["input_tokens"], booked["output_tokens"], booked["cost"]) == (
        provider.count("completions"),
        provider.count("prompt_tokens"),
        provider.count("completion_tokens"),
        provider.cost(),
    )


@pytest.mark.parametrize(("program", "field"), [("chain", "text"), ("researcher", "question"), ("three_steps", "text")])
def test_answered_steps_are_not_paid_again(make_bench: MakeBench, program: str, field: str) -> None:
    """Every prompt fails the first time, so each attempt gets one step further, and no prompt is answered twice."""
    bench, provider = make_bench("first=1:500")
    job = run_to_the_end(bench, program, {field: "t"})
    steps = provider.count("distinct_prompts")
    assert job.status == "succeeded", job.outcome
    assert (provider.count("completions"), provider.count("duplicate_prompts")) == (steps, 0)
    assert replays(job) == [(0, 0), *((1, number) for number in range(steps))]
    assert_books_agree(bench.store, provider)
    assert job_view(job)["cost_usd"] == provider.cost() / 1e9
    assert not bench.store.redis.exists(names.job_journal(job.id))


def test_a_program_may_be_made_to_ask_again(make_bench: MakeBench) -> None:
    """With `resume = false` every attempt pays for every step; all of it is booked."""
    bench, provider = make_bench("first=1:500")
    job = run_to_the_end(bench, "forgetful", {"text": "t"})
    assert replays(job) == [(0, 0), (1, 0), (2, 0), (3, 0)]
    assert provider.count("duplicate_prompts") == 3
    assert_books_agree(bench.store, provider)


def test_an_unreadable_answer_is_asked_for_anew(make_bench: MakeBench) -> None:
    """Both forms of the step that could not be read are; the steps before it are not."""
    bench, provider = make_bench("first=1:malformed")
    for _ in range(2):  # meets the first, unreadable answers to the prompts of the first two steps
        run_to_the_end(bench, "two_steps", {"text": "t"})
    before = provider.count("completions")
    job = run_to_the_end(bench, "three_steps", {"text": "t"})
    assert job.status == "succeeded", job.outcome
    assert job.attempts[0]["error"]["code"] == "adapter_parse_error"
    assert replays(job) == [(4, 0), (1, 2)]
    assert provider.count("completions") - before == 5
    assert_books_agree(bench.store, provider)


def test_equal_calls_get_their_own_answers(make_bench: MakeBench) -> None:
    """Equal calls take the answers in their order, and a rollout id makes a call of its own."""
    bench, provider = make_bench("first=1:500")
    # The two equal calls and the two that differ only by a rollout id are one prompt each to the provider.
    job = run_to_the_end(bench, "twice", {"text": "t"})
    assert job.status == "succeeded", job.outcome
    assert replays(job) == [(0, 0), (2, 0), (2, 2), (1, 4)]
    assert provider.count("completions") == 5


def test_a_useless_output_is_made_anew_when_retried_by_hand(make_bench: MakeBench) -> None:
    """What came of the last answer did not fit the program; the answers before it are still good."""
    bench, provider = make_bench("latency=0")
    job = run_to_the_end(bench, "picky", {"text": "t"})
    assert job.outcome is not None
    assert job.outcome["problem"]["code"] == "invalid_output"
    bench.store.run(operations.retry_jobs([job.id], operations.Lifetimes.of(bench.settings.jobs)))
    bench.chunks.run([job.id])
    assert replays(bench.read(job.id)) == [(3, 0), (1, 2)]
    assert provider.count("completions") == 4


def test_a_gateway_charges_a_repeated_call_once(make_bench: MakeBench) -> None:
    """An answer that the worker never got to keep is given again; one that was of no use is not."""
    bench, provider = make_bench("latency=0", KEYED)
    job_id = bench.submit("picky", model="own", max_attempts=9, inputs={"text": "t"})
    bench.chunks.run([job_id])
    assert provider.count("replays") == 0
    bench.store.run(operations.retry_jobs([job_id], operations.Lifetimes.of(bench.settings.jobs)))
    bench.chunks.run([job_id])
    # The last answer had been of no use: asking again is another call.
    assert (provider.count("completions"), provider.count("replays")) == (4, 0)
    bench.store.redis.delete(names.job_journal(job_id))
    bench.store.run(operations.retry_jobs([job_id], operations.Lifetimes.of(bench.settings.jobs)))
    bench.chunks.run([job_id])
    # Nothing is known of any answer: every call repeats the first one like it.
    assert (provider.count("completions"), provider.count("replays")) == (4, 3)


def test_a_program_that_asks_again_means_it(make_bench: MakeBench) -> None:
    """With `resume = false` a gateway does not give the old answers either; within an attempt it does."""
    bench, provider = make_bench("first=1:500", KEYED)
    job = run_to_the_end(bench, "forgetful", {"text": "t"})
    assert replays(job) == [(0, 0), (1, 0), (2, 0), (3, 0)]
    assert (provider.count("completions"), provider.count("replays")) == (6, 0)


def test_a_damaged_journal_costs_a_call_and_no_more(make_bench: MakeBench) -> None:
    """A record that cannot be read is paid again."""
    bench, provider = make_bench("first=1:500")
    job_id = bench.submit("chain", model="own", max_attempts=9, inputs={"text": "t"})
    for _ in range(3):
        wake(bench, job_id)
        bench.chunks.run([job_id])
    key = names.job_journal(job_id)
    assert bench.store.redis.llen(key) == 2
    bench.store.redis.lset(key, 0, b"nonsense")
    job = go_on(bench, job_id)
    assert job.status == "succeeded"
    assert (replays(job)[-1], provider.count("duplicate_prompts")) == ((2, 1), 1)


def wake(bench: Bench, job_id: str) -> None:
    """End a job's wait."""
    until = bench.read(job_id).fields.get("until")
    if until:
        bench.store.run(operations.wake_delayed(now_ms=int(until)))


def test_replayed_calls_count_as_calls(make_bench: MakeBench) -> None:
    """A program without an end is stopped by its budget of calls, replayed or not, and pays for nothing twice."""
    bench, provider = make_bench("latency=0")
    job = run_to_the_end(bench, "endless", {"text": "t"})
    assert job.outcome is not None
    assert job.outcome["problem"]["code"] == "call_budget_exceeded"
    bench.store.run(operations.retry_jobs([job.id], operations.Lifetimes.of(bench.settings.jobs)))
    bench.chunks.run([job.id])
    assert replays(bench.read(job.id)) == [(100, 0), (0, 100)]
    assert provider.count("completions") == 100


def test_replayed_calls_meet_no_rate_limit(make_bench: MakeBench) -> None:
    """Only calls that reach the provider count against what it allows a minute."""
    bench, provider = make_bench("latency=0", "requests_per_minute = 1")
    job_id = bench.submit("chain", model="own", max_attempts=9, inputs={"text": "t"})
    for _ in range(2):
        wake(bench, job_id)
        bench.store.run(gates.open_gate(names.queue("own"), WaitReason.RATE_LIMITED))
        bench.chunks.run([job_id])
    job = bench.read(job_id)
    assert [(a["usage"]["calls"], a.get("replayed", 0), a["error"]["code"]) for a in job.attempts] == [
        (1, 0, "rate_limit"),
        (0, 1, "rate_limit"),
    ]
    assert provider.count("requests") == 1


def test_a_used_up_budget_stops_a_chain_between_two_calls(make_bench: MakeBench) -> None:
    """The attempt ends before its next call and counts as no failure; with a new budget it goes on where it was."""
    bench, provider = make_bench("latency=0")
    bench.store.redis.hset(names.BUDGETS, "day *", "1")
    job_id = bench.submit("chain", model="own", max_attempts=1, inputs={"text": "t"})
    bench.chunks.run([job_id])
    job = bench.read(job_id)
    assert (job.status, job.fields["wait"], provider.count("completions")) == ("queued", "budget_exhausted", 1)
    bench.store.redis.delete(names.BUDGETS)
    job = go_on(bench, job_id)
    assert (job.status, replays(job)) == ("succeeded", [(1, 0), (2, 1)])
    assert_books_agree(bench.store, provider)


def test_a_running_attempts_calls_are_booked_as_it_goes(make_bench: MakeBench) -> None:
    """The housekeeping books what was answered while the program does something else; its end books nothing twice."""
    bench, provider = make_bench("latency=0")
    LINGER.clear()
    job_id = bench.submit("lingers", model="own", inputs={"text": "t"})
    thread = threading.Thread(target=bench.chunks.run, args=([job_id],))
    thread.start()
    try:
        assert wait_until(lambda: provider.count("completions") == 1, 20)
        assert wait_until(lambda: bench.housekeeping.round() or books(bench.store).get("calls") == 1, 10)
        assert bench.store.redis.llen(names.job_journal(job_id)) == 1
    finally:
        LINGER.set()
        thread.join(20)
    assert bench.read(job_id).status == "succeeded"
    assert_books_agree(bench.store, provider)


def test_a_stale_booking_changes_nothing(make_bench: MakeBench) -> None:
    """Calls of an attempt that is over are not booked by it any more."""
    bench, _ = make_bench("latency=0")
    job_id = bench.submit("chain", model="own", inputs={"text": "t"})
    take, claim_it = operations.take_jobs("w1", [job_id]), operations.claim_job("w1", job_id, "n")
    claim = bench.store.run_all([take, claim_it])[1]
    bench.store.run(operations.finish_job("w1", claim, "failed", orjson.dumps({}), Bill()))
    assert Bookkeeper(bench.store, "w1").book_for(claim)(Bill(), b"{}") == "stale"


def test_a_redis_that_is_away_holds_up_no_call(make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls that could not be booked between are booked at the end; after a failure nothing is tried for a while."""
    bench, provider = make_bench("latency=0")
    tries: list[Bill] = []

    def refuse(_: str, claim: Any, bill: Bill, *__: Any) -> Any:
        tries.append(bill)
        raise RedisConnectionError

    monkeypatch.setattr("worker.bookkeeping.record_calls", refuse)
    job = run_to_the_end(bench, "chain", {"text": "t"})
    assert (job.status, len(tries)) == ("succeeded", 1)
    assert_books_agree(bench.store, provider)


def test_a_call_answered_after_its_attempt_is_booked_all_the_same(make_bench: MakeBench, store: SyncStore) -> None:
    """Of a thread that the program left behind; and that thread gets no further call."""
    bench, provider = make_bench("latency=0.3")
    job_id = bench.submit("leaves_a_call", model="own", inputs={"text": "t"}, cache={"mode": "off"})
    bench.chunks.run([job_id])
    assert bench.read(job_id).status == "succeeded"
    assert wait_until(lambda: provider.count("completions") == 2, 10)
    assert wait_until(lambda: books(store).get("calls") == 2, 10)
    assert_books_agree(store, provider)
    assert provider.count("requests") == 2
