"""What is read of jobs, batches and queues, and how long it can be."""

from __future__ import annotations

import pytest

from dspy_jobs import names
from dspy_jobs.store import SyncStore, operations
from dspy_jobs.store.books import Bill
from dspy_jobs.store.operations import JobFilter
from tests.integration.store_scene import LIFETIMES, QUEUE, STEP, Scene

RETENTION, TOMBSTONE, EXPIRES_IN = LIFETIMES.retention, LIFETIMES.tombstone, LIFETIMES.expires_in


@pytest.fixture
def scene(store: SyncStore) -> Scene:
    """A scene at an empty store."""
    return Scene(store)


def _pages(scene: Scene, limit: int, wanted: JobFilter, scan: int = 2000) -> list[list[str]]:
    pages, after = [], ""
    while True:
        after, ids = scene.store.run(operations.list_jobs(after, limit, wanted, scan))
        pages.append(ids)
        if not after:
            return pages


# ---- jobs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("limit", "scan"), [(1, 2000), (2, 2000), (5, 2000), (100, 2000), (3, 1), (3, 2), (100, 4)])
def test_pages_together_hold_every_job_once_newest_first(scene: Scene, limit: int, scan: int) -> None:
    """Whatever the page's size and however little is looked through at a time."""
    ids = [scene.submit() for _ in range(5)]
    pages = _pages(scene, limit, JobFilter(), scan)
    assert [job_id for page in pages for job_id in page] == ids[::-1]
    assert max(map(len, pages)) <= limit


def test_a_listing_holds_what_its_filter_wants(scene: Scene) -> None:
    """Each filter by itself and all together."""
    plain = scene.submit()
    other = scene.submit(program="extract", model="slow", variant="b")
    batch_id, ids = scene.batch(2)
    scene.run(ids[0])
    expected = {
        JobFilter(): [*ids[::-1], other, plain],
        JobFilter(status="succeeded"): [ids[0]],
        JobFilter(status="queued"): [ids[1], other, plain],
        JobFilter(program="extract"): [other],
        JobFilter(model="slow"): [other],
        JobFilter(variant="b"): [other],
        JobFilter(batch=batch_id): ids[::-1],
        JobFilter(status="queued", batch=batch_id): [ids[1]],
        JobFilter(program="extract", model="fast"): [],
    }
    assert {wanted: [job_id for page in _pages(scene, 1, wanted) for job_id in page] for wanted in expected} == expected


def test_a_listing_forgets_jobs_whose_record_is_gone(scene: Scene) -> None:
    """An id whose record has run out is passed over and taken off the index."""
    ids = [scene.submit() for _ in range(3)]
    scene.store.redis.delete(names.job(ids[1]), names.job_request(ids[1]))
    assert _pages(scene, 2, JobFilter()) == [[ids[2], ids[0]], []]
    assert scene.store.redis.zcard(names.JOBS) == 2


def test_a_queued_job_knows_its_rank_and_its_workers(scene: Scene) -> None:
    """The rank counts those that wait before it; a job held by a worker has none."""
    first, second = scene.submit(), scene.submit()
    scene.store.run(operations.renew_worker("w1", 10, b"{}", [QUEUE], scene.now))
    assert [(scene.job(job_id).rank, scene.job(job_id).workers) for job_id in (first, second)] == [(0, 1), (1, 1)]
    scene.take("w1", first)
    assert [scene.job(job_id).rank for job_id in (first, second)] == [None, 0]
    scene.now += 10_001
    assert scene.job(second).workers == 0


def test_a_batchs_job_is_read_with_what_its_batch_shares(scene: Scene) -> None:
    """The shared request lies under the job's own, whether read with it or given by the caller."""
    _, ids = scene.batch(1)
    assert scene.job(ids[0]).request == {"shared": 1, "own": 1}
    given = scene.store.run(operations.read_jobs(ids, {"own": 0, "given": 2}))[0]
    assert given is not None
    assert given.request == {"own": 1, "given": 2}


# ---- batches and queues ------------------------------------------------------------------------------------------


def test_a_batch_is_read_with_counts_results_and_workers(scene: Scene) -> None:
    """Counts and the number of results follow its jobs; a batch nobody knows is None."""
    batch_id, ids = scene.batch(3)
    scene.store.run(operations.renew_worker("w1", 10, b"{}", [QUEUE], scene.now))
    scene.run(ids[2])
    scene.claim("w1", ids[0])
    batch = scene.read_batch(batch_id)
    counts = {name: int(batch.fields[name]) for name in ("total", "queued", "running", "succeeded")}
    assert counts == {"total": 3, "queued": 1, "running": 1, "succeeded": 1}
    assert (batch.status, batch.results, batch.workers, batch.request) == ("in_progress", 1, 1, {"shared": 1})
    assert scene.store.run(operations.read_batch("batch_x")) is None


def test_queues_are_read_in_the_order_asked_for(scene: Scene) -> None:
    """Queued, running, the oldest wait and the live workers of each; an unknown queue is empty."""
    first = scene.submit()
    scene.now += 500
    scene.submit()
    scene.submit(queue="dspy.slow")
    scene.store.run(operations.renew_worker("w1", 10, b"{}", [QUEUE], scene.now))
    scene.claim("w1", first)
    unknown, fast, slow = scene.store.run(operations.read_queues(["dspy.x", QUEUE, "dspy.slow"], scene.now))
    assert (unknown.name, unknown.queued, unknown.running, unknown.oldest, unknown.workers) == ("dspy.x", 0, 0, None, 0)
    assert (fast.queued, fast.running, fast.oldest, fast.workers) == (1, 1, scene.now, 1)
    assert (slow.queued, slow.running, slow.oldest, slow.workers) == (1, 0, scene.now, 0)


def test_slots_are_those_of_live_workers(scene: Scene) -> None:
    """Threads of workers whose lease runs count, for the queue and for a release; dead workers are dropped."""
    batch_id, _ = scene.batch(3, released=1)
    scene.store.run(operations.renew_worker("dead", 1, b'{"concurrency":64}', [QUEUE], scene.now))
    scene.now += 2000
    scene.store.run(operations.renew_worker("w1", 10, b'{"concurrency":8}', [QUEUE], scene.now))
    assert scene.store.run(operations.read_slots(QUEUE, scene.now)) == 8
    release = scene.store.run(operations.read_release(batch_id, scene.now))
    assert release == operations.Release("in_progress", 1, 3, 0, 8)
    assert scene.store.redis.zrange(names.queue_workers(QUEUE), 0, -1) == [b"w1"]


# ---- lifetimes -----------------------------------------------------------------------------------------------------


def test_what_has_not_ended_has_no_lifetime(scene: Scene) -> None:
    """However long a job waits, runs and waits again, and its batch with it: nothing of it vanishes on the way."""
    batch_id, ids = scene.batch(2)
    claim = scene.claim("w1", scene.submit())
    scene.store.run(operations.retry_later("w1", claim, b"{}", 0, "retry_scheduled", Bill(), now_ms=scene.now))
    scene.run(ids[0])
    scene.claim("w1", ids[1])
    parts = (names.batch, names.batch_request, names.batch_jobs, names.batch_results)
    keys = [key(batch_id) for key in parts]
    keys += [key(i) for i in (ids[1], claim.id) for key in (names.job, names.job_request)]
    assert {scene.store.redis.pttl(key) for key in [*keys, names.job_attempts(claim.id)]} == {-1}


def test_an_ended_jobs_keys_live_for_the_retention(scene: Scene) -> None:
    """Request, outcome and attempts can be read for the retention, then the record alone says that it was here."""
    claim = scene.claim("w1", scene.submit())
    scene.store.run(operations.retry_later("w1", claim, b"{}", 0, "retry_scheduled", Bill(), scene.now))
    scene.store.redis.pexpire(names.job_attempts(claim.id), 1000)
    scene.store.run(operations.wake_delayed(now_ms=scene.now))
    scene.run(claim.id)
    for key in (names.job_request, names.outcome, names.job_attempts):
        assert scene.lifetime(key(claim.id)) == RETENTION, key
    assert scene.lifetime(names.job(claim.id)) == RETENTION + TOMBSTONE


def test_an_ended_batchs_keys_live_for_the_retention(scene: Scene) -> None:
    """Its request and lists can be read for the retention, then the record alone says that it was here."""
    batch_id, ids = scene.batch(2)
    scene.run(ids[0])
    scene.run(ids[1], "failed")
    parts = (names.batch_request, names.batch_jobs, names.batch_results)
    assert {scene.lifetime(key(batch_id)) for key in parts} == {RETENTION}
    assert scene.lifetime(names.batch(batch_id)) == RETENTION + TOMBSTONE


def test_a_retry_takes_the_lifetime_away_again(scene: Scene) -> None:
    """The job and its batch are at work once more."""
    batch_id, ids = scene.batch(1)
    scene.run(ids[0], "failed")
    scene.store.run(operations.retry_jobs(ids, LIFETIMES, now_ms=scene.now))
    jobs_keys = [key(ids[0]) for key in (names.job, names.job_request)]
    batchs_keys = [key(batch_id) for key in (names.batch, names.batch_request, names.batch_jobs, names.batch_results)]
    assert {scene.store.redis.pttl(key) for key in (*jobs_keys, *batchs_keys)} == {-1}


def test_an_erased_job_leaves_a_tombstone(scene: Scene) -> None:
    """Inputs, output and attempts are gone at once; the record says for its time that the job was here."""
    job_id = scene.submit()
    assert scene.store.run(operations.erase_job(job_id)) == "queued"
    scene.run(job_id)
    assert scene.store.run(operations.erase_job(job_id)) == "erased"
    assert {key.decode() for key in scene.store.redis.scan_iter(f"*{job_id}*")} == {names.job(job_id)}
    assert scene.lifetime(names.job(job_id)) == TOMBSTONE
    job = scene.job(job_id)
    assert (job.is_gone, job.status) == (True, "succeeded")
    assert scene.store.run(operations.list_jobs("", 10, JobFilter())) == ("", [])
    assert scene.store.run(operations.erase_job("job_x")) == "missing"


def test_an_erased_job_cannot_be_retried(scene: Scene) -> None:
    """Without its inputs there is nothing to run."""
    job_id = scene.submit()
    scene.run(job_id, "failed")
    scene.store.run(operations.erase_job(job_id))
    assert scene.store.run(operations.retry_jobs([job_id], LIFETIMES, now_ms=scene.now)) == (0, "gone")
    assert scene.store.redis.llen(names.queue_list(QUEUE, STEP)) == 1
