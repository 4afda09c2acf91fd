"""What dying processes, lost messages and passed times leave, and how it is put right."""

from __future__ import annotations

from collections.abc import Callable

import orjson
import pytest

from dspy_jobs import chores, names
from dspy_jobs.ids import new_batch_id, new_job_id
from dspy_jobs.settings import JobSettings, Settings
from dspy_jobs.store import SyncStore, operations, recovery
from dspy_jobs.store.books import Bill

QUEUE = names.queue("m")
LIFETIMES = operations.Lifetimes.of(JobSettings())


def submit(store: SyncStore, now: int, step: int = 3, expires_in: float | None = None) -> str:
    """Queue a job at a time."""
    job_id = new_job_id()
    fields = {"program": "p", "model": "m", "max_attempts": 3}
    lifetimes = operations.Lifetimes.of(JobSettings(), expires_in)
    store.run(operations.submit_job(job_id, b'{"inputs":{}}', QUEUE, step, fields, lifetimes, 1000, now_ms=now))
    return job_id


def submit_batch(store: SyncStore, now: int, jobs: int, expires_in: float) -> str:
    """Queue a batch at a time, sending none of its messages."""
    lifetimes = operations.Lifetimes.of(JobSettings(), expires_in)
    head = operations.BatchHead(new_batch_id(), QUEUE, 6, "p", "m", 3, lifetimes)
    store.run(operations.stage_items(head, [(new_job_id(), b'{"inputs":{}}') for _ in range(jobs)], now_ms=now))
    store.run(operations.commit_batch(head, orjson.dumps({"program": "p"}), jobs, 10_000, now_ms=now))
    return head.id


def status(store: SyncStore, job_id: str) -> str:
    """A job's status."""
    job = store.run(operations.read_jobs([job_id]))[0]
    assert job is not None
    return job.status


def messages(store: SyncStore, step: int = 3) -> int:
    """Messages in the queue."""
    return int(store.redis.llen(names.queue_list(QUEUE, step)))


def test_a_job_whose_message_vanished_is_sent_again(store: SyncStore) -> None:
    """With the list empty, a job that still waits after the grace has lost its message."""
    submit(store, now=1000)
    store.redis.delete(names.queue_list(QUEUE, 3))
    assert store.run(recovery.resend_lost(QUEUE, now_ms=5000)) == 0
    assert store.run(recovery.resend_lost(QUEUE, now_ms=7000)) == 1
    assert messages(store) == 1


def test_a_message_lost_from_a_busy_queue_is_found(store: SyncStore) -> None:
    """The queue is first in, first out: a job older than its oldest message must have lost its own."""
    submit(store, now=1000)
    store.redis.rpop(names.queue_list(QUEUE, 3))
    for n in range(5):
        submit(store, now=20_000 + n)
    assert store.run(recovery.resend_lost(QUEUE, now_ms=21_000)) == 1
    assert messages(store) == 6


def test_jobs_that_only_wait_long_are_left_alone(store: SyncStore) -> None:
    """However long the queue, a job whose message is in it is not sent twice."""
    for n in range(50):
        submit(store, now=1000 + n)
    assert store.run(recovery.resend_lost(QUEUE, now_ms=1_000_000)) == 0


def test_a_lost_message_of_another_priority_is_found(store: SyncStore) -> None:
    """Old jobs of a low priority hide no lost ones of a higher."""
    for n in range(300):
        submit(store, now=1000 + n, step=6)
    submit(store, now=50_000, step=3)
    store.redis.delete(names.queue_list(QUEUE, 3))
    assert store.run(recovery.resend_lost(QUEUE, now_ms=100_000)) == 1


def test_a_late_job_expires_without_any_worker(store: SyncStore) -> None:
    """A job that did not start in time ends as expired, and its neighbours do not."""
    late, early = submit(store, now=1000, expires_in=5), submit(store, now=1000, expires_in=500)
    store.run(recovery.expire_due(500, 86_400, [QUEUE], now_ms=7000))
    assert (status(store, late), status(store, early)) == ("expired", "queued")


def test_usual_jobs_are_found_by_the_age_of_their_messages(store: SyncStore) -> None:
    """A job that asked for no time of its own expires after the usual one; one that may wait longer does not."""
    usual, patient = submit(store, now=1000), submit(store, now=1000, expires_in=10**6)
    looked_at = [store.run(recovery.expire_due(10, 86_400, [QUEUE], now_ms=90_000_000)) for _ in range(2)]
    assert looked_at == [2, 0]
    assert (status(store, usual), status(store, patient)) == ("expired", "queued")


def test_a_batch_expires_in_bounded_steps(store: SyncStore) -> None:
    """A batch's jobs expire a few at a time until all have, and it ends as expired."""
    batch_id = submit_batch(store, now=1000, jobs=25, expires_in=5)
    looked_at = [store.run(recovery.expire_due(10, 86_400, [QUEUE], now_ms=9000)) for _ in range(4)]
    assert looked_at == [10, 10, 5, 0]
    batch = store.run(operations.read_batch(batch_id))
    assert batch is not None
    assert (batch.fields["expired"], batch.fields["ended_reason"]) == ("25", "expired")


def test_a_started_job_never_expires(store: SyncStore) -> None:
    """Once an attempt began, the time to start no longer matters."""
    job_id = submit(store, now=1000, expires_in=5)
    store.run_all([operations.take_jobs("w", [job_id]), operations.claim_job("w", job_id, "n", now_ms=2000)])
    store.run(recovery.expire_due(500, 86_400, [QUEUE], now_ms=9000))
    assert status(store, job_id) == "running"


def test_a_stopping_worker_gives_everything_back(store: SyncStore) -> None:
    """What it ran and what it only held is queued again with a message, and no attempt was charged."""
    ids = [submit(store, now=1000) for _ in range(3)]
    store.redis.delete(names.queue_list(QUEUE, 3))
    store.run_all([operations.take_jobs("w", ids), operations.claim_job("w", ids[0], "n", now_ms=2000)])
    assert store.run(recovery.surrender_jobs("w")) == 3
    assert [status(store, job_id) for job_id in ids] == ["queued"] * 3
    assert messages(store) == 3
    job = store.run(operations.read_jobs([ids[0]]))[0]
    assert job is not None
    assert "tries" not in job.fields
    assert job.attempts[0]["error"]["code"] == "worker_lost"


def test_a_finish_after_recovery_is_discarded(store: SyncStore) -> None:
    """A worker presumed dead comes back with its result: the fencing token is stale, nothing changes."""
    job_id = submit(store, now=1000)
    store.run(operations.renew_worker("w", 1, b"{}", [QUEUE], now_ms=1000))
    claim = store.run_all([operations.take_jobs("w", [job_id]), operations.claim_job("w", job_id, "n", now_ms=1500)])[1]
    assert store.run(operations.recover_lost(3, now_ms=60_000)) == (1, 0)
    finished = operations.finish_job("w", claim, "succeeded", b'{"status":"SUCCESS"}', Bill())
    assert store.run(finished) is False
    assert status(store, job_id) == "queued"


def test_live_workers_keep_their_jobs_over_an_outage(store: SyncStore) -> None:
    """Leases that ran out while nobody could renew them are no loss: workers get a lease's time to come back."""
    job_id = submit(store, now=1000)

    def look(now: int) -> tuple[int, int]:
        return store.run(operations.recover_lost(3, now_ms=now, grace_seconds=10))

    assert look(1000) == (0, 0)
    store.run(operations.renew_worker("w", 10, b"{}", [QUEUE], now_ms=1000))
    store.run_all([operations.take_jobs("w", [job_id]), operations.claim_job("w", job_id, "n", now_ms=1500)])
    assert [look(now) for now in (60_000, 64_000, 69_000)] == [(0, 0)] * 3
    assert look(70_000) == (1, 0), "it did not come back"


def test_the_third_lost_worker_fails_the_job(store: SyncStore) -> None:
    """A job that kills its workers ends as `worker_lost`, with its inputs kept and every attempt on record."""
    job_id = submit(store, now=1000)
    outcomes = []
    for n in range(3):
        now = 10_000 * (n + 1)
        store.run(operations.renew_worker(f"w{n}", 1, b"{}", [QUEUE], now_ms=now))
        store.run_all(
            [operations.take_jobs(f"w{n}", [job_id]), operations.claim_job(f"w{n}", job_id, "n", now_ms=now + 1)]
        )
        outcomes.append(store.run(operations.recover_lost(3, now_ms=now + 5000)))
    assert outcomes == [(1, 0), (1, 0), (0, 1)]
    job = store.run(operations.read_jobs([job_id]))[0]
    assert job is not None
    assert (job.status, len(job.attempts), job.request) == ("failed", 3, {"inputs": {}})


def test_old_records_that_live_on_hide_no_others(store: SyncStore) -> None:
    """Wherever among the old ids it looks, in time the index forgets every one whose record is gone."""
    ids = sorted(submit(store, now=1000) for _ in range(6))
    store.redis.delete(*(key(job_id) for job_id in ids[4:] for key in (names.job, names.job_request)))
    for share in (0.0, 0.5, 0.99):
        store.run(recovery.trim_index(2**47, limit=2, share=share))
    assert [raw.decode() for raw in store.redis.zrange(names.JOBS, 0, -1)] == ids[:4]


def test_a_retried_job_of_a_batch_leaves_no_reminder(store: SyncStore) -> None:
    """The list of what expires forgets it once it starts."""
    batch_id = submit_batch(store, 1000, 1, 3600)
    [job_id] = [raw.decode() for raw in store.redis.lrange(names.batch_jobs(batch_id), 0, -1)]
    store.run(operations.cancel_job(job_id))
    lifetimes = operations.Lifetimes.of(JobSettings())
    store.run(operations.retry_jobs([job_id], lifetimes))
    assert job_id.encode() in store.redis.zrange(names.EXPIRING, 0, -1)
    store.run_all([operations.take_jobs("w", [job_id]), operations.claim_job("w", job_id, "n")])
    assert job_id.encode() not in store.redis.zrange(names.EXPIRING, 0, -1)


@pytest.mark.parametrize("age_ms", [0, 10**9])
def test_the_index_forgets_only_what_is_gone(store: SyncStore, age_ms: int) -> None:
    """Ids are trimmed by age, and only when their records are gone."""
    kept, gone = submit(store, now=1000), submit(store, now=1000)
    store.redis.delete(names.job(gone), names.job_request(gone))
    store.run(recovery.trim_index(2**47 if age_ms else 0))
    left = {raw.decode() for raw in store.redis.zrange(names.JOBS, 0, -1)}
    assert left == ({kept} if age_ms else {kept, gone})


def test_chores_do_everything_in_one_round(store: SyncStore, write_config: Callable[..., Settings]) -> None:
    """The round that every live process does finds work of each kind and leaves none."""
    submit(store, now=1000, expires_in=0.001)
    store.follow(chores.all_chores(write_config()))
    assert store.redis.zcard(names.EXPIRING) == 0
