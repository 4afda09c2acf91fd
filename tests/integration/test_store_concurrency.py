"""Many threads at the same jobs at once: what is atomic one by one is exact together."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import orjson

from dspy_jobs import names
from dspy_jobs.messages import job_ids
from dspy_jobs.store import SyncStore, connect, operations
from dspy_jobs.store.books import Bill
from dspy_jobs.store.records import Claim
from tests.integration.store_scene import QUEUE, STEP, Scene, bill
from tests.integration.store_truth import (
    Known,
    check_batches,
    check_counts,
    check_outcomes,
    check_places,
    read_truth,
)

THREADS = 8
#: Seconds after which a thread gives up, so that a broken store fails the test instead of hanging it.
PATIENCE = 60


class Rival:
    """A worker's thread that takes, claims, finishes, hands back, cancels, also what is not its own."""

    def __init__(self, url: str, number: int, ids: list[str]) -> None:
        self.store = SyncStore(connect(url))
        self.name, self.ids = f"w{number}", ids
        self.chance = random.Random(number)
        self.ended, self.stale = Counter[str](), 0
        self.claims: list[Claim] = []

    def run(self) -> Rival:
        """Until every job has ended."""
        deadline = time.monotonic() + PATIENCE
        while self._left() and time.monotonic() < deadline:
            raw = self.store.redis.rpop(names.queue_list(QUEUE, STEP))
            again = self.chance.random() < 0.2
            ids = job_ids(raw) if isinstance(raw, bytes) else []
            ids += self.chance.choices(self.ids, k=3) if again else []
            if ids:
                taken = self.store.run(operations.take_jobs(self.name, list(dict.fromkeys(ids))))
                self._work_on([job.id for job in taken])
            self.store.run(operations.wake_delayed())
        self.store.redis.close()
        return self

    def _left(self) -> int:
        numbers = self.store.run(operations.read_queues([QUEUE]))[0]
        return numbers.queued + numbers.running

    def _work_on(self, taken: list[str]) -> None:
        for job_id in taken:
            act = self.chance.choice([self._finish] * 4 + [self._hand_back, self._cancel, self._retry])
            act(job_id)

    def _claim(self, job_id: str) -> Claim | None:
        nonce = str(self.chance.random())
        claim = self.store.run(operations.claim_job(self.name, job_id, nonce))
        if not isinstance(claim, Claim):
            return None
        assert self.store.run(operations.claim_job(self.name, job_id, nonce)) == claim
        self.claims.append(claim)
        return claim

    def _finish(self, job_id: str) -> None:
        if claim := self._claim(job_id):
            outcomes = [orjson.dumps({"status": "SUCCESS", "task_id": job_id, "by": [self.name, n]}) for n in range(2)]
            finish, again = (
                operations.finish_job(self.name, claim, "succeeded", outcome, bill(1, 1, 1, 1)) for outcome in outcomes
            )
            finished = self.store.run(finish)
            assert self.store.run(finish) == finished, "asked again, as if the answer had been lost"
            self.ended[job_id] += finished
            self.stale += self.store.run(again)

    def _hand_back(self, job_id: str) -> None:
        self.store.run(operations.hand_back(self.name, [job_id], 2))

    def _cancel(self, job_id: str) -> None:
        other = self.chance.choice(self.ids)
        self.store.run(operations.cancel_job(other))
        self._finish(job_id)

    def _retry(self, job_id: str) -> None:
        if claim := self._claim(job_id):
            retry = operations.retry_later(self.name, claim, b"{}", 0, "retry_scheduled", Bill())
            self.store.run(retry)


def test_rivals_end_each_job_exactly_once(store: SyncStore, redis_url: str) -> None:
    """Eight threads at the same jobs: every job ends once, no late end counts, and all counts are exact."""
    scene = Scene(store)
    scene.now = time.time_ns() // 1_000_000
    batches = [scene.batch(40) for _ in range(2)]
    ids = [job_id for _, members in batches for job_id in members] + [scene.submit() for _ in range(40)]
    start = threading.Barrier(THREADS)

    def run(number: int) -> Rival:
        rival = Rival(redis_url, number, ids)
        start.wait()
        return rival.run()

    with store.redis.pubsub() as events, ThreadPoolExecutor(THREADS) as pool:
        events.subscribe(names.DONE_CHANNEL)
        assert events.get_message(timeout=5)
        rivals = list(pool.map(run, range(THREADS)))
        announced = Counter[str]()
        events.ping()
        while (message := events.get_message(timeout=5))["type"] != "pong":
            announced[message["data"].decode()] += 1
    truth = read_truth(store.redis, ids, [b for b, _ in batches], Known([QUEUE], [r.name for r in rivals]))
    statuses = truth.statuses()
    finished = sum((rival.ended for rival in rivals), Counter[str]())
    assert set(statuses) <= {"succeeded", "canceled"}
    assert sum(rival.stale for rival in rivals) == 0
    assert finished == Counter(job_id for job_id in ids if truth.jobs[job_id]["status"] == "succeeded")
    assert announced == Counter([*ids, *(batch_id for batch_id, _ in batches)])
    assert len({(claim.id, claim.attempt) for r in rivals for claim in r.claims}) == sum(len(r.claims) for r in rivals)
    check_counts(truth)
    check_places(truth, set())
    check_outcomes(truth, Counter(ids), set())
    check_batches(truth)
