"""Limits of a batch in the store: kept, replaced, and what resuming a batch that reached one means."""

from __future__ import annotations

import pytest

from dspy_jobs import names
from dspy_jobs.store import SyncStore, operations
from dspy_jobs.store.books import Bill, BilledCall
from dspy_jobs.store.demand import read_outstanding
from dspy_jobs.store.operations import BatchHead, BatchLimits, LimitChange
from dspy_jobs.store.script import script
from dspy_jobs.submissions import DEFAULT_MIN_ITEMS
from dspy_jobs.views import batch_view
from tests.integration.store_scene import LIFETIMES, MANY, QUEUE, STEP, Scene

LIMITS = ("limit_cost", "limit_error_rate", "limit_min_items")


@pytest.fixture
def scene(store: SyncStore) -> Scene:
    """A store and actors."""
    return Scene(store)


def limited(scene: Scene, limits: BatchLimits | None, size: int = 4) -> tuple[str, list[str]]:
    """Submit a batch with limits."""
    head = BatchHead(scene.new("batch"), QUEUE, STEP, "qa", "fast", 3, LIFETIMES, limits=limits)
    ids = [scene.new("job") for _ in range(size)]
    scene.store.run(operations.stage_items(head, [(job_id, b"{}") for job_id in ids], scene.now))
    commit = operations.commit_batch(head, b"{}", size, MANY, scene.now)
    assert scene.store.run(commit) == ("accepted", scene.now)
    scene.store.run(operations.release_jobs(head.id, 0, [1] * size, scene.now))
    return head.id, ids


def reach(scene: Scene, batch_id: str, reason: str, **numbers: int) -> None:
    """Pause a batch as reaching a limit does."""
    fields = {"status": "paused", "pause_reason": reason, "paused_at": scene.now, **numbers}
    scene.store.redis.hset(names.batch(batch_id), mapping=fields)


def fields(scene: Scene, batch_id: str, *wanted: str) -> list[str | None]:
    """Fields of a batch; None where there is none."""
    found = scene.read_batch(batch_id).fields
    return [found.get(name) for name in wanted]


def test_limits_are_kept_with_the_batch(scene: Scene) -> None:
    """Money as an integer of nano-dollars; what was not given is not there."""
    batch_id, _ = limited(scene, BatchLimits(2_500_000_000, None, 7))
    assert fields(scene, batch_id, *LIMITS) == ["2500000000", None, "7"]
    batch_id, _ = limited(scene, BatchLimits(None, 0.25))
    assert fields(scene, batch_id, *LIMITS) == [None, "0.25", "20"]


def test_a_pause_says_who_and_when_until_it_is_over(scene: Scene) -> None:
    """An operator's pause has its reason; one more does not hide that of a limit; resuming takes it away."""
    batch_id, _ = limited(scene, BatchLimits(5))
    scene.store.run(operations.pause_batch(batch_id, scene.now))
    assert fields(scene, batch_id, "pause_reason", "paused_at") == ["operator", str(scene.now)]
    assert scene.store.run(operations.resume_batch(batch_id, 5))[0] == "paused"
    assert fields(scene, batch_id, "status", "pause_reason", "paused_at") == ["in_progress", None, None]
    reach(scene, batch_id, "max_cost")
    scene.store.run(operations.pause_batch(batch_id, scene.now))
    assert fields(scene, batch_id, "pause_reason") == ["max_cost"]


def paused(scene: Scene) -> int:
    """Waiting jobs that are no demand, since their batches are paused."""
    (queue,) = scene.store.run(read_outstanding([QUEUE], scene.now)).queues
    return queue.paused


def test_a_batch_that_a_limit_pauses_is_no_demand(scene: Scene) -> None:
    """As soon as its own limit holds it, as if somebody had paused it, and until it goes on by itself."""
    batch_id, (first, *_) = limited(scene, BatchLimits(5))
    scene.store.redis.hset(names.queue_numbers(QUEUE), "mean_cost", "3")
    claim = scene.claim("w1", first)
    assert fields(scene, batch_id, "status", "pause_reason") == ["paused", "max_cost"]
    assert paused(scene) == 3
    scene.finish("w1", claim, "succeeded", Bill([BilledCall(1, 1, None, None, 1)]))
    assert fields(scene, batch_id, "status") == ["in_progress"]
    assert paused(scene) == 0


@pytest.mark.parametrize("is_twice", [False, True])
def test_a_paused_batch_that_is_canceled_leaves_nothing(scene: Scene, is_twice: bool) -> None:
    """At once, though a job still runs; also one that was paused before pauses were counted, and then once more."""
    batch_id, (first, *_) = limited(scene, None, 5)
    scene.claim("w1", first)
    scene.store.run(operations.pause_batch(batch_id, scene.now))
    if is_twice:
        scene.store.redis.delete(names.PAUSED_BATCHES)
        assert paused(scene) == 0
        scene.store.run(operations.pause_batch(batch_id, scene.now))
    assert paused(scene) == 4
    scene.store.run(operations.cancel_batch(batch_id))
    assert not scene.store.redis.exists(names.PAUSED_BATCHES)
    assert paused(scene) == 0


@pytest.mark.parametrize("change", [{}, {"limit_cost": 1000}, {"limit_cost": 999, "limit_error_rate": 0.5}])
def test_a_batch_that_has_spent_its_money_is_not_resumed_for_nothing(scene: Scene, change: dict[str, float]) -> None:
    """Without a limit above what is spent it stays paused, and no other limit changes either."""
    batch_id, _ = limited(scene, BatchLimits(900))
    reach(scene, batch_id, "max_cost", cost=1000)
    assert scene.store.run(operations.resume_batch(batch_id, 5, change=change)) == ("max_cost", 1001)
    assert fields(scene, batch_id, "status", "pause_reason", *LIMITS) == ["paused", "max_cost", "900", None, "20"]


def test_a_resumed_batch_has_room_for_one_more_job(scene: Scene) -> None:
    """A limit that would pause it again at once is refused; the least one that would not resumes it."""
    batch_id, ids = limited(scene, BatchLimits(2500))
    for job_id in ids[:2]:
        claim = scene.claim("w1", job_id)
        bill = Bill([BilledCall(1, 1, None, None, 1000)])
        scene.finish("w1", claim, "succeeded", bill)
    assert fields(scene, batch_id, "status", "pause_reason", "cost") == ["paused", "max_cost", "2000"]
    assert scene.store.run(operations.resume_batch(batch_id, 5)) == ("max_cost", 3000)
    raised = operations.resume_batch(batch_id, 5, change={"limit_cost": 3000})
    assert scene.store.run(raised) == ("paused", 0)
    scene.claim("w1", ids[2])
    assert fields(scene, batch_id, "status", "running") == ["paused", "1"], "and for no more than one"


@pytest.mark.parametrize(("limit", "kept"), [(1001, "1001"), (None, None)])
def test_raising_or_taking_away_the_limit_resumes(scene: Scene, limit: int | None, kept: str | None) -> None:
    """The batch goes on, and its parked jobs are sent."""
    batch_id, ids = limited(scene, BatchLimits(900, 0.5))
    reach(scene, batch_id, "max_cost", cost=1000)
    assert scene.take("w1", *ids) == []
    assert scene.store.run(operations.resume_batch(batch_id, 5, change={"limit_cost": limit})) == ("paused", 0)
    assert fields(scene, batch_id, "status", *LIMITS) == ["in_progress", kept, "0.5", "20"]
    assert scene.take("w1", *ids) == ids


def test_limits_change_only_where_a_batch_goes_on(scene: Scene) -> None:
    """Also those of a batch under way, but not of one that is canceled, nor while housekeepers send the rest."""
    batch_id, _ = limited(scene, BatchLimits(900))
    change = {"limit_cost": 5, "limit_min_items": 3}
    scene.store.run(operations.resume_batch(batch_id, 5, unpause=False, change=change))
    assert fields(scene, batch_id, *LIMITS) == ["900", None, "20"]
    assert scene.store.run(operations.resume_batch(batch_id, 5, change=change))[0] == "in_progress"
    assert fields(scene, batch_id, *LIMITS) == ["5", None, "3"]
    scene.claim("w1", scene.waiting()[0])
    scene.store.run(operations.cancel_batch(batch_id))
    assert scene.store.run(operations.resume_batch(batch_id, 5, change={"limit_cost": 6}))[0] == "canceling"
    assert fields(scene, batch_id, *LIMITS) == ["5", None, "3"]


@pytest.mark.parametrize("change", [{"limit_error_rate": 0.5}, {"limit_error_rate": 0.5, "limit_min_items": None}])
@pytest.mark.parametrize("given", [None, BatchLimits(None, 0.25, 2)])
def test_an_error_rate_given_later_counts_after_as_many_jobs_as_one_given_at_once(
    scene: Scene, given: BatchLimits | None, change: LimitChange
) -> None:
    """A batch that does not say how many must have run has the default that it shows, not none at all."""
    batch_id, ids = limited(scene, given, DEFAULT_MIN_ITEMS + 1)
    scene.store.run(operations.resume_batch(batch_id, 5, change=change))
    least = (batch_view(scene.read_batch(batch_id), scene.now)["limits"] or {})["min_items"]
    assert least == (2 if given and len(change) == 1 else DEFAULT_MIN_ITEMS)
    for job_id in ids[: least - 1]:
        scene.run(job_id, "failed")
    assert fields(scene, batch_id, "status") == ["in_progress"]
    scene.run(ids[least - 1], "failed")
    assert fields(scene, batch_id, "status", "pause_reason") == ["paused", "max_error_rate"]


@pytest.mark.parametrize(("rate", "failed", "ran"), [(0.29, 29, 100), (0.58, 29, 50), (0.1, 3, 30)])
def test_the_very_rate_does_not_pause(scene: Scene, rate: float, failed: int, ran: int) -> None:
    """Also where the product of rate and jobs is a little less than the whole number it stands for."""
    batch_id, ids = limited(scene, BatchLimits(None, rate, ran), ran + 2)
    for number, job_id in enumerate(ids[:ran]):
        scene.run(job_id, "failed" if number < failed else "succeeded")
    assert fields(scene, batch_id, "status", "failed") == ["in_progress", str(failed)]
    scene.run(ids[ran], "failed")
    assert fields(scene, batch_id, "status", "pause_reason") == ["paused", "max_error_rate"]


def test_the_scripts_have_the_same_default() -> None:
    """What is shown is what is enforced."""
    assert f"local DEFAULT_MIN_ITEMS = {DEFAULT_MIN_ITEMS}\n" in script("finish_job").text


def test_a_batch_paused_for_its_failures_starts_counting_anew(scene: Scene) -> None:
    """What failed and ran before the resumption, or before a retry by hand, is left out of the share."""
    batch_id, ids = limited(scene, BatchLimits(error_rate=0.5, min_items=2))
    anew = ("status", "rate_from_failed", "rate_from_done")
    scene.store.run(operations.pause_batch(batch_id))
    scene.store.run(operations.resume_batch(batch_id, 5))
    assert fields(scene, batch_id, *anew) == ["in_progress", None, None], "an operator's pause says nothing of failures"
    scene.run(ids[0], "failed")
    scene.run(ids[1], "failed")
    assert fields(scene, batch_id, "status", "pause_reason") == ["paused", "max_error_rate"]
    assert scene.store.run(operations.resume_batch(batch_id, 5))[0] == "paused"
    assert fields(scene, batch_id, *anew) == ["in_progress", "2", "2"]
    scene.run(ids[2])
    assert scene.store.run(operations.retry_jobs(ids[:2], LIFETIMES)) == (2, "")
    assert fields(scene, batch_id, *anew) == ["in_progress", "0", "1"]
