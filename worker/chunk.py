"""One queue message's life: take its jobs, run them one after the other, hand back what cannot be run now.

The end of a job and the start of the next travel to Redis together, so a job of a chunk costs one round trip.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import structlog
from redis.exceptions import (
    BusyLoadingError,
    ConnectionError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    TimeoutError,
)

from dspy_jobs import names
from dspy_jobs.problems import Problem, problem
from dspy_jobs.states import WaitReason
from dspy_jobs.store import SyncStore, gates, operations
from dspy_jobs.store.records import Claim, NotClaimed
from dspy_jobs.store.script import Operation
from worker.attempt import Runner, Settlement
from worker.batch_requests import BatchRequests
from worker.context import AttemptContext
from worker.gates import Gates
from worker.next_message import drop_message, next_message

log = structlog.get_logger("worker")

#: Seconds between tries while Redis is away.
_RECONNECT_SECONDS = 0.25

#: Seconds past its deadline after which an attempt that makes no model call is given up, its thread with it.
STUCK_SECONDS = 10.0

_nonces = itertools.count()


@dataclass
class ChunkRunner:
    """Runs messages in this process's threads."""

    runner: Runner
    store: SyncStore
    batch_requests: BatchRequests
    stuck_threads: int = 0
    """Threads given up with attempts that never returned."""
    is_draining: threading.Event = field(default_factory=threading.Event)
    gates: Gates = field(default_factory=Gates)
    running: dict[str, tuple[Claim, AttemptContext]] = field(default_factory=dict)
    """Attempts under way by job id; the housekeeping thread stops them."""

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
        taken: list[str] = self._persist([operations.take_jobs(self.worker_id, ids)])[0]
        while taken:
            held = deque(taken)
            try:
                taken = self._of_next_message(self._run_held(held))
            except Exception as error:  # whatever it was, the other jobs must not wait for this process to end
                log.exception("chunk_broke", error=type(error).__name__)
                self._end(list(held), None)
                return

    def _run_held(self, held: deque[str]) -> str:
        """Run what was taken, one after the other, and hand back what is left. Answers the model that has room now."""
        hold_until = time.monotonic() + self.runner.settings.worker.hold_seconds
        settlement: tuple[Claim, Settlement] | None = None
        while held and not self.is_draining.is_set():
            # The first job of a message has had its turn; only a remainder gives way.
            is_remainder = settlement is not None
            if is_remainder and time.monotonic() >= hold_until:
                break
            claim = self._next(held[0], is_remainder, settlement)
            settlement = None
            if isinstance(claim, NotClaimed) and not self._goes_on(claim, held[0]):
                break
            held.popleft()
            if isinstance(claim, Claim):
                settlement = (claim, self._attempt(claim))
        self._end(list(held), settlement)
        return settlement[0].model if settlement else ""

    def _of_next_message(self, model: str) -> list[str]:
        """Jobs of the next message of a model of which only so many may run at once; none of other models."""
        settings = self.runner.settings.models.get(model)
        if settings is None or not settings.max_concurrent:
            return []
        redis, queue = self.store.redis, names.queue(model)
        while not self.is_draining.is_set():
            message = self._with_redis(lambda: next_message(redis, queue))
            if message is None:
                break
            taken: list[str] = self._persist([operations.take_jobs(self.worker_id, message.ids)])[0]
            self._with_redis(partial(drop_message, redis, message))
            if taken:
                return taken
        return []

    def _next(self, job_id: str, may_yield: bool, settlement: tuple[Claim, Settlement] | None) -> Claim | NotClaimed:
        claim = operations.claim_job(self.worker_id, job_id, str(next(_nonces)), may_yield, self.probe_seconds)
        answer: Claim | NotClaimed = self._settle(settlement, [claim])[0]
        return answer

    def _settle(self, settlement: tuple[Claim, Settlement] | None, then: list[Operation[Any]]) -> list[Any]:
        """Publish how an attempt ended and do what follows, in one round trip; answers what follows."""
        if settlement is None:
            return self._persist(then) if then else []
        claim, settled = settlement
        first = [settled.operation, *settled.more]
        try:
            replies = self._persist([*first, *then])
        except ResponseError as error:
            # The store cannot take this outcome, and never will. What went through before can be repeated.
            log.exception("outcome_refused", job_id=claim.id)
            self._persist([self.runner.broken(claim, error).operation])
            return self._settle(None, then)
        _report(claim, settled, replies[0])
        return replies[len(first) :]

    def _goes_on(self, refused: NotClaimed, job_id: str) -> bool:
        """Whether the chunk's next job may be tried after this one was refused."""
        if refused.reason != "gated":
            return refused.reason != "urgent"
        left = self.runner.fallbacks(refused.models) if refused.gate == WaitReason.CIRCUIT_OPEN else []
        if left:
            self._persist([gates.divert_job(self.worker_id, job_id, left[0])])
            return True
        self.gates.close(refused.queue, refused.seconds)
        return False

    def _end(self, held: list[str], settlement: tuple[Claim, Settlement] | None) -> None:
        size = self.runner.settings.worker.chunk_size
        self._settle(settlement, [operations.hand_back(self.worker_id, held, size)] if held else [])

    def _attempt(self, claim: Claim) -> Settlement:
        try:
            shared = self._with_redis(lambda: self.batch_requests.get(claim.batch)) if claim.batch else {}
            request = {**shared, **claim.request}
            context = self.runner.context_for(claim, request)
            self.running[claim.id] = (claim, context)
            return self.runner.run(claim, request, context)
        except Exception as error:  # whatever it was, the job must end
            log.exception("attempt_broke", job_id=claim.id)
            return self.runner.broken(claim, error)
        finally:
            self.running.pop(claim.id, None)

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
            # Not `_settle`: that waits for Redis, and the housekeeping thread has more to do meanwhile.
            replies = self.store.run_all([settlement.operation, *settlement.more])
            self.running.pop(claim.id, None)
            self.stuck_threads += 1
            _report(claim, settlement, replies[0])
        return len(stuck)

    def _persist(self, steps: list[Operation[Any]]) -> list[Any]:
        return self._with_redis(lambda: self.store.run_all(steps))

    def _with_redis(self, use: Callable[[], Any]) -> Any:
        """Use Redis, waiting while it is away or full: every operation may be repeated, and no outcome may be lost."""
        while True:
            try:
                return use()
            except (ConnectionError, TimeoutError, OutOfMemoryError, ReadOnlyError, BusyLoadingError) as error:
                log.warning("redis_unavailable", error=str(error))
                if isinstance(error, ReadOnlyError):
                    # A replica after a failover: new connections find the new primary.
                    self.store.redis.connection_pool.disconnect(inuse_connections=False)
                time.sleep(_RECONNECT_SECONDS)


def _canceled() -> Problem:
    return problem("canceled", "The job was canceled while it ran.")


def _report(claim: Claim, settlement: Settlement, settled: bool | str) -> None:
    """One line a job's outcome."""
    attempt = settlement.attempt
    log.info(
        "job_" + settlement.status if settled not in (False, "stale") else "job_outcome_discarded",
        job_id=claim.id,
        batch_id=claim.batch or None,
        program=claim.program,
        model=claim.model,
        attempt=claim.attempt,
        seconds=(attempt.ended_at - attempt.started_at) / 1000,
        calls=attempt.usage.calls,
        code=attempt.error.code if attempt.error else None,
    )
