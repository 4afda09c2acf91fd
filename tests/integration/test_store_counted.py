"""Totals that never go back: every ending counted once, however and whenever the books of days are folded."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any

import hypothesis.strategies as st
import orjson
import pytest
from hypothesis import HealthCheck, given, settings

from dspy_jobs import chores, names
from dspy_jobs.costs import Costs
from dspy_jobs.counted import Counted, Work
from dspy_jobs.problems import problem
from dspy_jobs.settings import BreakerSettings, BudgetSettings, ModelSettings, ProgramSettings, Settings
from dspy_jobs.states import WaitReason
from dspy_jobs.store import SyncStore, connect, gates, operations, recovery
from dspy_jobs.store.books import Bill, BilledCall, limits_of_spending
from dspy_jobs.store.counted import MOST_OPEN, fold_books, names_of, read_counted, read_fleet, read_spending
from dspy_jobs.store.flights import Answered, settle_answered
from tests.integration.store_scene import QUEUE, Scene

DAY = 86_400_000
HOUR = DAY // 24
#: Milliseconds after which a worker without a sign of life is lost, and a job too late for its start.
LOST = LATE = 60_000
BILL = Bill([BilledCall(10, 2, 4, 1, 1500), BilledCall(7, 1, None, None, None)])
#: What the bill adds to the books.
USED = Counter(calls=2, input_tokens=17, output_tokens=3, cached_input_tokens=4, reasoning_tokens=1, cost=1500)
USED["unpriced"] = 1


@pytest.fixture
def scene(store: SyncStore) -> Scene:
    """A scene at an empty store."""
    return Scene(store)


def totals(scene: Scene) -> Counted:
    """What is counted now."""
    return scene.store.run(read_counted())


def fold(scene: Scene, most_open: int = MOST_OPEN, limit: int = 1000) -> bool:
    """Fold once."""
    return scene.store.run(fold_books((), most_open, limit, scene.now))


def fold_all(scene: Scene, most_open: int = MOST_OPEN) -> None:
    """Fold until nothing is left to be folded."""
    while fold(scene, most_open):
        pass


def day_of(scene: Scene) -> str:
    """The scene's day, as keys have it."""
    return datetime.fromtimestamp(scene.now / 1000, UTC).strftime("%Y%m%d")


def flat(counted: Counted) -> Counter[tuple[str, ...]]:
    """All totals in one, without what stands in the books but in no metric."""
    shown = {"jobs", "failed", "canceled", "expired", "coalesced", *USED}
    of_work = {(*work, m): n for work, metrics in counted.of_work.items() for m, n in metrics.items() if m in shown}
    failures = {("error", *key): n for key, n in counted.failures.items()}
    attempts = {("attempts", *key): n for key, n in counted.attempts.items()}
    recovered = {("recovered", queue): n for queue, n in counted.recovered.items()}
    return +Counter({**of_work, **failures, **attempts, **recovered})


# ---- what each ending counts -----------------------------------------------------------------------------------


class Story:
    """Ends jobs in every way and keeps count of what must have been counted."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.expected = Counter[tuple[str, ...]]()
        self.booked = 0
        """Nano-dollars."""

    def end(self, ending: str, model: str, client: str) -> None:
        """A job's life, from its submission on."""
        job_id = self.scene.submit(queue=names.queue(model), model=model, client=client, program="qa")
        getattr(self, f"_{ending}")(job_id, model)

    def _count(self, model: str, *metrics: str) -> None:
        for metric in metrics:
            self.expected["qa", model, "", metric] += 1

    def _use(self, model: str) -> None:
        self.booked += 1500
        for metric, amount in USED.items():
            self.expected["qa", model, "", metric] += amount

    def _succeeded(self, job_id: str, model: str) -> None:
        assert self.scene.finish("w1", self.scene.claim("w1", job_id), bill=BILL)
        self._use(model)
        self._count(model, "jobs")

    def _failed(self, job_id: str, model: str, code: str = "server") -> None:
        outcome = orjson.dumps({"status": "FAILURE", "problem": problem(code, "x").model_dump()})
        claim = self.scene.claim("w1", job_id)
        assert self.scene.store.run(operations.finish_job("w1", claim, "failed", outcome, BILL, self.scene.now))
        self._use(model)
        self._count(model, "jobs", "failed")
        self.expected["error", model, code] += 1

    def _canceled_queued(self, job_id: str, model: str) -> None:
        self.scene.store.run(operations.cancel_job(job_id, self.scene.now))
        self._count(model, "canceled")

    def _canceled_running(self, job_id: str, model: str) -> None:
        claim = self.scene.claim("w1", job_id)
        self.scene.store.run(operations.cancel_job(job_id, self.scene.now))
        assert self.scene.finish("w1", claim, "canceled", BILL)
        self._use(model)
        self._count(model, "canceled")

    def _canceled_instead_of_retried(self, job_id: str, model: str) -> None:
        claim = self.scene.claim("w1", job_id)
        self.scene.store.run(operations.cancel_job(job_id, self.scene.now))
        assert self._later(claim, "") == "canceled"
        self._use(model)
        self._count(model, "canceled")

    def _expired(self, job_id: str, model: str) -> None:
        self.scene.take("w1", job_id)
        late = operations.claim_job("w1", job_id, "n", now_ms=self.scene.now + LATE)
        assert self.scene.store.run(late).reason == "expired"
        self._count(model, "expired")

    def _expired_unnoticed(self, job_id: str, model: str) -> None:
        late = self.scene.now + LATE
        self.scene.store.run(recovery.expire_due(1000, 0, [names.queue(model)], now_ms=late))
        self._count(model, "expired")

    def _coalesced(self, job_id: str, model: str) -> None:
        self.scene.take("w1", job_id)
        answered = [Answered(job_id, b"{}", "coalesced", 1)]
        assert self.scene.store.run(settle_answered("w1", answered, b"{}", self.scene.now)) == ["finished"]
        self._count(model, "jobs", "coalesced")

    def _retried(self, job_id: str, model: str) -> None:
        assert self._later(self.scene.claim("w1", job_id), "") == "delayed"
        self.scene.store.run(operations.wake_delayed(now_ms=self.scene.now))
        self._use(model)
        self.expected["attempts", model, "retried"] += 1
        self._succeeded(job_id, model)

    def _fell_back(self, job_id: str, model: str) -> None:
        assert self._later(self.scene.claim("w1", job_id), "spare") == "delayed"
        self.scene.store.run(operations.wake_delayed(now_ms=self.scene.now))
        self._use(model)
        self.expected["attempts", model, "fell_back"] += 1
        self._succeeded(job_id, "spare")

    def _later(self, claim: Any, model: str) -> str:
        later = operations.retry_later("w1", claim, b"{}", 0, "w", BILL, fall_back_to=model, now_ms=self.scene.now)
        return self.scene.store.run(later)

    def _recovered(self, job_id: str, model: str) -> None:
        self.scene.claim("w1", job_id)
        self._lose_worker()
        self.expected["attempts", model, "recovered"] += 1
        self.expected["recovered", names.queue(model)] += 1
        self._succeeded(job_id, model)

    def _recovered_unstarted(self, job_id: str, model: str) -> None:
        self.scene.take("w1", job_id)
        self._lose_worker()
        self.expected["recovered", names.queue(model)] += 1
        self._succeeded(job_id, model)

    def _surrendered(self, job_id: str, model: str) -> None:
        self.scene.claim("w1", job_id)
        self.scene.store.run(recovery.surrender_jobs("w1", now_ms=self.scene.now))
        self.expected["attempts", model, "recovered"] += 1
        self._succeeded(job_id, model)

    def _lost_for_good(self, job_id: str, model: str) -> None:
        self.scene.claim("w1", job_id)
        self._lose_worker(most=1)
        self._count(model, "jobs", "failed")
        self.expected["error", model, "worker_lost"] += 1

    def _lose_worker(self, most: int = 9) -> None:
        self.scene.store.redis.zadd(names.WORKERS, {"w1": 1})  # whichever way the clock was set meanwhile
        self.scene.store.redis.delete(names.WATCH)
        self.scene.store.run(operations.recover_lost(most, now_ms=self.scene.now + LOST))


ENDINGS = [name[1:] for name in vars(Story) if name.startswith("_") and name[1:].isidentifier()]
ENDINGS = [
    name for name in ENDINGS if not name.startswith("_") and name not in ("count", "use", "later", "lose_worker")
]


@pytest.mark.parametrize("ending", ENDINGS)
def test_each_ending_is_counted_once(scene: Scene, ending: str) -> None:
    """As what it is; folding moves nothing but the place where it stands."""
    story = Story(scene)
    story.end(ending, "fast", "acme")
    assert flat(totals(scene)) == story.expected
    scene.now += DAY
    fold_all(scene)
    assert flat(totals(scene)) == story.expected


def test_variants_and_programs_are_told_apart(scene: Scene) -> None:
    """Clients are not."""
    for variant, client in (("a", "acme"), ("a", "default"), ("b", "acme")):
        scene.run(scene.submit(program="split", model="m", variant=variant, client=client))
    scene.store.run(operations.cancel_job(scene.submit(program="split", model="m", variant="b"), scene.now))
    found = totals(scene).of_work
    a, b = Work("split", "m", "a"), Work("split", "m", "b")
    assert (found[a]["jobs"], found[b]["jobs"], found[b]["canceled"]) == (2, 1, 1)


@pytest.mark.parametrize("outcome", [b"no JSON", b"[]", b'{"problem":7}', b'{"problem":{"code":"a|b"}}', b"{}"])
def test_a_failure_without_a_code_is_counted_all_the_same(scene: Scene, outcome: bytes) -> None:
    """An outcome nobody can read must not stop a job from ending."""
    claim = scene.claim("w1", scene.submit())
    assert scene.store.run(operations.finish_job("w1", claim, "failed", outcome, Bill(), scene.now))
    assert totals(scene).failures == {("fast", "other"): 1}


# ---- nothing lost, nothing twice, never back -------------------------------------------------------------------

steps = st.one_of(
    st.tuples(st.just("end"), st.sampled_from(ENDINGS), st.sampled_from(["fast", "slow"]), st.sampled_from("xyz")),
    st.tuples(st.just("wait"), st.sampled_from([HOUR, DAY, 3 * DAY, 500 * DAY, -2 * DAY])),
    st.tuples(st.just("fold"), st.sampled_from([0, MOST_OPEN]), st.integers(1, 3)),
    st.tuples(st.just("forget")),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(told=st.lists(steps, max_size=25), kept_days=st.integers(1, 400))
def test_totals_are_exact_at_every_moment(scene: Scene, told: list[tuple[Any, ...]], kept_days: int) -> None:
    """Whatever ends on whatever day, also when the clock is set back, books are folded half, or never, or forgotten."""
    scene.store.redis.flushdb()
    scene.now = 2_000_000_000_000
    scene.store.redis.hset(names.BUDGETS, "kept", kept_days * DAY)
    story, before = Story(scene), Counter[tuple[str, ...]]()
    with small_hashes(scene.store):
        for what, *more in told:
            if what == "end":
                story.end(*more)
            elif what == "wait":
                scene.now += more[0]
            elif what == "fold":
                fold(scene, *more)
            else:
                forget_closed_books(scene)
            found = flat(totals(scene))
            assert found == story.expected
            assert all(found[name] >= amount for name, amount in before.items())
            before = found
        scene.now = 4_000_000_000_000
        fold_all(scene)
        assert flat(totals(scene)) == story.expected
        assert not scene.store.redis.keys("dj:costs:????????")


@contextmanager
def small_hashes(store: SyncStore) -> Iterator[None]:
    """Let every hash be a table: of a smaller one a scan takes all entries at once."""
    (before,) = store.redis.config_get("hash-max-ziplist-entries").values()
    store.redis.config_set("hash-max-ziplist-entries", 0)
    try:
        yield
    finally:
        store.redis.config_set("hash-max-ziplist-entries", before)


def forget_closed_books(scene: Scene) -> None:
    """Their time is over; only theirs: whatever is not folded has no lifetime."""
    for key in scene.store.redis.keys("dj:costs:*"):
        if key.endswith(b":closed"):
            assert scene.store.redis.pttl(key) > 0
            scene.store.redis.delete(key)
        else:
            assert scene.store.redis.pttl(key) == -1
            assert scene.store.redis.sismember(names.OPEN_BOOKS, key.removeprefix(b"dj:costs:"))


def test_a_scrape_in_the_midst_of_a_fold_sees_everything_once(scene: Scene) -> None:
    """So do the costs, which tell clients apart, from what is open and what is closed together."""
    story, rounds = Story(scene), 0
    with small_hashes(scene.store):
        for number in range(40):
            story.end("succeeded", "fast", f"client{number}")
        scene.now += DAY
        while fold(scene, limit=20):
            rounds += 1
            assert flat(totals(scene)) == story.expected
            assert costs(scene) == (40, story.booked)
    assert rounds > 10
    assert costs(scene) == (40, story.booked)


def costs(scene: Scene) -> tuple[int, int]:
    """Clients in the books of all days, and what they have spent."""
    found = Costs(("client",))
    for key in scene.store.redis.keys("dj:costs:*"):
        found.add(datetime.now(UTC).date(), scene.store.redis.hgetall(key))
    return len(found.rows()), found.total()["cost_nanos"]


def test_many_fold_at_once_while_jobs_end(scene: Scene, redis_url: str) -> None:
    """Each process folds as often as it likes, of today's books too."""
    stories = [Story(Scene(SyncStore(connect(redis_url)))) for _ in range(2)]
    stories[1].scene._serial = itertools.count(5000)  # ids of its own
    is_over = threading.Event()

    def fold_on() -> None:
        with connect(redis_url) as client:
            own = Scene(SyncStore(client))
            while not is_over.is_set():
                fold(own, most_open=0, limit=3)

    def end_jobs(story: Story, model: str) -> None:
        for number in range(150):
            story.end("failed" if number % 3 else "succeeded", model, f"client{number % 5}")

    folding = [threading.Thread(target=fold_on) for _ in range(3)]
    ending = [threading.Thread(target=end_jobs, args=(s, m)) for s, m in zip(stories, ("fast", "slow"), strict=True)]
    for thread in (*folding, *ending):
        thread.start()
    for thread in ending:
        thread.join()
    is_over.set()
    for thread in folding:
        thread.join()
    for story in stories:
        story.scene.store.redis.close()
    expected = stories[0].expected + stories[1].expected
    assert flat(totals(scene)) == expected
    fold_all(scene, most_open=0)
    assert flat(totals(scene)) == expected
    assert costs(scene) == (5, sum(story.booked for story in stories))


def test_a_full_redis_loses_nothing_of_a_fold(scene: Scene) -> None:
    """Folding begins by freeing, so it goes on; what could not go on would be left as it was."""
    story = Story(scene)
    story.end("succeeded", "fast", "acme")
    day = day_of(scene)
    scene.now += DAY
    scene.store.redis.config_set("maxmemory", 1)
    try:
        scene.store.run(fold_books(["model fast"], now_ms=scene.now))
    finally:
        scene.store.redis.config_set("maxmemory", 0)
    assert flat(totals(scene)) == story.expected
    assert scene.store.redis.hlen(names.closed_costs(day)) > 0
    assert scene.store.redis.smembers(names.OPEN_BOOKS) == set()


def test_sums_are_exact_to_64_bits(scene: Scene) -> None:
    """Beyond what a double holds; one that would not fit stays as it is and stops nothing."""
    large, day = 2**53 + 1, day_of(scene)
    open_books = {"m||qa|x|cost": large, "m||qa|y|cost": 2, "m||qa|x|calls": 2**63 - 1, "m||qa|y|calls": 1}
    scene.store.redis.hset(names.costs(day), mapping=open_books)
    scene.now += DAY
    fold_all(scene)
    found = totals(scene).of_work[Work("qa", "m", "")]
    assert found["cost"] == large + 2
    assert found["calls"] in (2**63 - 1, 1)
    assert not scene.store.redis.exists(names.costs(day))


def test_books_that_an_older_version_began_are_folded(scene: Scene) -> None:
    """Nobody has put them on the list; nothing of them is left behind."""
    scene.store.redis.hset(names.costs(day_of(scene)), "m||qa|x|jobs", 3)
    fold(scene)
    scene.now += DAY
    fold(scene)
    assert totals(scene).of_work[Work("qa", "m", "")]["jobs"] == 3


def test_a_field_of_a_newer_version_is_passed_over(scene: Scene) -> None:
    """In a rolling update an old process reads what a new one counts."""
    scene.store.redis.hset(names.COUNTED, mapping={"new|thing": 1, "a|b|c|d|e|f": 1, "error|m|server": 2})
    assert flat(totals(scene)) == {("error", "m", "server"): 2}


# ---- what it costs ---------------------------------------------------------------------------------------------


def touched(scene: Scene, act: Any) -> list[str]:
    """The commands Redis ran meanwhile, as text."""
    with scene.store.redis.monitor() as monitor:
        act()
        scene.store.redis.echo("that is all")
        found = []
        for command in monitor.listen():
            found.append(str(command["command"]))
            if "that is all" in found[-1]:
                return found
    raise AssertionError


def test_a_job_that_succeeds_costs_no_command_for_its_totals(scene: Scene) -> None:
    """But for the first of a day, which puts the day's books on the list."""
    first, second, failing = (scene.submit() for _ in range(3))

    def run(job_id: str, status: str = "succeeded") -> str:
        claim = scene.claim("w1", job_id)
        return " ".join(touched(scene, lambda: scene.finish("w1", claim, status, BILL)))

    assert names.OPEN_BOOKS in run(first)
    again = run(second)
    assert names.costs(day_of(scene)) in again
    assert all(key not in again for key in (names.OPEN_BOOKS, names.COUNTED, names.KNOWN_NAMES, "PTTL"))
    assert run(failing, "failed").count(names.COUNTED) == 1


def commands(scene: Scene) -> dict[str, int]:
    """How often reading the totals made Redis run each command."""
    scene.store.run(read_counted())
    scene.store.redis.config_resetstat()
    scene.store.run(read_counted())
    stats = scene.store.redis.info("commandstats")
    return {name: stat["calls"] for name, stat in stats.items() if name != "cmdstat_config|resetstat"}


def test_reading_costs_the_same_for_any_number_of_jobs_and_days(scene: Scene) -> None:
    """The books of past days are folded, so a scrape reads those of one day or two."""
    scene.run(scene.submit())
    few = commands(scene)
    for _ in range(30):
        for _ in range(3):
            scene.run(scene.submit())
        scene.now += DAY
        fold_all(scene)
    scene.run(scene.submit())
    assert commands(scene) == few
    assert totals(scene).of_work[Work("qa", "fast", "")]["jobs"] == 92


def test_today_s_books_are_folded_when_there_are_many_clients(scene: Scene) -> None:
    """Else a scrape would read every client's."""
    entries = {f"m||qa|client{number}|calls": 1 for number in range(MOST_OPEN)}
    scene.store.redis.hset(names.costs(day_of(scene)), mapping=entries)
    fold_all(scene)
    assert scene.store.redis.hlen(names.costs(day_of(scene))) == MOST_OPEN
    scene.store.redis.hset(names.costs(day_of(scene)), "m||qa|one more|calls", 1)
    fold_all(scene)
    assert scene.store.redis.hlen(names.costs(day_of(scene))) < MOST_OPEN
    assert totals(scene).of_work[Work("qa", "m", "")]["calls"] == MOST_OPEN + 1


# ---- names -----------------------------------------------------------------------------------------------------


def test_names_stay_known(store: SyncStore) -> None:
    """Housekeeping writes down what is configured; what is configured no more is known all the same."""
    model = ModelSettings(model="openai/x")
    arms = {"a": {}, "b": {}}
    before = Settings(
        default_model="m", models={"m": model}, programs={"p": ProgramSettings(signature="a -> b", variants=arms)}
    )
    after = Settings(default_model="n", models={"n": model})
    for configuration in (before, after):
        store.follow(chores.fold(configuration))
    known = {name.decode() for name in store.redis.smembers(names.KNOWN_NAMES)}
    assert known == {"model m", "model n", "program p", "program p|a", "program p|b"} == {*names_of(before), "model n"}


# ---- gauges ----------------------------------------------------------------------------------------------------


def test_circuits_and_workers_are_read(scene: Scene) -> None:
    """A circuit's state whatever else closes the queue; workers that live, and those that drain."""
    scene.store.run(operations.renew_worker("w1", 10, b"{}", [QUEUE], scene.now))
    scene.store.run(operations.renew_worker("w2", 10, b'{"draining":true}', [], scene.now))
    scene.store.run(operations.renew_worker("gone", 10, b'{"draining":true}', [QUEUE], scene.now - LOST))
    breaker = BreakerSettings(reset_seconds=30)
    read = partial(read_fleet, [QUEUE, "dspy.slow"])

    def state() -> str:
        return scene.store.run(read(scene.now)).circuits[QUEUE]

    found = scene.store.run(read(scene.now))
    assert (found.workers, found.draining) == ({QUEUE: 1, "dspy.slow": 0}, 1)
    assert found.circuits == {QUEUE: "closed", "dspy.slow": "closed"}
    scene.store.run(gates.close_gate(QUEUE, WaitReason.PAUSED, now_ms=scene.now))
    scene.store.run(gates.report_calls("fast", breaker, 0, 1, fatal=True, now_ms=scene.now))
    assert state() == "open"
    scene.now += 30_000
    assert state() == "half_open"
    scene.store.run(gates.open_gate(QUEUE, WaitReason.CIRCUIT_OPEN))
    assert state() == "closed"


def test_spending_is_read_of_those_with_a_budget(scene: Scene) -> None:
    """And of all together; of the day and the month of the moment."""
    budgets = BudgetSettings(day_usd=1, clients={"acme": {"month_usd": 2}})
    scene.store.redis.hset(names.BUDGETS, mapping=limits_of_spending(Settings(budgets=budgets)))
    for client in ("acme", "nobody"):
        scene.finish("w1", scene.claim("w1", scene.submit(client=client)), bill=BILL)
    found = scene.store.run(read_spending(scene.now))
    assert found.spent == {"day": {"*": 3000, "acme": 1500}, "month": {"*": 3000, "acme": 1500}}
    assert (found.limits["day *"], found.limits["month acme"]) == (10**9, 2 * 10**9)
    tomorrow = scene.store.run(read_spending(scene.now + DAY))
    assert (tomorrow.spent["day"]["*"], tomorrow.spent["month"]["*"]) == (0, 3000)
