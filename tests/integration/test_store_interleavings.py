"""Any order of the store's operations keeps its promises: a search through interleavings, crashes and losses.

`STORE_EXAMPLES=5000 python -m pytest -n 0 --timeout 0 tests/integration/test_store_interleavings.py` looks longer.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

import hypothesis.strategies as st
import orjson
import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from dspy_jobs import names
from dspy_jobs.messages import job_ids
from dspy_jobs.states import Priority
from dspy_jobs.store import SyncStore, gates, operations, recovery
from dspy_jobs.store import script as scripts
from dspy_jobs.store.books import Bill, BilledCall, record_calls
from dspy_jobs.store.counted import fold_books, read_counted
from dspy_jobs.store.demand import read_outstanding
from dspy_jobs.store.flights import Answered, Flight, send_waiting, settle_answered
from dspy_jobs.store.operations import EXPIRED, BatchHead, Lifetimes, Route
from dspy_jobs.store.records import Claim, NotClaimed
from tests.conftest import is_permanent, keys_without_lifetime
from tests.integration import store_truth
from tests.integration.store_truth import Known, Truth, read_truth

EXAMPLES = int(os.environ.get("STORE_EXAMPLES", "200"))
STEPS = 50

T = TypeVar("T")

QUEUES = ("dspy.fast", "dspy.slow")
WORKERS = ("w1", "w2")
KEYS = ("a" * 40, "b" * 40)
CLIENTS = ("default", "poor")
KNOWN = Known(QUEUES, WORKERS, KEYS, CLIENTS)
#: So long that nothing vanishes by Redis's own clock while the tests' clock runs ahead.
LIFETIMES = Lifetimes(expires_in=100_000, retention=1_000_000, tombstone=2_000_000)
LEASE_SECONDS = 5.0
MANY = 1000
#: So few that they often meet.
MOST_LIVE_JOBS = 4
MOST_BATCHES = 3
#: What callers want; what ends jobs is rarer than what keeps them going.
WISHES = ["cancel job", "retry", "retry", "pause", "resume", "resume", "cancel batch", "erase"]

picks = st.integers(0, 10**6)
queues = st.sampled_from(QUEUES)
workers = st.sampled_from(WORKERS)
priorities = st.sampled_from([Priority.NORMAL, Priority.LOW])
#: What claims are after: nothing; mostly one answer; the same made anew, or only if somebody else makes it; another.
flights = st.sampled_from(
    [
        Flight(),
        *[Flight(KEYS[0], True, True)] * 3,
        Flight(KEYS[0], False, True),
        Flight(KEYS[0], True),
        Flight(KEYS[1], True, True),
    ]
)
#: Calls an attempt may have made, and what all of them come to.
CALLS = [BilledCall(1, 2, None, None, cost) for cost in (3, None, 4)]


def pick(choices: Sequence[T], number: int) -> T:
    """One of the choices that exist at this moment."""
    return choices[number % len(choices)]


def outcome_bytes(job_id: str, status: str, attempt: int) -> bytes:
    """What a worker would store."""
    state = store_truth.CELERY_STATE[status]
    return orjson.dumps({"status": state, "task_id": job_id, "result": None, "attempt": {"number": attempt}})


class Interleavings(RuleBasedStateMachine):
    """Workers, callers and housekeepers at one store, with every kind of loss, on a clock of the test's own."""

    def __init__(self, client: redis.Redis, events: Any) -> None:
        super().__init__()
        client.flushdb()
        self.client, self.events, self.store = client, events, SyncStore(client)
        self.now = 2_000_000_000_000
        self.jobs: list[str] = []
        self.heads: dict[str, BatchHead] = {}
        self.uploads: dict[str, list[str]] = {}
        self.split: set[str] = set()
        self.positions: dict[str, int] = {}
        self.delivered: list[list[str]] = []
        self.taken: list[tuple[str, str]] = []
        self.claims: list[tuple[str, Claim, str]] = []
        self.booked = Counter[tuple[str, int]]()
        self.lost: set[str] = set()
        self.erased: set[str] = set()
        self.endings, self.announced = Counter[str](), Counter[str]()
        self.ended_as, self.put_back = Counter[str](), 0
        self.serial = 0
        self.heard()
        self.announced.clear()
        self.truth = self.read()

    # ---- seeing ------------------------------------------------------------------------------------------------

    def read(self) -> Truth:
        """The store as it is now."""
        day = datetime.fromtimestamp(self.now / 1000, UTC).strftime("%Y%m%d")
        return read_truth(self.client, self.jobs, list(self.heads), KNOWN, day)

    def heard(self) -> None:
        """Count what was announced since the last time."""
        self.events.ping()
        while (message := self.events.get_message(timeout=5))["type"] != "pong":
            channel, data = message["channel"].decode(), message["data"].decode()
            if channel == names.DONE_CHANNEL:
                self.announced[data] += 1
            elif message["type"] == "pmessage":
                self.announced["outcome of " + orjson.loads(data)["task_id"]] += 1

    def new(self, kind: str) -> str:
        """An id that sorts after all before it."""
        self.serial += 1
        return f"{kind}_{self.serial:04}"

    @property
    def lists(self) -> list[str]:
        """Queue lists with a message in them."""
        return [name for name, raws in self.truth.messages.items() if raws]

    @invariant()
    def promises_hold(self) -> None:
        """Everything the store promises, after every step."""
        before, self.truth = self.truth, self.read()
        jobs, batches = store_truth.check_transitions(before, self.truth)
        self.endings += jobs
        self.endings += batches
        self.ended_as.update(self.truth.jobs[job_id]["status"] for job_id in jobs)
        self.put_back += sum(
            (job["status"], self.truth.jobs[job_id]["status"]) == ("running", "queued")
            for job_id, job in before.jobs.items()
        )
        self.heard()
        expected = +self.endings + Counter({f"outcome of {j}": n for j, n in self.endings.items() if "job" in j})
        assert +self.announced == expected, "each ending is announced once"
        self.lost &= {job_id for job_id, places in self.truth.places.items() if "waiting" in places}
        store_truth.check_counts(self.truth)
        store_truth.check_demand(self.truth, self.store.run(read_outstanding(QUEUES, self.now)))
        store_truth.check_places(self.truth, self.lost)
        store_truth.check_outcomes(self.truth, self.endings, self.erased)
        store_truth.check_batches(self.truth)
        store_truth.check_flights(self.truth)
        assert self.truth.shared.calls == self.booked.total(), "each call is booked once"
        store_truth.check_messages(self.truth)

    # ---- callers -----------------------------------------------------------------------------------------------

    @precondition(lambda self: len(self.jobs) - len(self.ended) < MOST_LIVE_JOBS)
    @rule(
        queue=queues,
        priority=priorities,
        full=st.sampled_from([False] * 4 + [True]),
        client=st.sampled_from(["default", "default", "poor"]),
    )
    def submit(self, queue: str, priority: Priority, full: bool, client: str) -> None:
        """Somebody submits one job."""
        job_id, queued = self.new("job"), self.truth.numbers["totals"]["queued"]
        fields = {"program": "qa", "model": queue.removeprefix("dspy."), "max_attempts": 3, "client": client}
        limit = queued if full else MANY
        submission = operations.submit_job(job_id, b"{}", queue, priority.step, fields, LIFETIMES, limit, self.now)
        accepted = self.store.run(submission)
        assert accepted == ((False, queued) if full else (True, self.now))
        if not full:
            self.jobs.append(job_id)

    @precondition(lambda self: len(self.heads) < MOST_BATCHES)
    @rule(queue=queues, priority=priorities, size=st.integers(1, 4), whole=st.booleans(), split=st.booleans())
    def upload(self, queue: str, priority: Priority, size: int, whole: bool, split: bool) -> None:
        """Somebody begins to upload a batch, perhaps of a program that is split over the queues."""
        batch_id = self.new("batch")
        self.uploads[batch_id] = []
        self.split |= {batch_id} if split else set()
        model = queue.removeprefix("dspy.")
        self.heads[batch_id] = BatchHead(batch_id, queue, priority.step, "qa", model, 3, LIFETIMES)
        self._stage(batch_id, size)
        if whole:
            self._commit(batch_id, "accepted")

    @precondition(lambda self: self.uploads)
    @rule(
        number=picks, size=st.integers(1, 3), fate=st.sampled_from(["more", "accepted", "queue_full", "lost", "swept"])
    )
    def upload_more(self, number: int, size: int, fate: str) -> None:
        """More of an upload arrives, or it is complete, or a part of it is swept away."""
        batch_id = pick(list(self.uploads), number)
        if fate == "more":
            self._stage(batch_id, size)
        elif fate == "swept":
            self._discard(batch_id, size)
        else:
            self._commit(batch_id, fate)

    def _stage(self, batch_id: str, size: int) -> None:
        ids = [self.new("job") for _ in range(size)]
        items = [(job_id, b"{}") for job_id in ids]
        self.uploads[batch_id] += ids
        routes = [self._route(job_id) for job_id in ids] if batch_id in self.split else []
        staged = self.store.run(operations.stage_items(self.heads[batch_id], items, self.now, routes))
        assert staged == len(self.uploads[batch_id])

    def _route(self, job_id: str) -> Route:
        """Every third job goes another way than the others."""
        is_third = int(job_id[-4:]) % 3 == 0
        return Route("b", "slow") if is_third else Route("a", "fast")

    def _commit(self, batch_id: str, fate: str) -> None:
        ids, queued = self.uploads[batch_id], self.truth.numbers["totals"]["queued"]
        total = len(ids) + (fate == "lost")
        limit = queued + len(ids) - 1 if fate == "queue_full" else MANY
        by_queue = Counter(self._route(job_id).queue for job_id in ids) if batch_id in self.split else None
        commit = operations.commit_batch(self.heads[batch_id], b"{}", total, limit, self.now, by_queue)
        answer = self.store.run(commit)
        assert answer == (fate, {"accepted": self.now, "queue_full": queued, "lost": len(ids)}[fate])
        if fate == "accepted":
            self.jobs += self.uploads.pop(batch_id)

    def _discard(self, batch_id: str, limit: int) -> None:
        rest = self.uploads[batch_id] = self.uploads[batch_id][limit:]
        assert self.store.run(operations.discard_staged(batch_id, limit)) == len(rest)
        if not rest:
            del self.uploads[batch_id]

    @property
    def committed(self) -> list[str]:
        """Batches somebody can see."""
        return [batch_id for batch_id in self.heads if "status" in self.truth.batches[batch_id]]

    @precondition(lambda self: self.jobs)
    @rule(wish=st.sampled_from(WISHES), number=picks, limit=st.integers(1, 3), flag=st.booleans())
    def ask(self, wish: str, number: int, limit: int, flag: bool) -> None:
        """Somebody wants a job or a batch changed."""
        if wish in ("cancel job", "retry", "erase"):
            act = {"cancel job": self._cancel_job, "retry": self._retry, "erase": self._erase}[wish]
            act(number)
        elif self.committed:
            batch_id = pick(self.committed, number)
            if wish == "cancel batch":
                self._cancel_batch(batch_id, limit, flag)
            elif wish == "pause":
                self._pause(batch_id)
            else:
                self._resume(batch_id, limit, number % 4, flag)

    def _cancel_job(self, number: int) -> None:
        live = [job_id for job_id in self.jobs if job_id not in self.ended]
        job_id = pick(live or self.jobs if number % 4 else self.jobs, number // 4)
        status = self.truth.jobs[job_id]["status"]
        what, now_is = self.store.run(operations.cancel_job(job_id, self.now))
        expected = {"queued": ("canceled", "canceled"), "running": ("canceling", "running")}
        expected |= {"canceled": ("canceled", "canceled")}
        assert (what, now_is) == expected.get(status, ("finished", status))

    def _cancel_batch(self, batch_id: str, limit: int, again: bool) -> None:
        """A step of a batch's cancellation, perhaps from the start again."""
        is_new = again or self.truth.batches[batch_id]["status"] != "canceling"
        position = 0 if is_new else max(0, self.positions[batch_id])
        before, after = self.store.run(operations.cancel_batch(batch_id, position, limit, self.now))
        assert before == self.truth.batches[batch_id]["status"]
        self.positions[batch_id] = after

    def _pause(self, batch_id: str) -> None:
        assert self.store.run(operations.pause_batch(batch_id)) == self.truth.batches[batch_id]["status"]

    def _resume(self, batch_id: str, size: int, limit: int, unpause: bool) -> None:
        before, _ = self.store.run(operations.resume_batch(batch_id, size, limit, unpause, self.now))
        assert before == self.truth.batches[batch_id]["status"]

    @property
    def ended(self) -> list[str]:
        """Jobs that have ended."""
        return [job_id for job_id, job in self.truth.jobs.items() if job["status"] in store_truth.TERMINAL]

    def _retry(self, number: int) -> None:
        """Perhaps of several jobs, some of which may not be retried."""
        ids = [pick(self.ended or self.jobs, number), *(self.jobs if number % 5 == 0 else [])]
        fit = {j for j in ids if self.truth.jobs[j]["status"] in ("failed", "canceled", "expired")} - self.erased
        requeued, refused = self.store.run(operations.retry_jobs(ids, LIFETIMES, 1 + number % 3, self.now))
        assert requeued == len(fit)
        assert bool(refused) == (len(fit) < len(ids))

    def _erase(self, number: int) -> None:
        job_id = pick(self.jobs if number % 4 else self.ended or self.jobs, number // 4)
        status = self.truth.jobs[job_id]["status"]
        answer = self.store.run(operations.erase_job(job_id))
        assert answer == ("erased" if status in store_truth.TERMINAL else status)
        if answer == "erased":
            self.erased.add(job_id)

    # ---- the way to the workers ----------------------------------------------------------------------------------

    @precondition(lambda self: self.committed)
    @rule(number=picks, sizes=st.lists(st.integers(1, 3), min_size=1, max_size=3), off=st.sampled_from([0, 0, 0, 1]))
    def release(self, number: int, sizes: list[int], off: int) -> None:
        """A batch's next jobs are sent, or would be by somebody who is behind."""
        batch_id = pick(self.committed, number)
        batch = self.truth.batches[batch_id]
        pointer = int(batch["released"])
        answer = self.store.run(operations.release_jobs(batch_id, pointer + off, sizes, self.now))
        may = batch["status"] == "in_progress" and not off
        assert answer == (min(int(batch["total"]), pointer + sum(sizes)) if may else -1)

    @precondition(lambda self: self.lists)
    @rule(number=picks, worker=workers, start=st.booleans(), flight=flights)
    def deliver(self, number: int, worker: str, start: bool, flight: Flight) -> None:
        """A worker receives the next message of a list, as kombu pops it, and may start its jobs."""
        raw = self.client.rpop(pick(self.lists, number))
        assert isinstance(raw, bytes)
        ids = job_ids(raw)
        self.delivered.append(ids)
        self._take(worker, ids, flight if start else None)

    @precondition(lambda self: self.lists)
    @rule(worker=workers)
    def deliver_all(self, worker: str) -> None:
        """A worker receives every message, and all jobs turn out to be after the same answer."""
        while self.lists:
            self.deliver(0, worker, True, Flight(KEYS[0], True, True))
            self.promises_hold()

    @precondition(lambda self: self.delivered)
    @rule(number=picks, worker=workers, start=st.booleans(), flight=flights)
    def deliver_again(self, number: int, worker: str, start: bool, flight: Flight) -> None:
        """An earlier message comes once more."""
        self._take(worker, pick(self.delivered, number), flight if start else None)

    def _take(self, worker: str, ids: list[str], flight: Flight | None) -> None:
        """Take jobs, and start them if they are after something, if only an answer of their own."""
        taken = [job.id for job in self.store.run(operations.take_jobs(worker, ids, self.now))]
        assert all(self.truth.jobs[job_id]["status"] == "queued" for job_id in taken)
        if flight:
            self.promises_hold()
            for job_id in taken:
                self._claim(worker, job_id, flight)
        else:
            self.taken += [(worker, job_id) for job_id in taken]

    @precondition(lambda self: self.lists)
    @rule(number=picks)
    def lose_messages(self, number: int) -> None:
        """A queue's list is lost."""
        name = pick(self.lists, number)
        self.client.delete(name)
        self.lost |= {job_id for raw in self.truth.messages[name] for job_id in job_ids(raw)}

    # ---- workers -------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.taken)
    @rule(number=picks, flight=flights)
    def claim(self, number: int, flight: Flight) -> None:
        """A thread starts a job it took at some time."""
        worker, job_id = pick(self.taken, number)
        self._claim(worker, job_id, flight)

    @precondition(lambda self: self.taken)
    @rule(flight=flights)
    def claim_latest(self, flight: Flight) -> None:
        """A thread starts the job it has just taken."""
        self._claim(*self.taken.pop(), flight)

    def _claim(self, worker: str, job_id: str, flight: Flight) -> None:
        # Never yielding: who gives way is decided by Redis's own clock, and a search must be repeatable.
        nonce, before = self.new("nonce"), self.read()
        claim = self.store.run(operations.claim_job(worker, job_id, nonce, now_ms=self.now, flight=flight))
        if isinstance(claim, Claim):
            assert all(claim.attempt > old.attempt for _, old, _ in self.claims if old.id == job_id)
            assert self.truth.jobs[job_id]["status"] == "queued"
            self.claims.append((worker, claim, nonce))
        elif claim.reason in ("following", "answered"):
            self._meets_a_leader(worker, job_id, claim, flight, before)

    def _meets_a_leader(self, worker: str, job_id: str, claim: NotClaimed, flight: Flight, before: Truth) -> None:
        """A job met another that makes its answer, or has made it just now; then it may be settled."""
        assert flight.may_follow
        assert before.shared.leaders[flight.key] == claim.leader != job_id
        leads = before.jobs[claim.leader].get("leads") == flight.key
        assert leads == (claim.reason == "following")
        if not leads:
            assert before.jobs[claim.leader]["status"] == "succeeded"
            self.taken.append((worker, job_id))

    @precondition(lambda self: self.taken)
    @rule(numbers=st.lists(picks, min_size=1, max_size=3))
    def settle_answered(self, numbers: list[int]) -> None:
        """A thread found answers made before for jobs it took at some time."""
        worker = pick(self.taken, numbers[0])[0]
        ids = [job_id for n in numbers for w, job_id in [pick(self.taken, n)] if w == worker]
        answered = [Answered(job_id, outcome_bytes(job_id, "succeeded", 1), "hit", None) for job_id in ids]
        answers = self.store.run(settle_answered(worker, answered, EXPIRED, self.now))
        for at, (job_id, answer) in enumerate(zip(ids, answers, strict=True)):
            holds = f"held by {worker}" in self.truth.places.get(job_id, []) and job_id not in ids[:at]
            is_current = holds and self.truth.jobs[job_id]["status"] == "queued"
            assert (answer == "stale") != is_current, (job_id, answer)

    @precondition(lambda self: self.claims)
    @rule(number=picks, first=st.integers(1, 3), last=st.integers(0, 3))
    def record(self, number: int, first: int, last: int) -> None:
        """A thread books calls of an attempt, which it may have lost long ago, perhaps some again."""
        worker, claim, _ = pick(self.claims[::-1], number % 3 if number % 2 else number)
        first = min(first, self.booked[claim.id, claim.attempt] + 1)
        is_current, before = self._is_current(worker, claim), self._dump()
        answer = self.store.run(record_calls(worker, claim, Bill(CALLS[first - 1 : last], first), b"{}", self.now))
        assert (answer == "stale") != is_current
        assert is_current or before == self._dump(), "a stale bill changes nothing"
        if is_current:
            self._is_booked(claim, max(last, first - 1))

    def _is_booked(self, claim: Claim, calls: int) -> None:
        attempt = (claim.id, claim.attempt)
        self.booked[attempt] = max(self.booked[attempt], calls)

    @precondition(lambda self: self.claims)
    @rule()
    def claim_again(self) -> None:
        """The last claim's answer was lost on its way, so it is asked for again."""
        worker, claim, nonce = self.claims[-1]
        job = self.truth.jobs[claim.id]
        if self._is_current(worker, claim):
            again = self.store.run(operations.claim_job(worker, claim.id, nonce, now_ms=self.now))
            assert again == claim, job

    def _is_current(self, worker: str, claim: Claim) -> bool:
        job = self.truth.jobs[claim.id]
        return (job["status"], job.get("owner"), job["attempt"]) == ("running", worker, str(claim.attempt))

    @precondition(lambda self: self.claims)
    @rule(number=picks, status=st.sampled_from(["succeeded", "failed", "canceled"]))
    def finish(self, number: int, status: str) -> None:
        """A thread ends an attempt, which it may have lost long ago, or whose end's answer was lost on its way."""
        worker, claim, _ = pick(self.claims[::-1], number % 3 if number % 2 else number)
        outcome = outcome_bytes(claim.id, status, claim.attempt)
        is_current, before = self._is_current(worker, claim), self._dump()
        is_repeated = self.store.redis.get(names.outcome(claim.id)) == outcome
        finished = self.store.run(operations.finish_job(worker, claim, status, outcome, Bill(CALLS), self.now))
        assert finished == (is_current or is_repeated)
        if is_current:
            self._is_booked(claim, len(CALLS))
        assert is_current or before == self._dump(), "an outcome that is stale or repeated changes nothing"

    @precondition(lambda self: self.claims)
    @rule(number=picks, delay=st.sampled_from([0.0, 3.0]), model=st.sampled_from(["", "", "fast", "slow"]))
    def retry_later(self, number: int, delay: float, model: str) -> None:
        """A thread's attempt failed, which it may have lost long ago."""
        worker, claim, _ = pick(self.claims[::-1], number % 3 if number % 2 else number)
        record = orjson.dumps({"number": claim.attempt})
        is_current, before = self._is_current(worker, claim), self._dump()
        is_canceled = self.truth.jobs[claim.id].get("cancel") == "1"
        operation = operations.retry_later(
            worker, claim, record, delay, "retry_scheduled", Bill(CALLS), "tries", model, now_ms=self.now
        )
        answer = self.store.run(operation)
        assert answer == ("stale" if not is_current else "canceled" if is_canceled else "delayed")
        assert answer != "stale" or before == self._dump(), "a stale attempt changes nothing"
        if answer != "stale":
            self._is_booked(claim, len(CALLS))

    def _dump(self) -> dict[bytes, bytes | None]:
        return {key: self.client.dump(key) for key in self.client.scan_iter()}

    @precondition(lambda self: self.taken)
    @rule(numbers=st.lists(picks, min_size=1, max_size=3), size=st.integers(1, 2))
    def hand_back(self, numbers: list[int], size: int) -> None:
        """A thread gives back what it took and did not start."""
        worker = pick(self.taken, numbers[0])[0]
        ids = list(dict.fromkeys(j for w, j in (pick(self.taken, n) for n in numbers) if w == worker))
        self.store.run(operations.hand_back(worker, ids, size, self.now))

    @precondition(lambda self: self.taken)
    @rule(number=picks, model=st.sampled_from(["fast", "slow"]))
    def divert(self, number: int, model: str) -> None:
        """A thread sends a job that it took and did not start to another model."""
        worker, job_id = pick(self.taken, number)
        job = self.truth.jobs[job_id]
        held = job["status"] == "queued" and job.get("owner") == worker
        diverted = self.store.run(gates.divert_job(worker, job_id, model, now_ms=self.now))
        assert bool(diverted) == held

    @rule(worker=workers, limit=st.integers(1, 3))
    def surrender(self, worker: str, limit: int) -> None:
        """A worker that must stop gives back what it holds, also what it runs."""
        held = [job_id for job_id, places in self.truth.places.items() if f"held by {worker}" in places]
        returned = self.store.run(recovery.surrender_jobs(worker, limit, self.now))
        assert returned == min(limit, len(held))

    @rule(worker=workers)
    def renew(self, worker: str) -> None:
        """A worker says that it lives, and hears what it must stop."""
        to_stop = self.store.run(operations.renew_worker(worker, LEASE_SECONDS, b"{}", QUEUES, self.now)).to_stop
        wanted = {j for j, job in self.truth.jobs.items() if job.get("cancel") == "1" and job["owner"] == worker}
        assert set(to_stop) == wanted

    @rule(worker=workers)
    def retire(self, worker: str) -> None:
        """A worker leaves."""
        self.store.run(operations.retire_worker(worker, QUEUES))

    # ---- housekeepers --------------------------------------------------------------------------------------------

    @rule(
        chore=st.sampled_from(["recover", "recover", "wake", "wake", "expire", "resend", "send waiting", "fold"]),
        seconds=st.sampled_from([0, 1, 4, 11, 101]),
        limit=st.integers(1, 4),
        number=picks,
    )
    def keep_house(self, chore: str, seconds: int, limit: int, number: int) -> None:
        """Some time has passed, and what a dead process left is looked for."""
        self.now += seconds * 1000
        if chore == "recover":
            recovered, failed = self.store.run(operations.recover_lost(1 + number % 3, limit, self.now))
            assert recovered + failed <= limit
        elif chore == "wake":
            assert self.store.run(operations.wake_delayed(limit, self.now)) <= limit
        elif chore == "expire":
            assert self.store.run(recovery.expire_due(limit, 0, QUEUES, now_ms=self.now)) <= limit
        elif chore == "resend":
            self.store.run(recovery.resend_lost(pick(QUEUES, number), 5, limit, self.now))
        elif chore == "fold":
            self.store.run(fold_books((), number % 2 * MANY, limit, self.now))
            self.totals_are_exact()
        else:
            self.store.run(send_waiting(self.now))

    def totals_are_exact(self) -> None:
        """Every ending, and every attempt that ended no job, is counted once, whatever is folded."""
        counted = self.store.run(read_counted())
        sums = sum(counted.of_work.values(), Counter[str]())
        found = {status: sums[status] for status in ("failed", "canceled", "expired")}
        assert found | {"succeeded": sums["jobs"] - sums["failed"]} == {
            s: self.ended_as[s] for s in store_truth.TERMINAL
        }
        assert counted.failures.total() == self.ended_as["failed"]
        assert counted.attempts.total() == self.put_back
        assert sums["calls"] == self.booked.total()

    @rule(is_poor=st.booleans())
    def set_budget(self, is_poor: bool) -> None:
        """A client may spend nothing, or whatever it likes."""
        self._set_budget(is_poor)

    def _set_budget(self, is_poor: bool) -> None:
        self.client.delete(names.BUDGETS)
        if is_poor:
            self.client.hset(names.BUDGETS, mapping={"kept": 10**9, "limits": 1, "day poor": 0})

    @rule(key=st.sampled_from(KEYS))
    def forget_leader(self, key: str) -> None:
        """The time is over in which a leader is named that succeeded."""
        if self.client.pttl(names.flight(key)) > 0:
            self.client.delete(names.flight(key))

    # ---- the end -------------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        """Work everything off: nothing remains but what was paid for, for as long as was promised."""
        if sys.exc_info()[0] is None:
            self._drain()

    def _drain(self) -> None:
        self._set_budget(False)
        for batch_id in list(self.uploads):
            self.store.run(operations.discard_staged(batch_id))
        self.now += 200_000
        self.store.run(recovery.expire_due(MANY, 0, QUEUES, now_ms=self.now))
        self.promises_hold()
        rounds = 0
        while len(self.ended) < len(self.jobs):
            self._work_off()
            self.now += 10_000
            rounds += 1
            assert rounds < 12, "jobs that nobody would ever run"
        self._send_waiting()
        self.totals_are_exact()
        for worker in WORKERS:
            self.store.run(operations.retire_worker(worker, QUEUES))
        assert not [key for key in keys_without_lifetime(self.client) if not is_permanent(key)]
        leftovers = {key.decode() for key in self.client.scan_iter()} & _emptied(self.heads)
        assert not leftovers, leftovers

    def _send_waiting(self) -> None:
        """As a round of housekeeping does."""
        while self.store.run(send_waiting(self.now)):
            pass

    def _work_off(self) -> None:
        """Everything any process would do about what is there now."""
        run = self.store.run
        run(operations.recover_lost(MANY, MANY, self.now))
        self.promises_hold()
        run(operations.wake_delayed(MANY, self.now))
        self._send_waiting()
        for queue in QUEUES:
            run(recovery.resend_lost(queue, 5, MANY, self.now))
        for batch_id in self.committed:
            released = int(self.truth.batches[batch_id]["released"])
            run(operations.resume_batch(batch_id, 2, MANY, now_ms=self.now))
            run(operations.release_jobs(batch_id, released, [MANY], self.now))
            if self.truth.batches[batch_id]["status"] == "canceling":
                run(operations.cancel_batch(batch_id, 0, MANY, self.now))
        self.promises_hold()
        while self.lists:
            self.deliver(0, "w1", start=False, flight=Flight())
            self.truth = self.read()
        while self.taken:
            self.claim_latest(Flight())
        self.promises_hold()
        for worker, claim, _ in self.claims:
            outcome = outcome_bytes(claim.id, "succeeded", claim.attempt)
            run(operations.finish_job(worker, claim, "succeeded", outcome, Bill(), self.now))
        self.promises_hold()


def _emptied(batches: dict[str, Any]) -> set[str]:
    """Keys that must be gone when all work is done."""
    return {
        names.STAGING, names.RELEASING, names.CANCELING, names.DELAYED, names.EXPIRING, names.WORKERS, names.LANDING,
        names.WAITING_CLIENTS, *map(names.followers, KEYS), *map(names.client_parked, CLIENTS),
        *(names.queue_waiting(queue, priority.step) for queue in QUEUES for priority in Priority),
        *(names.queue_workers(queue) for queue in QUEUES),
        *(key(worker) for worker in WORKERS for key in (names.worker, names.worker_held, names.worker_cancel)),
        *(names.batch_parked(batch_id) for batch_id in batches),
    }  # fmt: skip


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Scripts that send so few jobs in a step that more are left with a handful of them."""
    shared = scripts._shared()
    smaller = tuple(part.replace("STEP, CHUNK = 500, 25", "STEP, CHUNK = 1, 1") for part in shared)
    assert smaller != shared
    caches = (scripts.script, scripts.all_scripts)
    for found in caches:
        found.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(scripts, "_shared", lambda: smaller)
        scripts.all_scripts()
        yield
    for found in caches:
        found.cache_clear()


def test_any_interleaving_keeps_the_promises(store: SyncStore, small_steps: None) -> None:
    """Whatever happens in whatever order, counts, places, outcomes and announcements agree with the truth."""
    with store.redis.pubsub() as events:
        events.subscribe(names.DONE_CHANNEL)
        events.psubscribe(names.outcome("*"))
        for _ in range(2):
            events.get_message(timeout=5)
        run_state_machine_as_test(  # type: ignore[no-untyped-call]
            lambda: Interleavings(store.redis, events),
            settings=settings(
                max_examples=EXAMPLES,
                stateful_step_count=STEPS,
                deadline=None,
                report_multiple_bugs=False,
                suppress_health_check=list(HealthCheck),
            ),
        )
    store.redis.flushdb()
