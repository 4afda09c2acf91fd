"""One queue message's life: take its jobs, run them one after the other, hand back what cannot be run now.

The end of a job and the start of the next travel to Redis together, so a job of a chunk costs one round trip.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import structlog
from redis.exceptions import ResponseError

from dspy_jobs import error_reports, names
from dspy_jobs.cache_entry import CacheEntry
from dspy_jobs.problems import Problem, problem
from dspy_jobs.states import WaitReason
from dspy_jobs.store import SyncStore, gates, operations
from dspy_jobs.store.flights import Answered, Flight
from dspy_jobs.store.records import Claim, NotClaimed, Taken
from dspy_jobs.store.script import Operation
from dspy_jobs.telemetry import Span
from worker import bugs
from worker.attempt import Runner, Settlement
from worker.bookkeeping import Bookkeeper
from worker.context import AttemptContext
from worker.gates import Gates
from worker.job_lines import Ended, ended
from worker.next_message import drop_message, next_message
from worker.reuse import Job
from worker.spans import attempt_ended
from worker.stored_answers import StoredAnswers
from worker.waiting_for_redis import until_there
from worker.witnesses import Witnesses

log = structlog.get_logger("worker")

#: Seconds past its deadline after which an attempt that makes no model call is given up, its thread with it.
STUCK_SECONDS = 10.0

#: Messages looked up at once. That is all work for the processor: with every thread at it, each would wait so long for
#: its turn that the cache's Redis would seem too slow.
_LANES = 4

_nonces = itertools.count()


@dataclass
class ChunkRunner:
    """Runs messages in this process's threads."""

    runner: Runner
    store: SyncStore
    answers: StoredAnswers
    witnesses: Witnesses
    bookkeeper: Bookkeeper | None = None
    """Books calls of running attempts; without one they are booked when the attempt ends."""
    stuck_threads: int = 0
    """Threads given up with attempts that never returned."""
    is_draining: threading.Event = field(default_factory=threading.Event)
    gates: Gates = field(default_factory=Gates)
    keep_output: Callable[[str, CacheEntry], None] = lambda *_: None
    """Keeps an output under its cache key."""
    lanes: threading.Semaphore = field(default_factory=lambda: threading.BoundedSemaphore(_LANES))
    """Held while a message's jobs are looked up."""
    running: dict[str, tuple[Claim, AttemptContext]] = field(default_factory=dict)
    """Attempts under way by job id; the housekeeping thread stops them."""
    waiting: dict[int, deque[Job]] = field(default_factory=dict)
    """Jobs each thread has taken and not started, by the thread's id."""
    message_at: float = field(default_factory=time.time)
    """When a message was last taken (seconds since the epoch); before the first, when this was made."""

    @property
    def probe_seconds(self) -> float:
        """How long the fleet waits for a probe: a model call's longest timeout and a little."""
        return max((m.timeout_seconds for m in self.runner.settings.models.values()), default=60.0) + 5

    @property
    def worker_id(self) -> str:
        """This process's id in the fleet."""
        return self.runner.worker_id

    def run(self, ids: list[str]) -> None:
        """Run the jobs of a message that are still to be run, and of a narrow model those of further messages."""
        taken = self._take(ids)
        while taken:
            held: deque[Job] = deque()
            self.message_at, self.waiting[threading.get_ident()] = time.time(), held
            try:
                held.extend(self._unanswered(taken))
                taken = self._of_next_message(self._run_held(held))
            except Exception as error:  # whatever it was, the other jobs must not wait for this process to end
                log.exception("chunk_broke", error=type(error).__name__)
                error_reports.report(error, "chunk_broke", {})
                self._end([job.id for job in held] or [job.id for job in taken], None)
                return
            finally:
                self.waiting.pop(threading.get_ident(), None)

    def _take(self, ids: list[str]) -> list[Taken]:
        taken: list[Taken] = self._persist([operations.take_jobs(self.worker_id, ids)])[0]
        self.witnesses.received(ids, taken)
        return taken

    def _unanswered(self, taken: Sequence[Taken]) -> list[Job]:
        """The jobs that must run; those whose outputs were made before have ended with them."""
        jobs = self.answers.read(taken)
        try:
            with self.lanes:
                found = self.answers.find(jobs)
                done = self._settle_answered(jobs, found, None) if found else set()
        except Exception as error:  # whatever it was, handed back they would come again at once, for ever
            log.exception("stored_answers_broke", error=type(error).__name__)
            error_reports.report(error, "stored_answers_broke", {})
            return [replace(job, wish=None) for job in jobs]
        return [job for job in jobs if job.id not in done]

    def _settle_answered(self, jobs: Sequence[Job], found: list[Answered], settlement: Ended | None) -> set[str]:
        """End those of the jobs with outputs made before. Answers which no longer wait; the others' queue is paused."""
        answers = self._settle(settlement, [self.answers.settle(found)])[0]
        self.witnesses.answered(jobs, found, answers)
        return {made.job_id for made, answer in zip(found, answers, strict=True) if answer != "paused"}

    def _run_held(self, held: deque[Job]) -> str:
        """Run what was taken, one after the other, and hand back what is left. Answers the model that has room now."""
        hold_until = time.monotonic() + self.runner.settings.worker.hold_seconds
        settlement: Ended | None = None
        is_remainder = False  # The first job of a message has had its turn; only a remainder gives way.
        while held and not self.is_draining.is_set():
            if is_remainder and time.monotonic() >= hold_until:
                break
            job = held[0]
            late = self.answers.find_late(job) if is_remainder else None
            claim = self._take_late(job, late, settlement) if late else self._start(job, is_remainder, settlement)
            settlement = None
            if isinstance(claim, NotClaimed) and not self._goes_on(claim, job):
                break
            held.popleft()
            is_remainder = True
            if isinstance(claim, Claim):
                settlement = self._attempt(claim, job)
        self._end([job.id for job in held], settlement)
        return settlement.claim.model if settlement else ""

    def _take_late(self, job: Job, late: Answered, settlement: Ended | None) -> NotClaimed:
        """End a job with an output made since its message came."""
        if self._settle_answered([job], [late], settlement):
            return NotClaimed("answered")
        return NotClaimed("gated", WaitReason.PAUSED, queue=names.queue(job.taken.model))

    def _start(self, job: Job, may_yield: bool, settlement: Ended | None) -> Claim | NotClaimed:
        """Start a job, unless another one like it runs or has just answered it."""
        flight = job.wish.flight() if job.wish else None
        claim = self._claim(job.id, may_yield, settlement, flight)
        if isinstance(claim, Claim) or claim.reason != "answered":
            return claim
        if answered := self.answers.of_leader(job, claim.leader):
            return self._take_late(job, answered, None)
        assert flight is not None, "only a flight is answered"
        return self._claim(job.id, False, None, replace(flight, may_follow=False))

    def _of_next_message(self, model: str) -> list[Taken]:
        """Jobs of the next message of a model of which only so many may run at once; none of other models."""
        settings = self.runner.settings.models.get(model)
        if settings is None or not settings.max_concurrent:
            return []
        redis, queue = self.store.redis, names.queue(model)
        while not self.is_draining.is_set():
            message = self._with_redis(lambda: next_message(redis, queue))
            if message is None:
                break
            taken = self._take(message.ids)
            self._with_redis(partial(drop_message, redis, message))
            if taken:
                return taken
        return []

    def _claim(
        self, job_id: str, may_yield: bool, settlement: Ended | None, flight: Flight | None
    ) -> Claim | NotClaimed:
        nonce = str(next(_nonces))
        claim = operations.claim_job(
            self.worker_id, job_id, nonce, may_yield, self.probe_seconds, flight=flight, with_request=False
        )
        answer: Claim | NotClaimed = self._settle(settlement, [claim])[0]
        return answer

    def _settle(self, settlement: Ended | None, then: list[Operation[Any]]) -> list[Any]:
        """Publish how an attempt ended and do what follows, in one round trip; answers what follows."""
        if settlement is None:
            return self._persist(then) if then else []
        claim, settled = settlement.claim, settlement.settlement
        first = [settled.operation, *settled.more]
        try:
            replies = self._persist([*first, *then])
        except ResponseError as error:
            # The store cannot take this outcome, and never will. What went through before can be repeated.
            log.exception("outcome_refused", **settlement.ids)
            bugs.report(error, "outcome_refused", claim)
            broken = self.runner.broken(claim, error)
            answer = self._persist([broken.operation])[0]
            self.witnesses.ended(replace(settlement, settlement=broken), answer)
            return self._settle(None, then)
        if settled.to_store and replies[0]:
            self.keep_output(*settled.to_store)
        self.witnesses.ended(settlement, replies[0])
        return replies[len(first) :]

    def _goes_on(self, refused: NotClaimed, job: Job) -> bool:
        """Whether the chunk's next job may be tried after this one was refused."""
        self.witnesses.not_started(job, refused)
        if refused.reason != "gated":
            return refused.reason != "urgent"
        left = self.runner.fallbacks(refused.models) if refused.gate == WaitReason.CIRCUIT_OPEN else []
        if left:
            self._persist([gates.divert_job(self.worker_id, job.id, left[0])])
            return True
        self.gates.close(refused.queue, refused.seconds)
        return False

    def _end(self, held: list[str], settlement: Ended | None) -> None:
        size = self.runner.settings.worker.chunk_size
        self._settle(settlement, [operations.hand_back(self.worker_id, held, size)] if held else [])
        self.witnesses.message_over(len(held))

    def _attempt(self, claim: Claim, job: Job) -> Ended:
        with self.witnesses.attempt(claim, job) as (span, ids):
            settlement = self._settlement(claim, job, span, ids)
            attempt_ended(span, settlement)
            return ended(claim, settlement, job)

    def _settlement(self, claim: Claim, job: Job, span: Span, ids: Mapping[str, Any]) -> Settlement:
        try:
            context = self.runner.context_for(claim, job.request, job.wish)
            context.span, context.ids = span, ids
            self._resume(claim, context)
            self.running[claim.id] = (claim, context)
            return self.runner.run(claim, job.request, context)
        except Exception as error:  # whatever it was, the job must end
            log.exception("attempt_broke")
            bugs.report(error, "attempt_broke", claim, job.request)
            return self.runner.broken(claim, error)
        finally:
            self.running.pop(claim.id, None)

    def _resume(self, claim: Claim, context: AttemptContext) -> None:
        """Give the attempt what attempts before it had answered, and a way to keep what it will have answered."""
        records: Any = []
        if claim.answered and context.resumes:
            key = names.job_journal(claim.id)
            records = self._with_redis(lambda: self.store.redis.lrange(key, 0, -1))
        keeper = self.bookkeeper
        if keeper:
            context.resume(records, keeper.book_for(claim), keeper.book_late_for(claim))
        else:
            context.resume(records, _not_yet)

    def book_answered(self) -> None:
        """Book what running attempts have had answered since they last began a call."""
        for _, context in list(self.running.values()):
            context.book()

    def stop(self, job_id: str) -> None:
        """Stop a job that runs here before its next model call, because somebody canceled it."""
        if found := self.running.get(job_id):
            found[1].stop(_canceled())

    def abandon_stuck(self) -> int:
        """Fail attempts whose threads are stuck well past their deadline. Answers how many.

        Raises:
            redis.exceptions.RedisError: Redis is away; they are still there for the next call.
        """
        stuck = [(c, a) for c, a in list(self.running.values()) if a.remaining_seconds() < -STUCK_SECONDS]
        for claim, context in stuck:
            settlement = self.runner.abandon(claim, context)
            attempt_ended(context.span, settlement)
            # Not `_settle`: that waits for Redis, and the housekeeping thread has more to do meanwhile.
            replies = self.store.run_all([settlement.operation, *settlement.more])
            self.running.pop(claim.id, None)
            self.stuck_threads += 1
            self.witnesses.ended(Ended(claim, settlement, context.ids, context.wish is not None), replies[0])
        return len(stuck)

    def _persist(self, steps: list[Operation[Any]]) -> list[Any]:
        return self._with_redis(lambda: self.store.run_all(steps))

    def _with_redis(self, use: Callable[[], Any]) -> Any:
        return until_there(self.store.redis, use)


def _not_yet(*_: Any) -> None:
    """Without a bookkeeper calls are booked when the attempt ends."""


def _canceled() -> Problem:
    return problem("canceled", "The job was canceled while it ran.")
