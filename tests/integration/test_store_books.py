"""What was spent: each call booked once, in the books of its day, against budgets and its batch's limits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import hypothesis.strategies as st
import orjson
import pytest
from hypothesis import HealthCheck, given, settings

from dspy_jobs import names
from dspy_jobs.settings import Settings
from dspy_jobs.states import WaitReason
from dspy_jobs.store import SyncStore, gates, operations, recovery
from dspy_jobs.store.books import Bill, BilledCall, Booked, limits_of_spending, record_calls
from dspy_jobs.store.counted import fold_books
from dspy_jobs.store.flights import Answered, send_waiting, settle_answered
from dspy_jobs.store.operations import EXPIRED, BatchLimits
from dspy_jobs.store.records import Claim, NotClaimed
from dspy_jobs.store.script import script
from dspy_jobs.views import job_view
from tests.integration.store_scene import LIFETIMES, QUEUE, Scene
from tests.integration.test_store_limits import limited

DAY = 86_400_000
#: Milliseconds after which a worker without a sign of life is lost.
LOST = 20_000


@pytest.fixture
def scene(store: SyncStore) -> Scene:
    """A scene at an empty store."""
    return Scene(store)


def day_of(now: int) -> str:
    """The day of a time, as keys have it."""
    return datetime.fromtimestamp(now / 1000, UTC).strftime("%Y%m%d")


def books(scene: Scene, whose: str = "fast||qa|default", day: str = "") -> dict[str, int]:
    """What stands in the books of a day, by default that of the scene, by metric; zeros left out."""
    raw = scene.store.redis.hgetall(names.costs(day or day_of(scene.now)))
    found = {name.decode().rpartition("|"): int(value) for name, value in raw.items()}
    return {metric: value for (owner, _, metric), value in found.items() if owner == whose and value}


def spent(scene: Scene, who: str = "*", period: str = "") -> int:
    """What was spent in a day or month, by default the scene's day."""
    return int(scene.store.redis.hget(names.spent(period or day_of(scene.now)), who) or 0)


def call(cost: int | None, tokens: int | None = 1, is_estimated: bool = False) -> BilledCall:
    """One call."""
    return BilledCall(tokens, tokens, None, None, cost, is_estimated)


def costing(*costs: int | None) -> Bill:
    """A whole bill of calls that cost so much."""
    return Bill([call(cost) for cost in costs])


def record(scene: Scene, claim: Claim, bill: Bill, so_far: bytes = b"{}") -> Booked:
    """Book calls of a running attempt."""
    return scene.store.run(record_calls("w1", claim, bill, so_far, scene.now))


def allow(scene: Scene, **budgets: object) -> None:
    """Publish budgets as a worker does."""
    limits = limits_of_spending(Settings(budgets=budgets))
    scene.store.redis.delete(names.BUDGETS)
    scene.store.redis.hset(names.BUDGETS, mapping=limits)


def nanos_allowed(scene: Scene, **limits: int) -> None:
    """Publish budgets in nano-dollars, `day_all=5`."""
    named = {name.replace("_", " ").replace("all", "*"): limit for name, limit in limits.items()}
    scene.store.redis.delete(names.BUDGETS)
    scene.store.redis.hset(
        names.BUDGETS, mapping={"kept": 400 * DAY, "limits": len(named), f"queue {QUEUE}": 0, **named}
    )


def try_start(scene: Scene, job_id: str, worker: str = "w1") -> Claim | NotClaimed:
    """Claim a job, taken if it waits."""
    scene.take(worker, job_id)
    return scene.store.run(operations.claim_job(worker, job_id, scene.new("nonce"), now_ms=scene.now))


# ---- once ------------------------------------------------------------------------------------------------------

maybe = st.one_of(st.none(), st.integers(0, 10**12))
calls = st.builds(BilledCall, maybe, maybe, maybe, maybe, maybe, st.booleans())
#: Up to where a booking goes, and where it begins before what is booked.
bookings = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), max_size=6)
endings = st.sampled_from(["succeeded", "failed", "canceled", "later", "fallen back", "lost"])


def summed(calls: Sequence[BilledCall]) -> dict[str, int]:
    """What the books must say of calls."""
    sums = Counter[str](calls=len(calls))
    for one in calls:
        sums["input_tokens"] += one.input_tokens or 0
        sums["output_tokens"] += one.output_tokens or 0
        sums["cached_input_tokens"] += one.cached_input_tokens or 0
        sums["reasoning_tokens"] += one.reasoning_tokens or 0
        sums["cost"] += one.cost_nanos or 0
        sums["unpriced"] += one.cost_nanos is None
        sums["untokened"] += None in (one.input_tokens, one.output_tokens)
        sums["estimated"] += one.is_estimated
    return {metric: amount for metric, amount in sums.items() if amount}


def _end(scene: Scene, claim: Claim, ending: str, bill: Bill) -> None:
    """End an attempt, twice, as if the first answer had been lost."""
    for _ in range(2):
        if ending == "lost":
            scene.now += LOST
            scene.store.run(operations.recover_lost(99, now_ms=scene.now))
        elif ending in ("later", "fallen back"):
            model = "slow" if ending == "fallen back" else ""
            later = operations.retry_later("w1", claim, b"{}", 0, "w", bill, fall_back_to=model, now_ms=scene.now)
            scene.store.run(later)
        else:
            scene.finish("w1", claim, ending, bill)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(attempts=st.lists(st.tuples(st.lists(calls, max_size=8), bookings, endings), min_size=1, max_size=3))
def test_each_call_is_booked_once(
    scene: Scene, attempts: list[tuple[list[BilledCall], list[tuple[int, int]], str]]
) -> None:
    """However bookings overlap, repeat or come too late, whatever became of each attempt."""
    scene.store.redis.flushdb()
    batch_id, ids = scene.batch(1)
    expected, models, last = list[BilledCall](), {"fast"}, None
    for made, booked_at, ending in attempts:
        claim = try_start(scene, ids[0])
        if not isinstance(claim, Claim):
            break
        models.add(claim.model)
        booked = 0
        for to, back in booked_at:
            first = max(1, booked + 1 - back)
            assert record(scene, claim, Bill(made[first - 1 : to], first)) == "booked"
            booked = max(booked, min(to, len(made)))
        if last:
            assert record(scene, last, Bill(made)) == "stale"
        _end(scene, claim, ending, Bill(made))
        assert record(scene, claim, Bill(made)) == "stale"
        expected += made[:booked] if ending == "lost" else made
        scene.store.run(operations.wake_delayed(now_ms=scene.now))
        last = claim
    found = Counter[str]()
    for model in models:
        found.update(books(scene, f"{model}||qa|default"))
    ended = ("jobs", "failed", "lost", "ran")
    sums = summed(expected)
    assert {metric: amount for metric, amount in found.items() if metric not in ended} == sums
    assert spent(scene) == spent(scene, "default") == spent(scene, period=day_of(scene.now)[:6]) == sums.get("cost", 0)
    fields = scene.read_batch(batch_id).fields
    for metric in ("calls", "input_tokens", "output_tokens", "cost", "untokened"):
        assert int(fields.get(metric, 0)) == sums.get(metric, 0), metric
    assert int(fields.get("unpriced", 0)) == sums.get("unpriced", 0) + found["lost"]


def test_what_is_not_known_is_counted_apart(scene: Scene) -> None:
    """It is not zero: unknown costs and tokens are told, those counted here, too."""
    bill = Bill([call(5), call(None), call(7, tokens=None), BilledCall(3, None, 2, 1, 0, True)])
    scene.finish("w1", scene.claim("w1", scene.submit()), bill=bill)
    assert books(scene) == {
        "calls": 4, "input_tokens": 5, "output_tokens": 2, "cached_input_tokens": 2, "reasoning_tokens": 1,
        "cost": 12, "unpriced": 1, "untokened": 2, "estimated": 1, "jobs": 1, "ran": 1,
    }  # fmt: skip


def test_books_tell_model_variant_program_and_client_apart(scene: Scene) -> None:
    """What a job spent before it fell back stands under the model it left; ended jobs under the one they ended on."""
    claim = scene.claim("w1", scene.submit(variant="b", client="c"))
    later = operations.retry_later("w1", claim, b"{}", 0, "w", costing(3), fall_back_to="slow", now_ms=scene.now)
    scene.store.run(later)
    scene.store.run(operations.wake_delayed(now_ms=scene.now))
    scene.finish("w1", scene.claim("w1", claim.id), "failed", costing(4))
    assert books(scene, "fast|b|qa|c")["cost"] == 3
    slow = books(scene, "slow|b|qa|c")
    assert (slow["cost"], slow["jobs"], slow["failed"]) == (4, 1, 1)
    assert "jobs" not in books(scene, "fast|b|qa|c")


def test_answers_made_before_are_counted_without_calls(scene: Scene) -> None:
    """As hits or coalesced, with what they saved where that is known."""
    ids = [scene.submit() for _ in range(3)]
    scene.take("w1", *ids)
    outcome = b'{"status":"SUCCESS"}'
    answered = [
        Answered(job_id, outcome, how, saved)
        for job_id, how, saved in zip(ids, ("hit", "hit", "coalesced"), (9, None, 8), strict=True)
    ]
    scene.store.run(settle_answered("w1", answered, EXPIRED, scene.now))
    assert books(scene) == {"jobs": 3, "hit": 2, "coalesced": 1, "saved": 17, "unsaved": 1}
    assert spent(scene) == 0


def test_only_jobs_that_ran_are_counted_as_ended(scene: Scene) -> None:
    """Canceled and expired ones are none of the books' business."""
    canceled, expired = scene.submit(), scene.submit()
    scene.store.run(operations.cancel_job(canceled, scene.now))
    scene.now += LIFETIMES.expires_in
    assert try_start(scene, expired) == NotClaimed("expired")
    assert books(scene) == {}


def test_a_lost_attempt_shows_what_is_known_of_it(scene: Scene) -> None:
    """What it had booked is the least it used; what the next attempt books is not shown with it."""
    claim = scene.claim("w1", scene.submit())
    so_far = {"usage": {"input_tokens": 1, "output_tokens": 1, "calls": 1}, "cost_usd": 0.5, "replayed": 2}
    assert record(scene, claim, costing(500_000_000), orjson.dumps(so_far)) == "booked"
    scene.now += LOST
    scene.store.run(operations.recover_lost(9, now_ms=scene.now))
    shown = job_view(scene.job(claim.id))["attempts"][0]
    assert shown["at_least"]["cost_usd"] == 0.5
    assert (shown["at_least"]["usage"]["calls"], shown["replayed"], shown["cost_usd"]) == (1, 2, None)
    scene.claim("w1", claim.id)
    scene.now += LOST
    scene.store.run(operations.recover_lost(9, now_ms=scene.now))
    assert "at_least" not in scene.job(claim.id).attempts[1]
    assert books(scene)["lost"] == 2


def test_sums_beyond_64_bits_stop_nothing(scene: Scene) -> None:
    """A sum that is full stays as it is; the job ends all the same, is counted and announced."""
    batch_id, ids = scene.batch(1)
    full = 2**63 - 1
    scene.store.redis.hset(names.costs(day_of(scene.now)), "fast||qa|default|cost", full)
    scene.store.redis.expire(names.costs(day_of(scene.now)), 1000)
    for key in (names.spent(day_of(scene.now)), names.spent(day_of(scene.now)[:6])):
        scene.store.redis.hset(key, "*", full)
        scene.store.redis.expire(key, 1000)
    scene.store.redis.hset(names.batch(batch_id), "input_tokens", full)
    claim = scene.claim("w1", ids[0])
    assert record(scene, claim, Bill([BilledCall(10**30, 1, None, None, 10**25)])) == "booked"
    assert scene.finish("w1", claim, bill=Bill([BilledCall(10**30, 1, None, None, 10**25), call(1)]))
    assert scene.read_batch(batch_id).status == "ended"
    found = books(scene)
    assert (found["cost"], found["jobs"], found["calls"], spent(scene)) == (full, 1, 2, full)
    assert scene.read_batch(batch_id).fields["input_tokens"] == str(full)


# ---- dates and lifetimes ---------------------------------------------------------------------------------------


def _lua_dates(store: SyncStore, times: list[int]) -> list[tuple[int, int, int]]:
    shared = script("record_calls").text.partition("-- Book calls of an attempt that still runs.")[0]
    body = "local out = {} for _, t in ipairs(ARGV) do out[#out + 1] = {date_of(tonumber(t))} end return out"
    return [tuple(date) for date in store.redis.eval(shared + body, 0, *times)]


def _python_date(ms: int) -> tuple[int, int, int]:
    date = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)
    return date.year, date.month, date.day


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(times=st.lists(st.integers(0, 230 * 366 * DAY), min_size=1, max_size=50))
def test_dates_are_the_calendars(store: SyncStore, times: list[int]) -> None:
    """From 1970 to 2200."""
    assert _lua_dates(store, times) == [_python_date(ms) for ms in times]


def test_dates_change_at_midnight_of_every_day(store: SyncStore) -> None:
    """Each month's and year's ends, leap years and those that are none."""
    days = range(0, 231 * 366, 1)
    for part in range(0, len(days), 5000):
        edges = [day * DAY + off for day in days[part : part + 5000] for off in (0, DAY - 1)]
        assert _lua_dates(store, edges) == [_python_date(ms) for ms in edges]


@pytest.mark.parametrize(
    ("before", "after"),
    [("20280228", "20280229"), ("20280229", "20280301"), ("20270228", "20270301"), ("20321231", "20330101")],
)
def test_each_day_has_its_own_books(scene: Scene, before: str, after: str) -> None:
    """Two calls of an attempt, one on each side of midnight UTC."""
    midnight = int(datetime.strptime(after, "%Y%m%d").replace(tzinfo=UTC).timestamp() * 1000)
    scene.now = midnight - 1
    claim = scene.claim("w1", scene.submit())
    record(scene, claim, costing(3))
    scene.now = midnight
    scene.finish("w1", claim, bill=costing(3, 4))
    assert [books(scene, day=day)["cost"] for day in (before, after)] == [3, 4]
    assert [spent(scene, period=day) for day in (before, after)] == [3, 4]
    months = {before[:6]: 3} | {after[:6]: 4} if before[:6] != after[:6] else {after[:6]: 7}
    assert {month: spent(scene, period=month) for month in months} == months


@pytest.mark.parametrize(("budgets", "kept"), [({}, 400 * DAY), ({"kept": 3 * DAY}, 3 * DAY)])
def test_books_have_a_lifetime_of_their_own(scene: Scene, budgets: dict[str, int], kept: int) -> None:
    """Counted from their first entry, which later ones do not renew, or from when they were closed."""
    if budgets:
        scene.store.redis.hset(names.BUDGETS, mapping=budgets)
    day = day_of(scene.now)
    keys = [names.spent(day), names.spent(day[:6])]
    scene.finish("w1", scene.claim("w1", scene.submit()), bill=costing(1))
    assert [scene.lifetime(key) for key in keys] == [kept] * 2
    for key in keys:
        scene.store.redis.pexpire(key, 5000)
    scene.finish("w1", scene.claim("w1", scene.submit()), bill=costing(1))
    assert [scene.lifetime(key) for key in keys] == [5000] * 2
    assert scene.store.redis.ttl(names.costs(day)) == -1
    scene.store.run(fold_books(now_ms=scene.now + DAY))
    assert not scene.store.redis.exists(names.costs(day))
    assert scene.lifetime(names.closed_costs(day)) == kept


# ---- budgets of all --------------------------------------------------------------------------------------------


def gate(scene: Scene) -> tuple[str, datetime] | None:
    """Why the queue is closed and until when."""
    found = scene.store.run(operations.read_queues([QUEUE], scene.now))[0].gate
    if found is None:
        return None
    assert found.until is not None
    return found.reason, datetime.fromtimestamp(found.until / 1000, UTC)


@pytest.mark.parametrize(
    ("at", "budgets", "until"),
    [
        ("2028-02-28T13:00", {"day_usd": 1}, "2028-02-29"),
        ("2028-12-31T23:59", {"day_usd": 1}, "2029-01-01"),
        ("2028-02-03T00:00", {"month_usd": 1}, "2028-03-01"),
        ("2028-12-31T23:59", {"month_usd": 1}, "2029-01-01"),
        ("2028-02-03T00:00", {"day_usd": 1, "month_usd": 1}, "2028-03-01"),
        ("2028-02-03T00:00", {"day_usd": 1, "month_usd": 100}, "2028-02-04"),
    ],
)
def test_a_used_up_budget_closes_every_queue_until_there_is_a_new_one(
    scene: Scene, at: str, budgets: dict[str, float], until: str
) -> None:
    """The day's ends at midnight UTC, the month's with its last day."""
    scene.now = int(datetime.fromisoformat(at + "+00:00").timestamp() * 1000)
    allow(scene, **budgets)
    scene.finish("w1", scene.claim("w1", scene.submit()), bill=costing(10**9))
    ends = datetime.fromisoformat(until).replace(tzinfo=UTC)
    assert gate(scene) == ("budget_exhausted", ends)
    refused = try_start(scene, scene.submit())
    assert isinstance(refused, NotClaimed)
    assert (refused.reason, refused.gate) == ("gated", "budget_exhausted")
    assert refused.seconds == (ends.timestamp() * 1000 - scene.now) / 1000
    scene.now = int(ends.timestamp() * 1000)
    assert gate(scene) is None
    scene.claim("w1", scene.submit())


def test_a_budget_of_nothing_lets_nothing_run(scene: Scene) -> None:
    """Zero is a limit, unlike none at all."""
    allow(scene, day_usd=0)
    refused = try_start(scene, scene.submit())
    assert isinstance(refused, NotClaimed)
    assert refused.gate == "budget_exhausted"


def test_what_runs_is_reckoned_at_its_mean_cost(scene: Scene) -> None:
    """No more jobs start than the budget has room for; when they cost less than that, more do."""
    nanos_allowed(scene, day_all=100)
    scene.finish("w1", scene.claim("w1", scene.submit()), bill=costing(30))
    running = [scene.claim("w1", scene.submit()) for _ in range(2)]
    assert gate(scene) is not None, "30 are spent, 60 are under way, and 30 more would be too much"
    scene.finish("w1", running[0], bill=costing(0))
    assert gate(scene) is None
    scene.claim("w1", scene.submit())


def test_the_mean_cost_is_that_of_whole_jobs(scene: Scene) -> None:
    """Also of calls that were booked while the job ran."""
    claim = scene.claim("w1", scene.submit())
    record(scene, claim, costing(10, 20))
    scene.finish("w1", claim, bill=costing(10, 20, 30))
    assert scene.store.redis.hget(names.queue_numbers(QUEUE), "mean_cost") == b"60"


def test_a_cost_that_is_not_known_changes_no_mean(scene: Scene) -> None:
    """Wherever in the job it was."""
    scene.finish("w1", scene.claim("w1", scene.submit()), bill=costing(30))
    claim = scene.claim("w1", scene.submit())
    record(scene, claim, costing(None))
    scene.finish("w1", claim, bill=costing(None, 500))
    assert scene.store.redis.hget(names.queue_numbers(QUEUE), "mean_cost") == b"30"


def test_raising_or_taking_away_a_budget_opens(scene: Scene) -> None:
    """At once, for nothing is kept of its having been used up."""
    nanos_allowed(scene, day_all=10)
    scene.finish("w1", scene.claim("w1", scene.submit()), bill=costing(10))
    assert gate(scene) is not None
    nanos_allowed(scene, day_all=20)
    assert gate(scene) is None
    nanos_allowed(scene, day_all=10, month_all=10)
    assert gate(scene) is not None
    nanos_allowed(scene)
    assert gate(scene) is None


# ---- budgets of clients ----------------------------------------------------------------------------------------


def spend_all(scene: Scene, client: str, cost: int) -> None:
    """Have a client's job cost so much."""
    scene.finish("w1", scene.claim("w1", scene.submit(client=client)), bill=costing(cost))


def test_a_clients_budget_parks_its_jobs_alone(scene: Scene) -> None:
    """They say until when; those of others run, and the queue is open. Raised, the budget sends them again."""
    nanos_allowed(scene, day_a=50)
    spend_all(scene, "a", 60)
    parked, other = scene.submit(client="a"), scene.submit(client="b")
    assert try_start(scene, parked) == NotClaimed("parked")
    assert isinstance(try_start(scene, other), Claim)
    assert (gate(scene), scene.held("w1"), scene.waiting()) == (None, {other}, [])
    job = scene.job(parked)
    midnight = -(-scene.now // DAY) * DAY
    assert (job.status, job.fields["wait"], int(job.fields["until"])) == ("queued", "budget_exhausted", midnight)
    assert scene.store.run(send_waiting(scene.now)) == 0
    assert scene.waiting() == []
    nanos_allowed(scene, day_a=70)
    assert scene.store.run(send_waiting(scene.now)) == 0, "one more would cost 60"
    assert scene.waiting() == []
    nanos_allowed(scene, day_a=120)
    scene.store.run(send_waiting(scene.now))
    assert scene.waiting() == [parked]
    assert not {"wait", "until", "parked"} & scene.job(parked).fields.keys()
    assert not scene.store.redis.exists(names.WAITING_CLIENTS, names.client_parked("a"))
    assert isinstance(try_start(scene, parked), Claim)


def test_a_new_day_sends_a_clients_jobs(scene: Scene) -> None:
    """More of them than one step sends."""
    nanos_allowed(scene, day_a=50)
    spend_all(scene, "a", 60)
    head = operations.BatchHead(scene.new("batch"), QUEUE, 6, "qa", "fast", 3, LIFETIMES, client="a")
    ids = [scene.new("job") for _ in range(520)]
    scene.store.run(operations.stage_items(head, [(job_id, b"{}") for job_id in ids], scene.now))
    scene.store.run(operations.commit_batch(head, b"{}", 520, 1000, scene.now))
    scene.store.run(operations.release_jobs(head.id, 0, [520], scene.now))
    scene.take("w1", *ids)
    claims = [operations.claim_job("w1", job_id, job_id, now_ms=scene.now) for job_id in ids]
    assert set(scene.store.run_all(claims)) == {NotClaimed("parked")}
    scene.now += DAY
    assert scene.store.run(send_waiting(scene.now)) == 1
    assert len(scene.waiting()) == 500
    assert scene.store.run(send_waiting(scene.now)) == 0
    assert sorted(scene.waiting()) == ids


def test_a_clients_parked_jobs_can_be_canceled_and_expire(scene: Scene) -> None:
    """They are passed over when the budget is there; one retried by hand meanwhile is sent once."""
    nanos_allowed(scene, day_a=0)
    canceled, again, expired = (scene.submit(client="a") for _ in range(3))
    for job_id in (canceled, again, expired):
        assert try_start(scene, job_id) == NotClaimed("parked")
    for job_id in (canceled, again):
        assert scene.store.run(operations.cancel_job(job_id, scene.now)) == ("canceled", "canceled")
    scene.now += LIFETIMES.expires_in
    scene.store.run(recovery.expire_due(10, 1000, [QUEUE], scene.now))
    scene.store.run(operations.retry_jobs([again], LIFETIMES, now_ms=scene.now))
    nanos_allowed(scene)
    scene.store.run(send_waiting(scene.now))
    assert [scene.job(job_id).status for job_id in (canceled, expired)] == ["canceled", "expired"]
    assert (scene.waiting(), scene.messages(QUEUE).count([again])) == ([again], 2), "submitted and retried"


def test_a_batchs_parked_jobs_expire_with_it(scene: Scene) -> None:
    """Nothing of them stays where single jobs' times are kept."""
    nanos_allowed(scene, day_default=0)
    batch_id, ids = scene.batch(2)
    assert [try_start(scene, job_id) for job_id in ids] == [NotClaimed("parked")] * 2
    assert scene.store.redis.zcard(names.EXPIRING) == 1
    scene.now += LIFETIMES.expires_in
    scene.store.run(recovery.expire_due(10, 1000, [QUEUE], scene.now))
    assert scene.read_batch(batch_id).fields["ended_reason"] == "expired"


def test_a_client_without_money_does_not_use_up_a_probe(scene: Scene) -> None:
    """The one request that a half-open circuit lets through goes to somebody who can make it."""
    nanos_allowed(scene, day_a=0)
    scene.store.redis.hset(names.queue_gates(QUEUE), WaitReason.CIRCUIT_OPEN, scene.now - 1)
    poor, rich = scene.submit(client="a"), scene.submit(client="b")
    assert try_start(scene, poor) == NotClaimed("parked")
    claim = try_start(scene, rich)
    assert isinstance(claim, Claim)
    assert claim.is_probe


def test_an_operators_pause_stands_before_a_budget(scene: Scene) -> None:
    """It is what people are shown."""
    nanos_allowed(scene, day_all=0)
    scene.store.run(gates.close_gate(QUEUE, WaitReason.PAUSED))
    found = scene.store.run(operations.read_queues([QUEUE], scene.now))[0].gate
    assert found is not None
    assert found.reason == "paused"


@pytest.mark.parametrize("budget", [{"day_all": 10}, {"month_all": 10}, {"day_a": 10}, {"month_a": 10}])
def test_a_budget_stops_an_attempt_between_calls(scene: Scene, budget: dict[str, int]) -> None:
    """The call that used it up is booked, and no further one is to be made."""
    nanos_allowed(scene, **budget)
    claim = scene.claim("w1", scene.submit(client="a"))
    other = scene.claim("w1", scene.submit(client="b"))
    assert record(scene, claim, costing(9)) == "booked"
    assert record(scene, claim, Bill([call(1)], first=2)) == "budget_exhausted"
    assert record(scene, other, costing(0)) == ("budget_exhausted" if "all" in str(budget) else "booked")
    assert spent(scene) == 10


# ---- limits of batches -----------------------------------------------------------------------------------------


def status(scene: Scene, batch_id: str) -> tuple[str, str | None]:
    """A batch's status and why it is paused."""
    fields = scene.read_batch(batch_id).fields
    return fields["status"], fields.get("pause_reason")


def _ends(scene: Scene, claim: Claim) -> None:
    assert scene.finish("w1", claim, bill=costing(0))


def _retries(scene: Scene, claim: Claim) -> None:
    scene.store.run(operations.retry_later("w1", claim, b"{}", 9, "w", costing(0), now_ms=scene.now))


def _is_lost(scene: Scene, claim: Claim) -> None:
    scene.store.run(operations.renew_worker("w2", 10**6, b"{}", [], scene.now))
    scene.now += LOST
    assert scene.store.run(operations.recover_lost(9, now_ms=scene.now)) == (1, 0)


@pytest.mark.parametrize("end", [_ends, _retries, _is_lost])
def test_a_batch_never_starts_more_than_its_limit_has_room_for(scene: Scene, end: object) -> None:
    """What runs is reckoned at the mean; the batch goes on by itself when it costs less or does not run any more."""
    batch_id, ids = limited(scene, BatchLimits(100), size=6)
    scene.finish("w1", scene.claim("w1", ids[0]), bill=costing(30))
    claims = [scene.claim(worker, job_id) for worker, job_id in (("w1", ids[1]), ("w2", ids[2]))]
    assert status(scene, batch_id) == ("paused", "max_cost")
    assert scene.take("w1", ids[3]) == [], "parked"
    assert callable(end)
    end(scene, claims[0])
    assert status(scene, batch_id) == ("in_progress", None)
    assert scene.store.redis.smembers(names.RELEASING) == {batch_id.encode()}
    assert scene.store.run(operations.resume_batch(batch_id, 5, unpause=False, now_ms=scene.now)) == ("in_progress", 0)
    assert ids[3] in scene.waiting()


@pytest.mark.parametrize("end", [_ends, _retries, _is_lost])
def test_a_batch_that_an_operator_holds_does_not_go_on_by_itself(scene: Scene, end: object) -> None:
    """Pausing one that its limit had paused counts, though the limit stays the reason; resuming undoes both."""
    batch_id, ids = limited(scene, BatchLimits(100), size=6)
    scene.finish("w1", scene.claim("w1", ids[0]), bill=costing(30))
    claims = [scene.claim(worker, job_id) for worker, job_id in (("w1", ids[1]), ("w2", ids[2]))]
    assert scene.store.run(operations.pause_batch(batch_id, scene.now)) == "paused"
    assert callable(end)
    end(scene, claims[0])
    assert status(scene, batch_id) == ("paused", "max_cost")
    assert scene.store.redis.smembers(names.RELEASING) == set()
    assert scene.store.run(operations.resume_batch(batch_id, 5, now_ms=scene.now)) == ("paused", 0)
    assert status(scene, batch_id) == ("in_progress", None)
    assert "held" not in scene.read_batch(batch_id).fields


def test_a_batch_that_was_held_at_its_end_is_free_when_it_is_retried(scene: Scene) -> None:
    """The wish was for the jobs of then."""
    batch_id, ids = limited(scene, BatchLimits(100), size=3)
    scene.finish("w1", scene.claim("w1", ids[0]), bill=costing(40))
    claim = scene.claim("w1", ids[1])
    scene.store.run(operations.pause_batch(batch_id, scene.now))
    assert scene.finish("w1", claim, "failed", costing(40))
    scene.store.run(operations.cancel_job(ids[2], scene.now))
    assert status(scene, batch_id)[0] == "ended"
    assert scene.store.run(operations.retry_jobs(ids[2:], LIFETIMES, now_ms=scene.now)) == (1, "")
    assert "held" not in scene.read_batch(batch_id).fields


def test_a_retry_that_cost_much_pauses_the_batch(scene: Scene) -> None:
    """Not only at the end of a job or the start of the next."""
    batch_id, ids = limited(scene, BatchLimits(100))
    scene.finish("w1", scene.claim("w1", ids[0]), bill=costing(10))
    claim = scene.claim("w1", ids[1])
    scene.store.run(operations.retry_later("w1", claim, b"{}", 0, "w", costing(90), now_ms=scene.now))
    assert status(scene, batch_id) == ("paused", "max_cost")


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(limit=st.integers(1, 12), moves=st.lists(st.booleans(), max_size=30))
def test_a_batch_of_equal_jobs_stays_within_its_limit(scene: Scene, limit: int, moves: list[bool]) -> None:
    """Once the first has ended, in whatever order others start and end; and all that fits is run."""
    scene.store.redis.flushdb()
    batch_id, ids = limited(scene, BatchLimits(limit * 10), size=10)
    scene.finish("w1", scene.claim("w1", ids[0]), bill=costing(10))
    running, left = list[Claim](), ids[1:]
    for is_start in [*moves, *[True] * 10]:
        if is_start and left:
            claim = try_start(scene, left[0])
            if isinstance(claim, Claim):
                running.append(claim)
                left.pop(0)
        elif running:
            scene.finish("w1", running.pop(), bill=costing(10))
        fields = scene.read_batch(batch_id).fields
        assert int(fields["cost"]) + 10 * len(running) <= limit * 10
    assert len(ids) - len(left) == min(10, limit)


def test_a_batch_stops_its_attempts_between_calls(scene: Scene) -> None:
    """When its money is spent it is paused; what runs may make no further call, and ends with what it has."""
    batch_id, ids = limited(scene, BatchLimits(100))
    claim = scene.claim("w1", ids[0])
    assert record(scene, claim, costing(60)) == "booked"
    assert record(scene, claim, Bill([call(40)], first=2)) == "budget_exhausted"
    assert status(scene, batch_id) == ("paused", "max_cost")
    assert scene.finish("w1", claim, bill=costing(60, 40))
    assert status(scene, batch_id) == ("paused", "max_cost")
    assert scene.read_batch(batch_id).fields["cost"] == "100"


def test_a_batch_whose_last_jobs_run_is_not_paused(scene: Scene) -> None:
    """There is nothing left to hold back, and it ends."""
    batch_id, ids = limited(scene, BatchLimits(100), size=1)
    claim = scene.claim("w1", ids[0])
    assert record(scene, claim, costing(200)) == "budget_exhausted"
    assert status(scene, batch_id) == ("in_progress", None)
    scene.finish("w1", claim, "failed", costing(200))
    assert status(scene, batch_id) == ("ended", None)


def test_failures_pause_a_batch_once_enough_have_run(scene: Scene) -> None:
    """Not before the least number, not at the very rate; results stay, and what runs goes on to its end."""
    batch_id, ids = limited(scene, BatchLimits(error_rate=0.5, min_items=4), size=7)
    for job_id in ids[:2]:
        scene.run(job_id, "failed")
    scene.run(ids[2])
    assert status(scene, batch_id) == ("in_progress", None), "two of three, but too few"
    scene.run(ids[3])
    assert status(scene, batch_id) == ("in_progress", None), "two of four are not more than half"
    running = scene.claim("w1", ids[4])
    scene.run(ids[5], "failed")
    assert status(scene, batch_id) == ("paused", "max_error_rate")
    assert scene.finish("w1", running)
    assert status(scene, batch_id) == ("paused", "max_error_rate"), "somebody must look at it"
    batch = scene.read_batch(batch_id)
    assert (batch.results, batch.fields["succeeded"], batch.fields["failed"]) == (6, "3", "3")
    assert [scene.job(job_id).outcome is not None for job_id in ids] == [True] * 6 + [False]


def test_after_a_resumption_failures_count_anew(scene: Scene) -> None:
    """As many again must have run."""
    batch_id, ids = limited(scene, BatchLimits(error_rate=0.5, min_items=2), size=8)
    for job_id in ids[:2]:
        scene.run(job_id, "failed")
    scene.store.run(operations.resume_batch(batch_id, 5, now_ms=scene.now))
    scene.run(ids[2], "failed")
    assert status(scene, batch_id) == ("in_progress", None)
    scene.run(ids[3], "failed")
    assert status(scene, batch_id) == ("paused", "max_error_rate")
