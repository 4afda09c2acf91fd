"""Workers that take outputs made before instead of making them again, with a real model server that counts."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from signal import SIGSTOP
from typing import Any

import pytest
import redis

from dspy_jobs import names
from dspy_jobs.cache_entry import CacheEntry
from dspy_jobs.redis_url import cache_url
from dspy_jobs.settings import Settings
from dspy_jobs.states import WaitReason
from dspy_jobs.store import SyncStore, gates, operations
from dspy_jobs.store.records import StoredJob
from dspy_jobs.views import job_view
from dspy_jobs.waiting import wait_until
from tests.integration.store_scene import LIFETIMES
from tests.integration.test_call_resume import Provider
from tests.integration.test_worker_attempts import Bench
from tests.system.own_redis import OwnRedis
from worker.stored_answers import StoredAnswers

CONFIG = """
[programs.qa]
signature = "question -> answer"
[programs.forgetful]
signature = "question -> answer"
cache = false
[programs.echo]
factory = "tests.programs:echo"
[programs.crash]
factory = "tests.programs:crash"
"""
TIMEOUT = 0.5


class Fleet:
    """Workers of one configuration, and the provider they share."""

    def __init__(self, settings: Settings, store: SyncStore, provider: Provider) -> None:
        self.settings, self.store, self.provider = settings, store, provider
        self.first, self.second = self.worker("w1"), self.worker("w2")

    def worker(self, name: str) -> Bench:
        """Another worker, whose memory is empty."""
        return Bench(self.settings, self.store, name)

    def submit(self, question: str = "q", program: str = "qa", **request: Any) -> str:
        """Queue a job."""
        field = "question" if program in ("qa", "forgetful") else "text"
        return self.first.submit(program, "own", inputs={field: question}, **request)

    def run(self, question: str = "q", program: str = "qa", **request: Any) -> StoredJob:
        """Run a job on the first worker to its end, or as far as it goes."""
        job_id = self.submit(question, program, **request)
        self.first.chunks.run([job_id])
        return self.first.read(job_id)

    def forget_leaders(self) -> None:
        """Let the time pass in which a job that ended just before answers those that ask now."""
        self.store.redis.delete(*self.store.redis.keys(names.flight("*")))

    def shown(self, ids: Sequence[str]) -> list[str | None]:
        """How each job came by its output."""
        return [job_view(self.first.read(job_id))["cache"] for job_id in ids]

    @property
    def calls(self) -> int:
        """Calls the provider has answered."""
        return self.provider.count("completions")


@pytest.fixture
def make_fleet(write_config: Callable[..., Settings], store: SyncStore, sandbox_url: str) -> Callable[..., Fleet]:
    """Makes a fleet whose model has the sandbox's modifiers, with more configuration."""

    def make(modifiers: str = "latency=0", more: str = "", **environ: str) -> Fleet:
        provider = Provider(sandbox_url, modifiers)
        return Fleet(write_config(CONFIG + provider.config() + more, **environ), store, provider)

    return make


@pytest.fixture
def fleet(make_fleet: Callable[..., Fleet]) -> Fleet:
    """A fleet with a provider without moods."""
    return make_fleet()


@pytest.fixture
def cache_redis(fleet: Fleet) -> Iterator[redis.Redis]:
    """A client of the cache's Redis."""
    with redis.Redis.from_url(cache_url(fleet.settings)) as client:
        yield client


def key_of(job: StoredJob) -> str:
    """The cache key in a job's outcome."""
    assert job.outcome is not None
    return str(job.outcome["cache_key"])


def problem_of(job: StoredJob) -> str | None:
    """The code of a job's problem."""
    return job.outcome and job.outcome.get("problem", {}).get("code")


# ---- alike -----------------------------------------------------------------------------------------------------


def test_what_is_alike_in_a_message_runs_once(fleet: Fleet) -> None:
    """The first of them runs, and the others have its answer; each model call is booked once."""
    ids = [fleet.submit(question) for question in ("q", "other", "q", "q", "other", "q")]
    fleet.first.chunks.run(ids)
    assert fleet.shown(ids) == ["miss", "miss", "hit", "hit", "hit", "hit"]
    assert fleet.calls == 2
    outputs = [job_view(fleet.first.read(job_id))["output"] for job_id in ids]
    assert outputs[0] == outputs[2] == outputs[5] != outputs[1]


def test_what_is_alike_at_the_same_moment_runs_once(make_fleet: Callable[..., Fleet]) -> None:
    """Another worker's jobs follow the one that runs and are sent again when it has ended."""
    fleet = make_fleet("latency=0.7")
    leader, *followers = (fleet.submit() for _ in range(4))
    thread = threading.Thread(target=fleet.first.chunks.run, args=([leader],))
    thread.start()
    assert wait_until(lambda: fleet.first.read(leader).status == "running", 10)
    fleet.second.chunks.run(followers)
    assert {job_view(fleet.first.read(job_id))["wait_reason"] for job_id in followers} == {"behind_n_jobs"}
    thread.join()
    fleet.second.chunks.run(followers)
    assert fleet.shown([leader, *followers]) == ["miss"] + ["coalesced"] * 3
    assert fleet.calls == 1
    made, shared = (job_view(fleet.first.read(job_id)) for job_id in (leader, followers[0]))
    assert shared["output"] == made["output"]
    assert (shared["saved_usd"], shared["cost_usd"], shared["usage"]["calls"]) == (made["cost_usd"], 0, 0)


def test_a_failure_is_nobody_elses(fleet: Fleet) -> None:
    """Each of those alike fails by itself."""
    ids = [fleet.submit(program="crash") for _ in range(3)]
    fleet.first.chunks.run(ids)
    jobs = [fleet.first.read(job_id) for job_id in ids]
    assert [(job.status, problem_of(job), job.fields["attempt"]) for job in jobs] == [
        ("failed", "program_error", "1")
    ] * 3


def test_an_answer_made_since_the_cache_was_asked_is_taken(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """One job ended between another's look into the cache and its claim."""
    leader, late = fleet.submit(), fleet.submit()
    find = StoredAnswers.find

    def find_then_wait(answers: StoredAnswers, jobs: Any) -> Any:
        found = find(answers, jobs)
        if answers.worker_id == "w2":
            fleet.first.chunks.run([leader])
        return found

    monkeypatch.setattr(StoredAnswers, "find", find_then_wait)
    fleet.second.chunks.run([late])
    assert fleet.shown([leader, late]) == ["miss", "coalesced"]
    assert fleet.calls == 1


def test_a_worker_that_cannot_see_the_cache_asks_who_ended_last(fleet: Fleet, cache_redis: redis.Redis) -> None:
    """For half a minute a job's outcome answers those like it, also where the cache has lost it."""
    made = fleet.run()
    cache_redis.delete(names.cache_entry(key_of(made)))
    late = fleet.submit()
    fleet.second.chunks.run([late])
    assert fleet.shown([late]) == ["coalesced"]
    assert fleet.calls == 1


def test_an_answer_that_was_erased_is_made_again(fleet: Fleet) -> None:
    """The leader's outcome is gone when its follower comes back, and the cache has nothing either."""
    leader, follower = fleet.submit(), fleet.submit()
    fleet.first.chunks.run([leader])
    fleet.first.cache.discard(key_of(fleet.first.read(leader)))
    fleet.store.redis.hset(names.job(follower), "answer", leader)
    assert fleet.store.run(operations.erase_job(leader)) == "erased"
    fleet.second.chunks.run([follower])
    assert fleet.shown([follower]) == ["miss"]
    assert fleet.calls == 2


def test_a_paused_queue_answers_nobody(fleet: Fleet) -> None:
    """A job whose answer is stored stays queued until the queue is resumed."""
    fleet.run()
    fleet.store.run(gates.close_gate(names.queue("own"), WaitReason.PAUSED))
    job = fleet.run()
    assert (job.status, fleet.store.redis.scard(names.worker_held("w1"))) == ("queued", 0)
    fleet.store.run(gates.open_gate(names.queue("own"), WaitReason.PAUSED))
    fleet.first.chunks.run([job.id])
    assert fleet.shown([job.id]) == ["hit"]


def test_stored_answers_come_while_the_provider_is_away(fleet: Fleet) -> None:
    """A circuit is about calls, and there is none to make."""
    fleet.run()
    fleet.store.run(gates.close_gate(names.queue("own"), WaitReason.CIRCUIT_OPEN, 60))
    assert fleet.shown([fleet.run().id]) == ["hit"]
    assert fleet.run("another").status == "queued"


# ---- what callers ask for --------------------------------------------------------------------------------------


def test_a_stored_answer_tells_what_it_saved(fleet: Fleet) -> None:
    """Its key, its age and what the run cost that made it; no call of its own."""
    made, found = fleet.run(), fleet.run()
    assert made.outcome is not None
    assert found.outcome is not None
    assert made.outcome["cache"] == "miss"
    assert not {"cache_age_seconds", "saved_nanos"} & {name for name, value in made.outcome.items() if value}
    assert found.outcome["cache"] == "hit"
    assert (found.outcome["cache_key"], len(key_of(found))) == (key_of(made), 40)
    assert 0 <= found.outcome["cache_age_seconds"] < 60
    assert found.outcome["saved_nanos"] == fleet.provider.cost() == round(made.outcome["cost_usd"] * 1e9) > 0
    assert (found.outcome["cost_usd"], found.outcome["usage"]["calls"]) == (0, 0)
    assert (found.fields["attempt"], job_view(found)["attempts"][0]["number"]) == ("1", 1)


def test_off_neither_takes_nor_leaves(fleet: Fleet) -> None:
    """It runs though there is an answer, and leaves none; it has no key."""
    off = fleet.run(cache={"mode": "off"})
    assert off.outcome is not None
    assert (off.outcome["cache"], off.outcome.get("cache_key")) == ("bypass", None)
    assert fleet.shown([fleet.run().id, fleet.run(cache={"mode": "off"}).id]) == ["miss", "bypass"]
    assert fleet.calls == 3


def test_refresh_runs_and_leaves_its_answer(fleet: Fleet) -> None:
    """Later jobs get the newer one."""
    old, new = fleet.run(), fleet.run(cache={"mode": "refresh"})
    assert fleet.shown([old.id, new.id]) == ["miss", "miss"]
    bench = fleet.worker("w3")
    job_id = fleet.submit()
    taken = fleet.store.run(operations.take_jobs("w3", [job_id]))
    entry = bench.cache.get([key_of(new)])[key_of(new)].entry
    assert new.outcome is not None
    assert entry.created_at == new.outcome["attempt"]["ended_at"]
    assert bench.chunks.answers.find(bench.chunks.answers.read(taken))[0].how == "hit"


def test_only_takes_what_is_there_and_pays_nothing(fleet: Fleet) -> None:
    """Otherwise it fails as `not_cached`, at once and for good."""
    missing = fleet.run(cache={"mode": "only"}, max_attempts=5)
    assert (missing.status, problem_of(missing), fleet.calls) == ("failed", "not_cached", 0)
    fleet.run()
    assert fleet.shown([fleet.run(cache={"mode": "only"}).id]) == ["hit"]
    assert fleet.calls == 1


def test_an_answer_may_be_too_old(fleet: Fleet) -> None:
    """Then the job runs, and leaves a newer one; also where only stored answers are wanted."""
    made = fleet.run()
    fleet.forget_leaders()
    old = CacheEntry({"answer": "old"}, int(time.time() * 1000) - 60_000, 5, "v1")
    fleet.first.cache.put(key_of(made), old)
    assert problem_of(fleet.run(cache={"mode": "only", "max_age_seconds": 50})) == "not_cached"
    young = fleet.run(cache={"max_age_seconds": 70})
    assert young.outcome is not None
    assert (young.outcome["cache"], young.outcome["result"]) == ("hit", {"answer": "old"})
    assert 60 <= young.outcome["cache_age_seconds"] < 70
    assert fleet.shown([fleet.run(cache={"max_age_seconds": 50}).id]) == ["miss"]
    assert fleet.shown([fleet.run(cache={"max_age_seconds": 50}).id]) == ["hit"]


def test_names_keep_answers_apart(fleet: Fleet) -> None:
    """Each namespace has its own."""
    ids = [fleet.run(cache={"namespace": name}).id for name in ("a", "b", "a", "")]
    assert fleet.shown(ids) == ["miss", "miss", "hit", "miss"]


def test_parameters_keep_answers_apart(fleet: Fleet) -> None:
    """Another temperature, another answer; none given is the model's own."""
    ids = [fleet.run(parameters=given).id for given in ({"temperature": 0.1}, {"temperature": 0.2}, {}, None)]
    ids.append(fleet.run(parameters={"temperature": 0.10}).id)
    assert fleet.shown(ids) == ["miss", "miss", "miss", "hit", "hit"]


def test_a_program_may_be_left_out(fleet: Fleet) -> None:
    """With `cache = false` its jobs go past the cache, whatever their callers ask for."""
    ids = [fleet.run(program="forgetful", cache=wish).id for wish in ({}, {"mode": "refresh"}, {"mode": "default"})]
    assert fleet.shown(ids) == ["bypass"] * 3
    assert fleet.calls == 3


def test_a_batch_says_it_for_its_jobs(fleet: Fleet) -> None:
    """What they share is read with each; a job's own wish goes over it."""
    fleet.run()
    head = operations.BatchHead("batch_1", names.queue("own"), 6, "qa", "own", 1, LIFETIMES)
    own = (b'{"inputs":{"question":"q"}}', b'{"inputs":{"question":"q"},"cache":{"mode":"off"}}')
    items = [(f"job_b{number}", raw) for number, raw in enumerate(own)]
    fleet.store.run(operations.stage_items(head, items))
    shared = b'{"cache":{"mode":"only"}}'
    assert fleet.store.run(operations.commit_batch(head, shared, 2, 100))[0] == "accepted"
    fleet.store.run(operations.release_jobs("batch_1", 0, [2]))
    ids = [job_id for job_id, _ in items]
    fleet.first.chunks.run(ids)
    assert fleet.shown(ids) == ["hit", "bypass"]
    assert fleet.calls == 2


def test_large_requests_are_read_all_the_same(fleet: Fleet) -> None:
    """Those that do not travel with the message's jobs are fetched one by one."""
    texts = ["a" * 200_000, "a" * 200_000, "b" * 300_000, "b" * 300_000, "small"]
    ids = [fleet.submit(text, "echo") for text in texts]
    brought = [len(taken.request) > 0 for taken in fleet.store.run(operations.take_jobs("w1", ids))]
    assert brought == [True, False, False, False, False]
    fleet.first.chunks.run(ids)
    assert fleet.shown(ids) == ["miss", "coalesced", "miss", "coalesced", "miss"]
    assert [job_view(fleet.first.read(job_id))["output"]["answer"] for job_id in ids] == texts


# ---- what is wrong with the cache ------------------------------------------------------------------------------


def test_an_output_that_does_not_fit_any_more_is_made_again(fleet: Fleet) -> None:
    """It is forgotten everywhere and replaced."""
    key = key_of(fleet.run())
    fleet.forget_leaders()
    fleet.first.cache.put(key, CacheEntry({"answer": ["no", "text"]}, int(time.time() * 1000), 5, "v1"))
    job = fleet.run()
    assert fleet.shown([job.id]) == ["miss"]
    assert fleet.worker("w3").cache.get([key])[key].entry.output == job_view(job)["output"]
    assert fleet.calls == 2


@pytest.mark.parametrize(
    "poison", [b"", b"DJ", b"\x00" * 100, b'{"output": {"answer": "forged"}}'], ids=["empty", "cut", "zeros", "json"]
)
def test_poisoned_bytes_are_a_miss(fleet: Fleet, cache_redis: redis.Redis, poison: bytes) -> None:
    """They are deleted, and whoever needs the answer makes it."""
    entry = names.cache_entry(key_of(fleet.run()))
    fleet.forget_leaders()
    cache_redis.set(entry, poison)
    only, default = (fleet.submit(cache={"mode": mode}) for mode in ("only", "default"))
    fleet.second.chunks.run([only])
    assert problem_of(fleet.first.read(only)) == "not_cached"
    assert not cache_redis.exists(entry)
    cache_redis.set(entry, poison)
    fleet.second.chunks.run([default])
    assert fleet.shown([default]) == ["miss"]
    assert (fleet.second.cache.counts.corrupt, fleet.calls) == (2, 2)
    assert cache_redis.get(entry) != poison


def test_a_changed_entry_is_a_miss(fleet: Fleet, cache_redis: redis.Redis) -> None:
    """One bit is enough, wherever it is."""
    entry = names.cache_entry(key_of(fleet.run()))
    fleet.forget_leaders()
    raw = cache_redis.get(entry)
    assert isinstance(raw, bytes)
    cache_redis.set(entry, raw[:-3] + bytes([raw[-3] ^ 1]) + raw[-2:])
    job_id = fleet.submit()
    fleet.second.chunks.run([job_id])
    assert fleet.shown([job_id]) == ["miss"]


@pytest.mark.parametrize("how", ["stopped", "gone", "full"])
def test_without_its_cache_every_job_succeeds(make_fleet: Callable[..., Fleet], own_redis: OwnRedis, how: str) -> None:
    """It is waited for once, not by each job; what the worker itself has made meanwhile is found in its memory."""
    more = f"[cache]\ntimeout_seconds = {TIMEOUT}\nskip_seconds = 60\n"
    fleet = make_fleet(more=more, CACHE_URL=own_redis.url)
    if how == "stopped":
        own_redis.signal(SIGSTOP)
    elif how == "gone":
        own_redis.kill()
    else:
        with redis.Redis.from_url(own_redis.url) as client:
            client.config_set("maxmemory-policy", "noeviction")
            client.config_set("maxmemory", 1)
    ids = [fleet.submit(f"q{number % 4}", "echo") for number in range(8)]
    began = time.monotonic()
    fleet.first.chunks.run(ids[:4])
    fleet.first.chunks.run(ids[4:])
    seconds = time.monotonic() - began
    assert fleet.shown(ids) == ["miss"] * 4 + ["hit"] * 4
    assert fleet.first.cache.counts.errors == 1
    assert seconds < 4 * TIMEOUT, "one wait, and the jobs themselves"


def test_followers_need_no_cache(make_fleet: Callable[..., Fleet], own_redis: OwnRedis) -> None:
    """Their leader's outcome is in the queue's Redis, so nothing is paid twice while the cache is away."""
    fleet = make_fleet("latency=0.7", f"[cache]\ntimeout_seconds = {TIMEOUT}\n", CACHE_URL=own_redis.url)
    own_redis.kill()
    leader, follower = fleet.submit(), fleet.submit()
    thread = threading.Thread(target=fleet.first.chunks.run, args=([leader],))
    thread.start()
    assert wait_until(lambda: fleet.first.read(leader).status == "running", 10)
    fleet.second.chunks.run([follower])
    thread.join()
    fleet.second.chunks.run([follower])
    assert fleet.shown([leader, follower]) == ["miss", "coalesced"]
    assert fleet.calls == 1
