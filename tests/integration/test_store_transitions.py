"""One story each of how jobs and batches change: refusals, retries, crashes, and what late actors may not do."""

from __future__ import annotations

import orjson
import pytest

from dspy_jobs import names
from dspy_jobs.states import WaitReason
from dspy_jobs.store import SyncStore, gates, operations, recovery
from dspy_jobs.store.books import Bill
from dspy_jobs.store.operations import Route
from dspy_jobs.store.records import NotClaimed
from tests.integration.store_scene import LIFETIMES, MANY, QUEUE, STEP, Scene, bill


@pytest.fixture
def scene(store: SyncStore) -> Scene:
    """A scene at an empty store."""
    return Scene(store)


# ---- submit ----------------------------------------------------------------------------------------------------


def test_a_full_queue_refuses_a_job_and_keeps_nothing_of_it(scene: Scene) -> None:
    """The job that would exceed the limit is refused with the number queued, and leaves no key."""
    scene.submit(limit=1)
    keys = set(scene.store.redis.scan_iter())
    refused = operations.submit_job("job_x", b"{}", QUEUE, STEP, {"program": "qa"}, LIFETIMES, 1, scene.now)
    assert scene.store.run(refused) == (False, 1)
    assert set(scene.store.redis.scan_iter()) == keys


def test_a_full_queue_refuses_a_batch_as_a_whole(scene: Scene) -> None:
    """A batch that just fits is accepted; one item more is refused, and can be discarded without a trace."""
    scene.submit()
    fits, _ = scene.stage(2)
    assert scene.store.run(operations.commit_batch(fits, b"{}", 2, 3, scene.now)) == ("accepted", scene.now)
    keys = set(scene.store.redis.scan_iter())
    exceeds, _ = scene.stage(1)
    assert scene.store.run(operations.commit_batch(exceeds, b"{}", 1, 3, scene.now)) == ("queue_full", 3)
    assert scene.store.run(operations.discard_staged(exceeds.id)) == 0
    assert set(scene.store.redis.scan_iter()) == keys


def test_an_upload_that_lost_items_is_not_accepted(scene: Scene) -> None:
    """A batch is all its items or nothing: with a part swept away meanwhile the answer is `lost`."""
    head, _ = scene.stage(3)
    assert scene.store.run(operations.discard_staged(head.id, 2)) == 1
    assert scene.store.run(operations.commit_batch(head, b"{}", 3, MANY, scene.now)) == ("lost", 1)
    assert scene.store.run(operations.read_batch(head.id)) is None


def test_a_batch_of_several_variants_goes_to_each_ones_queue(scene: Scene) -> None:
    """Each job is counted, sent and run where its variant's model is; the batch is one all the same."""
    head, ids = scene.stage(6, [Route("ab"[n % 2], ("fast", "slow")[n % 2]) for n in range(6)])
    queued = {"dspy.fast": 3, "dspy.slow": 3}
    scene.store.run(operations.commit_batch(head, b"{}", 6, MANY, scene.now, queued))
    assert {q.name: q.queued for q in scene.store.run(operations.read_queues(list(queued)))} == queued
    scene.store.run(operations.release_jobs(head.id, 0, [4, 2], scene.now))
    assert (scene.waiting("dspy.fast"), scene.waiting("dspy.slow")) == (ids[::2], ids[1::2])
    messages = [scene.messages(queue) for queue in queued]
    assert messages == [[[ids[0], ids[2]], [ids[4]]], [[ids[1], ids[3]], [ids[5]]]]
    claims = [scene.claim("w1", job_id) for job_id in ids]
    assert [(claim.variant, claim.model) for claim in claims] == [("a", "fast"), ("b", "slow")] * 3
    assert all(scene.finish("w1", claim) for claim in claims)
    assert scene.read_batch(head.id).status == "ended"
    assert [(q.queued, q.running) for q in scene.store.run(operations.read_queues(list(queued)))] == [(0, 0)] * 2


def test_a_batch_waits_for_a_gate_only_if_all_its_queues_are_closed(scene: Scene) -> None:
    """One open queue is enough to go on; its threads are those of its best served queue."""
    head, _ = scene.stage(2, [Route("a", "fast"), Route("b", "slow")])
    scene.store.run(operations.commit_batch(head, b"{}", 2, MANY, scene.now, {"dspy.fast": 1, "dspy.slow": 1}))
    for worker, threads, queues in (("w1", 4, ["dspy.fast"]), ("w2", 3, ["dspy.slow"]), ("w3", 2, ["dspy.slow"])):
        described = b'{"concurrency": %d}' % threads
        scene.store.run(operations.renew_worker(worker, 60, described, queues, scene.now))
    release = scene.store.run(operations.read_release(head.id, scene.now))
    assert release is not None
    assert (release.slots, scene.read_batch(head.id).workers) == (5, 2)
    scene.store.run(gates.close_gate("dspy.fast", WaitReason.PAUSED))
    assert scene.read_batch(head.id).gate is None
    scene.store.run(gates.close_gate("dspy.slow", WaitReason.PAUSED))
    gate = scene.read_batch(head.id).gate
    assert gate is not None
    assert gate.reason == "paused"


def test_an_upload_is_invisible_until_it_is_committed(scene: Scene) -> None:
    """Jobs of an upload are neither read nor listed nor counted, and show up with the batch."""
    head, ids = scene.stage(2)
    assert scene.store.run(operations.read_jobs(ids)) == [None, None]
    assert scene.store.run(operations.read_queues([QUEUE]))[0].queued == 0
    scene.store.run(operations.commit_batch(head, b"{}", 2, MANY, scene.now))
    assert [job.status for job in scene.store.run(operations.read_jobs(ids)) if job] == ["queued"] * 2


def test_discarding_removes_everything_and_spares_a_batch(scene: Scene) -> None:
    """Discarded in steps an upload leaves no key; once it is a batch, discarding does nothing."""
    head, _ = scene.stage(3)
    assert [scene.store.run(operations.discard_staged(head.id, 2)) for _ in range(2)] == [1, 0]
    assert not list(scene.store.redis.scan_iter())
    batch_id, ids = scene.batch(2)
    assert scene.store.run(operations.discard_staged(batch_id)) == 0
    assert scene.job(ids[0]).status == "queued"


def test_submitting_twice_is_submitting_once(scene: Scene) -> None:
    """A submit or commit repeated because its answer was lost gives the same answer and changes nothing."""
    job_id = scene.submit()
    batch_id, ids = scene.batch(2)
    scene.run(ids[0])
    head = operations.BatchHead(batch_id, QUEUE, STEP, "qa", "fast", 3, LIFETIMES)
    job = operations.submit_job(job_id, b"{}", QUEUE, STEP, {"program": "qa"}, LIFETIMES, MANY, scene.now + 5)
    assert scene.store.run(job) == (True, scene.now)
    assert scene.store.run(operations.commit_batch(head, b"{}", 2, MANY, scene.now + 5)) == ("accepted", scene.now)
    assert scene.store.run(operations.read_queues([QUEUE]))[0].queued == 2
    assert scene.read_batch(batch_id).fields["succeeded"] == "1"


# ---- run -------------------------------------------------------------------------------------------------------


def test_a_job_that_did_not_start_in_time_expires(scene: Scene) -> None:
    """It expires at its first claim after that time; a batch of nothing else has ended as expired."""
    batch_id, ids = scene.batch(1)
    scene.take("w1", *ids)
    scene.now += LIFETIMES.expires_in
    assert scene.store.run(operations.claim_job("w1", ids[0], "n", now_ms=scene.now)) == NotClaimed("expired")
    job = scene.job(ids[0])
    assert job.status == "expired"
    assert job.outcome is not None
    assert job.outcome["problem"]["code"] == "expired"
    assert scene.read_batch(batch_id).fields["ended_reason"] == "expired"


def test_a_job_that_has_started_never_expires(scene: Scene) -> None:
    """A retry after the time to start is still run."""
    claim = scene.claim("w1", scene.submit())
    scene.store.run(operations.retry_later("w1", claim, b"{}", 60, "retry_scheduled", Bill(), scene.now))
    scene.now += LIFETIMES.expires_in + 60_000
    scene.store.run(operations.wake_delayed(now_ms=scene.now))
    assert scene.claim("w1", claim.id).attempt == 2


def test_a_late_outcome_does_not_touch_the_next_attempt_of_the_same_worker(scene: Scene) -> None:
    """A worker thought lost takes its job again; its first attempt's end leaves the second held and cancelable."""
    first = scene.claim("w1", scene.submit())
    scene.now += 60_000
    assert scene.store.run(operations.recover_lost(3, now_ms=scene.now)) == (1, 0)
    second = scene.claim("w1", first.id)
    scene.store.run(operations.cancel_job(first.id, scene.now))
    assert scene.finish("w1", first) is False
    retry = operations.retry_later("w1", first, b"{}", 1, "retry_scheduled", Bill(), scene.now)
    assert scene.store.run(retry) == "stale"
    assert scene.held("w1") == {first.id}
    assert scene.store.run(operations.renew_worker("w1", 1, b"{}", [QUEUE], scene.now)).to_stop == [first.id]
    assert scene.finish("w1", second, "canceled") is True


def test_handing_back_a_job_another_thread_runs_changes_nothing(scene: Scene) -> None:
    """Two threads of a worker got the same message; the one that drains does not let go of what the other runs."""
    claim = scene.claim("w1", scene.submit())
    assert scene.store.run(operations.hand_back("w1", [claim.id], 1, scene.now)) == 0
    assert scene.held("w1") == {claim.id}


def test_a_worker_without_a_lease_that_takes_a_job_can_be_found_lost(scene: Scene) -> None:
    """What a worker took between being thought lost and its next sign of life is recovered too."""
    job_id = scene.submit()
    scene.take("w1", job_id)
    assert scene.store.run(operations.recover_lost(3, now_ms=scene.now)) == (0, 0)
    assert scene.store.run(operations.recover_lost(3, now_ms=scene.now + 60_000)) == (1, 0)
    assert scene.waiting() == [job_id]


def test_a_job_that_keeps_losing_its_worker_fails(scene: Scene) -> None:
    """At the largest number of losses the job fails as `worker_lost`, with each lost attempt on record."""
    job_id = scene.submit()
    for expected in ((1, 0), (1, 1)):
        scene.claim("w1", job_id)
        scene.now += 60_000
        recovered, failed = scene.store.run(operations.recover_lost(2, now_ms=scene.now))
        assert (recovered or 1, failed) == expected
    job = scene.job(job_id)
    assert (job.status, [attempt["number"] for attempt in job.attempts]) == ("failed", [1, 2])
    assert job.outcome is not None
    assert job.outcome["problem"]["code"] == "worker_lost"


def test_what_attempts_used_is_summed_in_their_batch(scene: Scene) -> None:
    """Tokens, calls and cost of failed and final attempts add up; an unknown price is counted, not taken for 0."""
    batch_id, ids = scene.batch(2)
    claim = scene.claim("w1", ids[0])
    scene.store.run(operations.retry_later("w1", claim, b"{}", 0, "retry_scheduled", bill(1, 2, 3, 4), scene.now))
    scene.store.run(operations.wake_delayed(now_ms=scene.now))
    scene.finish("w1", scene.claim("w1", ids[0]), bill=bill(10, 20, 30, 40))
    scene.finish("w1", scene.claim("w1", ids[1]), bill=bill(100, 200, 300, None))
    fields = scene.read_batch(batch_id).fields
    used = {name: int(fields[name]) for name in ("input_tokens", "output_tokens", "calls", "cost", "unpriced")}
    assert used == {"input_tokens": 111, "output_tokens": 222, "calls": 333, "cost": 44, "unpriced": 1}


def test_a_remainder_gives_way_to_as_many_urgent_messages_as_wait(scene: Scene) -> None:
    """With one urgent message one thread yields, the next goes on; without the wish to yield nobody does."""
    ids = [scene.submit() for _ in range(3)]
    scene.take("w1", *ids)
    scene.store.redis.lpush(names.queue_list(QUEUE, 0), "urgent")
    wishes = zip(ids, (True, True, False), strict=True)
    claims = [operations.claim_job("w1", job_id, "n", may_yield, scene.now) for job_id, may_yield in wishes]
    reasons = [getattr(scene.store.run(claim), "reason", "claimed") for claim in claims]
    assert reasons == ["urgent", "claimed", "claimed"]


# ---- change ------------------------------------------------------------------------------------------------------


def test_a_job_canceled_before_it_was_sent_and_retried_is_sent_once(scene: Scene) -> None:
    """The release of its batch passes it over: it is not waiting while it runs."""
    batch_id, ids = scene.batch(2, released=0)
    scene.store.run(operations.cancel_job(ids[0], scene.now))
    assert scene.store.run(operations.retry_jobs([ids[0]], LIFETIMES, now_ms=scene.now)) == (1, "")
    scene.claim("w1", ids[0])
    assert scene.store.run(operations.release_jobs(batch_id, 0, [2], scene.now)) == 2
    assert scene.waiting() == [ids[1]]


def test_a_job_canceled_while_parked_and_retried_is_sent_once(scene: Scene) -> None:
    """Resuming its batch does not send it a second time."""
    batch_id, ids = scene.batch(2)
    scene.store.run(operations.pause_batch(batch_id))
    scene.take("w1", *ids)
    scene.store.run(operations.cancel_job(ids[0], scene.now))
    scene.store.run(operations.retry_jobs([ids[0]], LIFETIMES, now_ms=scene.now))
    assert scene.store.run(operations.resume_batch(batch_id, 5, limit=0))[0] == "paused"
    scene.claim("w1", ids[0])
    scene.store.run(operations.resume_batch(batch_id, 5))
    assert scene.waiting() == [ids[1]]


def test_a_job_canceled_while_held_and_retried_is_the_next_takers(scene: Scene) -> None:
    """The worker that held it before cannot start it past the new message."""
    job_id = scene.submit()
    scene.take("w1", job_id)
    scene.store.run(operations.cancel_job(job_id, scene.now))
    scene.store.run(operations.retry_jobs([job_id], LIFETIMES, now_ms=scene.now))
    assert scene.store.run(operations.claim_job("w1", job_id, "n", now_ms=scene.now)) == NotClaimed("gone")
    assert scene.claim("w2", job_id).attempt == 1


def test_a_job_that_expired_while_parked_and_was_retried_is_sent_once(scene: Scene) -> None:
    """The paused batch's list still names it, and its resumption does not send it a second time."""
    batch_id, ids = scene.batch(2)
    scene.store.run(operations.pause_batch(batch_id))
    scene.take("w1", ids[0])
    scene.now += LIFETIMES.expires_in
    scene.store.run(recovery.expire_due(1, 0, [QUEUE], now_ms=scene.now))
    scene.store.run(operations.retry_jobs([ids[0]], LIFETIMES, now_ms=scene.now))
    scene.store.run(operations.resume_batch(batch_id, 5, limit=0))
    scene.claim("w1", ids[0])
    scene.store.run(operations.resume_batch(batch_id, 5))
    assert scene.waiting() == [ids[1]]


def test_a_parked_job_is_sent_to_the_queue_it_fell_back_to(scene: Scene) -> None:
    """Resuming its batch sends it to its own model's queue, where a worker can take it."""
    batch_id, ids = scene.batch(1)
    claim = scene.claim("w1", ids[0])
    fall_back = operations.retry_later(
        "w1", claim, b"{}", 0, "retry_scheduled", Bill(), fall_back_to="slow", now_ms=scene.now
    )
    scene.store.run(fall_back)
    scene.store.run(operations.pause_batch(batch_id))
    scene.store.run(operations.wake_delayed(now_ms=scene.now))
    assert scene.take("w1", *ids) == []
    scene.store.run(operations.resume_batch(batch_id, 5, now_ms=scene.now))
    assert (scene.waiting(), scene.waiting("dspy.slow")) == ([], ids)
    assert scene.claim("w1", ids[0]).model == "slow"


def test_a_stopping_worker_ends_what_was_to_be_canceled(scene: Scene) -> None:
    """A job whose cancellation was asked for is canceled, not queued again; the cut attempt stays on record."""
    canceled, running = scene.claim("w1", scene.submit()), scene.claim("w1", scene.submit())
    scene.store.run(operations.cancel_job(canceled.id, scene.now))
    assert scene.store.run(recovery.surrender_jobs("w1", now_ms=scene.now)) == 2
    assert [scene.job(claim.id).status for claim in (canceled, running)] == ["canceled", "queued"]
    assert [attempt["number"] for attempt in scene.job(canceled.id).attempts] == [1]
    assert scene.finish("w1", canceled) is False


def test_a_retry_by_hand_starts_every_count_anew(scene: Scene) -> None:
    """Neither failed tries nor rate limits of the time before are held against the job."""
    job_id = scene.submit()
    for counter in ("tries", "limited"):
        claim = scene.claim("w1", job_id)
        later = operations.retry_later(
            "w1", claim, b"{}", 0, "retry_scheduled", Bill(), counter=counter, now_ms=scene.now
        )
        scene.store.run(later)
        scene.store.run(operations.wake_delayed(now_ms=scene.now))
    claim = scene.claim("w1", job_id)
    assert (claim.tries, claim.limited) == (1, 1)
    scene.finish("w1", claim, "failed")
    scene.store.run(operations.retry_jobs([job_id], LIFETIMES, now_ms=scene.now))
    claim = scene.claim("w1", job_id)
    assert (claim.tries, claim.limited) == (0, 0)


def test_an_erased_job_that_was_never_sent_stays_out_of_lists(scene: Scene) -> None:
    """A job canceled and erased before its batch sent it is not listed when the release passes it."""
    batch_id, ids = scene.batch(1, released=0)
    other, _ = scene.batch(1, released=0)
    scene.store.run(operations.cancel_job(ids[0], scene.now))
    scene.store.run(operations.erase_job(ids[0]))
    scene.store.run(operations.release_jobs(other, 0, [1], scene.now))
    assert ids[0] not in scene.store.run(operations.list_jobs("", 10, operations.JobFilter()))[1]
    assert scene.read_batch(batch_id).fields["ended_reason"] == "completed"


def test_a_retried_job_keeps_its_last_attempt_on_record(scene: Scene) -> None:
    """The attempt that ended it joins the others, the outcome goes, and attempt numbers go on."""
    batch_id, ids = scene.batch(1)
    scene.run(ids[0], "failed")
    assert scene.store.run(operations.retry_jobs(ids, LIFETIMES, now_ms=scene.now)) == (1, "")
    job = scene.job(ids[0])
    assert (job.status, job.outcome, [a["number"] for a in job.attempts]) == ("queued", None, [1])
    assert scene.read_batch(batch_id).status == "in_progress"
    assert scene.claim("w1", ids[0]).attempt == 2


def test_a_job_whose_batch_is_gone_is_not_retried(scene: Scene) -> None:
    """Without the batch's record a retry is refused and changes nothing."""
    batch_id, ids = scene.batch(1)
    scene.run(ids[0], "failed")
    scene.store.redis.delete(names.batch(batch_id))
    assert scene.store.run(operations.retry_jobs(ids, LIFETIMES, now_ms=scene.now)) == (0, "gone")
    assert scene.job(ids[0]).status == "failed"


def test_canceling_a_batch_that_is_gone_takes_it_off_the_chores(scene: Scene) -> None:
    """The housekeepers do not go on for ever about a batch whose record is gone."""
    scene.store.redis.sadd(names.CANCELING, "batch_x")
    assert scene.store.run(operations.cancel_batch("batch_x")) == ("missing", -1)
    assert scene.store.run(operations.find_chores(0)).canceling == []


def test_chores_name_what_is_half_done(scene: Scene) -> None:
    """Batches half sent or half canceled and uploads left alone are found; paused ones wait for their resumption."""
    half_sent, _ = scene.batch(2, released=1)
    paused, _ = scene.batch(2, released=1)
    scene.store.run(operations.pause_batch(paused))
    half_canceled, _ = scene.batch(2)
    scene.store.run(operations.cancel_batch(half_canceled, limit=1))
    left_alone, _ = scene.stage(1)
    scene.now += 1000
    scene.stage(1)
    chores = scene.store.run(operations.find_chores(1000, now_ms=scene.now))
    assert (chores.releasing, chores.canceling, chores.abandoned) == ([half_sent], [half_canceled], [left_alone.id])


def test_releasing_no_jobs_releases_no_jobs(scene: Scene) -> None:
    """A release without chunks leaves the batch where it was."""
    batch_id, ids = scene.batch(2, released=0)
    assert scene.store.run(operations.release_jobs(batch_id, 0, [], scene.now)) == 0
    assert scene.store.run(operations.release_jobs(batch_id, 0, [2], scene.now)) == 2
    assert scene.waiting() == ids


def test_messages_are_celerys(scene: Scene) -> None:
    """A chunk's message carries its job ids as the task's only argument and a delivery tag of its own."""
    head, ids = scene.stage(3)
    scene.store.run(operations.commit_batch(head, b"{}", 3, MANY, scene.now))
    scene.store.run(operations.release_jobs(head.id, 0, [2, 1], scene.now))
    raws = [orjson.loads(raw) for raw in reversed(scene.store.redis.lrange(names.queue_list(QUEUE, STEP), 0, -1))]
    assert [orjson.loads(raw["body"])[0] for raw in raws] == [[ids[:2]], [ids[2:]]]
    assert len({raw["properties"]["delivery_tag"] for raw in raws}) == 2
    assert {raw["headers"]["task"] for raw in raws} == {names.TASK}
