"""A store with callers and workers to act at it, for tests that tell one story each."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import orjson

from dspy_jobs import names
from dspy_jobs.messages import job_ids
from dspy_jobs.states import Priority
from dspy_jobs.store import SyncStore, operations
from dspy_jobs.store.books import Bill, BilledCall
from dspy_jobs.store.operations import BatchHead, Lifetimes, Route
from dspy_jobs.store.records import Claim, StoredBatch, StoredJob

QUEUE = "dspy.fast"
STEP = 6
LIFETIMES = Lifetimes(expires_in=50_000, retention=400_000, tombstone=3_000_000)
MANY = 10_000


def bill(input_tokens: int, output_tokens: int, calls: int, cost_nanos: int | None) -> Bill:
    """A bill of so many calls, the first of which used everything."""
    nothing = BilledCall(0, 0, None, None, 0)
    return Bill([BilledCall(input_tokens, output_tokens, None, None, cost_nanos), *[nothing] * (calls - 1)])


class Scene:
    """Acts at a store; its clock stands still until a test moves it."""

    def __init__(self, store: SyncStore) -> None:
        self.store = store
        self.now = 2_000_000_000_000
        self._serial = itertools.count(1)

    def new(self, kind: str) -> str:
        """An id that sorts after all before it."""
        return f"{kind}_{next(self._serial):04}"

    def submit(self, queue: str = QUEUE, limit: int = MANY, step: int = STEP, **fields: Any) -> str:
        """Submit a job, which must be accepted."""
        job_id = self.new("job")
        fields = {"program": "qa", "model": "fast", "max_attempts": 3} | fields
        operation = operations.submit_job(job_id, b'{"own":1}', queue, step, fields, LIFETIMES, limit, self.now)
        assert self.store.run(operation) == (True, self.now)
        return job_id

    def stage(self, size: int, routes: Sequence[Route] = ()) -> tuple[BatchHead, list[str]]:
        """Upload a batch's items."""
        head = BatchHead(self.new("batch"), QUEUE, STEP, "qa", "fast", 3, LIFETIMES)
        ids = [self.new("job") for _ in range(size)]
        items = [(job_id, b'{"own":1}') for job_id in ids]
        assert self.store.run(operations.stage_items(head, items, self.now, routes)) == size
        return head, ids

    def batch(self, size: int, released: int | None = None) -> tuple[str, list[str]]:
        """Submit a batch and send some of its jobs, all by default, one a message."""
        head, ids = self.stage(size)
        commit = operations.commit_batch(head, b'{"shared":1}', size, MANY, self.now)
        assert self.store.run(commit) == ("accepted", self.now)
        count = size if released is None else released
        self.store.run(operations.release_jobs(head.id, 0, [1] * count, self.now))
        return head.id, ids

    def take(self, worker: str, *ids: str) -> list[str]:
        """Receive a message. Answers the jobs that were taken."""
        return [taken.id for taken in self.store.run(operations.take_jobs(worker, ids, self.now))]

    def claim(self, worker: str, job_id: str) -> Claim:
        """Take a job and start it."""
        self.take(worker, job_id)
        claim = self.store.run(operations.claim_job(worker, job_id, self.new("nonce"), now_ms=self.now))
        assert isinstance(claim, Claim), claim
        return claim

    def finish(self, worker: str, claim: Claim, status: str = "succeeded", bill: Bill = Bill()) -> bool:  # noqa: B008
        """End an attempt."""
        state = {"succeeded": "SUCCESS", "failed": "FAILURE", "canceled": "REVOKED"}[status]
        outcome = orjson.dumps({"status": state, "task_id": claim.id, "attempt": {"number": claim.attempt}})
        return self.store.run(operations.finish_job(worker, claim, status, outcome, bill, self.now))

    def run(self, job_id: str, status: str = "succeeded") -> None:
        """Run a job to its end."""
        assert self.finish("w1", self.claim("w1", job_id), status)

    def job(self, job_id: str) -> StoredJob:
        """A job as it is now."""
        job = self.store.run(operations.read_jobs([job_id], now_ms=self.now))[0]
        assert job is not None
        return job

    def read_batch(self, batch_id: str) -> StoredBatch:
        """A batch as it is now."""
        batch = self.store.run(operations.read_batch(batch_id, self.now))
        assert batch is not None
        return batch

    def waiting(self, queue: str = QUEUE) -> list[str]:
        """Jobs of a queue with a message under way."""
        steps = [priority.step for priority in Priority]
        found = [self.store.redis.zrange(names.queue_waiting(queue, step), 0, -1) for step in steps]
        return [job_id.decode() for ids in found for job_id in ids]

    def messages(self, queue: str) -> list[list[str]]:
        """The jobs of each message of a queue, the next one first."""
        raw = self.store.redis.lrange(names.queue_list(queue, STEP), 0, -1)
        return [job_ids(message) for message in reversed(raw)]

    def held(self, worker: str) -> set[str]:
        """Jobs a worker holds."""
        return {job_id.decode() for job_id in self.store.redis.smembers(names.worker_held(worker))}

    def lifetime(self, key: str) -> int:
        """Milliseconds a key still lives, rounded up to a second."""
        return -(-self.store.redis.pttl(key) // 1000) * 1000
