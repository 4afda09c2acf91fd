"""What the store keeps of variants: scores within bounds, numbers that add up, and nothing for ever."""

from __future__ import annotations

import pytest

from dspy_jobs import names
from dspy_jobs.run_times import quantile_ms
from dspy_jobs.store import SyncStore, operations
from dspy_jobs.store.books import Bill, BilledCall
from dspy_jobs.store.flights import Answered, settle_answered
from dspy_jobs.store.scores import score_job
from tests.integration.store_scene import LIFETIMES, Scene

KEPT = LIFETIMES.retention + LIFETIMES.tombstone


@pytest.fixture
def scene(store: SyncStore) -> Scene:
    """A scene at an empty store."""
    return Scene(store)


def counted(scene: Scene, variant: str) -> dict[str, int]:
    """The numbers of a variant of `qa`."""
    raw = scene.store.redis.hgetall(names.variant("qa", variant))
    return {name.decode(): int(value) for name, value in raw.items()}


def ended(scene: Scene, variant: str = "b", milliseconds: int = 0, status: str = "succeeded") -> str:
    """A job of a variant that ran to its end."""
    job_id = scene.submit(variant=variant) if variant else scene.submit()
    claim = scene.claim("w1", job_id)
    scene.now += milliseconds
    assert scene.finish("w1", claim, status, Bill([BilledCall(1, 1, None, None, 5)]))
    return job_id


def test_a_score_lives_as_long_as_the_last_scored_job(scene: Scene) -> None:
    """Each new one renews the lifetime; the job keeps its own."""
    first, second = ended(scene), ended(scene)
    assert scene.store.run(score_job(first, "accuracy", 0.1, scene.now)) == "scored"
    keys = (names.scores("qa", "b", "accuracy"), names.score_names("qa"))
    for key in keys:
        assert scene.lifetime(key) == KEPT
        scene.store.redis.pexpire(key, 1000)
    assert scene.store.run(score_job(second, "accuracy", 0.1 + 0.2, scene.now)) == "scored"
    assert [scene.lifetime(key) for key in keys] == [KEPT, KEPT]
    assert scene.store.redis.hgetall(keys[0]) == {first.encode(): b"0.1", second.encode(): b"0.30000000000000004"}
    assert scene.job(second).fields["score:accuracy"] == "0.30000000000000004"


def test_scores_are_bounded(scene: Scene) -> None:
    """In jobs and in names; what is there can still be replaced, and a name nobody uses any more makes room."""
    first, second = ended(scene), ended(scene)

    def score(job_id: str, name: str) -> str:
        return scene.store.run(score_job(job_id, name, 1.0, scene.now, most_names=2, most_scores=1))

    assert [score(first, "a"), score(second, "a"), score(first, "a")] == ["scored", "full", "scored"]
    assert [score(first, "b"), score(first, "c")] == ["scored", "too_many"]
    scene.now += KEPT
    assert score(first, "c") == "scored"


@pytest.mark.parametrize("status", ["queued", "running"])
def test_a_job_that_has_not_ended_has_no_score(scene: Scene, status: str) -> None:
    """The answer is its status, and nothing is kept."""
    job_id = scene.submit(variant="b")
    if status == "running":
        scene.claim("w1", job_id)
    assert scene.store.run(score_job(job_id, "a", 1.0, scene.now)) == status
    assert scene.store.run(score_job("job_x", "a", 1.0, scene.now)) == "missing"
    assert not list(scene.store.redis.scan_iter("dj:scores:*"))


def test_an_erased_job_has_no_score(scene: Scene) -> None:
    """Its outputs are gone, so there is nothing to judge."""
    job_id = ended(scene)
    scene.store.run(operations.erase_job(job_id))
    assert scene.store.run(score_job(job_id, "a", 1.0, scene.now)) == "missing"


def test_each_variant_has_its_numbers(scene: Scene) -> None:
    """Jobs, failures, calls and cost; of jobs without a variant none are kept."""
    for status in ("succeeded", "failed", "canceled"):
        ended(scene, "a", 10, status)
    ended(scene, "b", 1000)
    ended(scene, "")
    a = counted(scene, "a")
    assert (a["jobs"], a["failed"], a["calls"], a["cost"], a["run_ms"]) == (2, 1, 3, 15, 20)
    buckets = {int(name[1:]): number for name, number in counted(scene, "b").items() if name[0] == "b"}
    assert quantile_ms(buckets, 0.5) == pytest.approx(1000, rel=0.02)
    kept = {key.decode() for key in scene.store.redis.scan_iter("dj:variant:*")}
    assert kept == {names.variant("qa", "a"), names.variant("qa", "b")}


def test_a_variants_numbers_stay_as_long_as_the_books(scene: Scene) -> None:
    """Counted from the last of its jobs."""
    scene.store.redis.hset(names.BUDGETS, "kept", 86_400_000)
    ended(scene, "b")
    scene.store.redis.pexpire(names.variant("qa", "b"), 1000)
    ended(scene, "b")
    assert scene.lifetime(names.variant("qa", "b")) == 86_400_000


def test_answers_from_the_cache_count_for_the_variant(scene: Scene) -> None:
    """A job that never ran is a job of its variant too, with no run time; also the first of all."""
    job_id = scene.submit(variant="b")
    scene.take("w1", job_id)
    outcome = b'{"status":"SUCCESS","task_id":"' + job_id.encode() + b'"}'
    answered = Answered(job_id, outcome, "hit", 7)
    assert scene.store.run(settle_answered("w1", [answered], b"{}", scene.now)) == ["finished"]
    assert counted(scene, "b") == {"jobs": 1, "hit": 1}
    assert scene.lifetime(names.variant("qa", "b")) == 400 * 86_400_000
