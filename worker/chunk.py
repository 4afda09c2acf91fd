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
from typing import Any

import structlog
from redis.exceptions import ConnectionError, TimeoutError

from dspy_jobs.problems import Problem, problem
from dspy_jobs.store import SyncStore, operations
from dspy_jobs.store.records import Claim, NotClaimed
from dspy_jobs.store.script import Operation
from worker.attempt import Runner, Settlement
from worker.batch_requests import BatchRequests
from worker.context import AttemptContext

log = structlog.get_logger("worker")

#: Seconds between tries while Redis is away.
_RECONNECT_SECONDS = 0.25

_nonces = itertools.count()


@dataclass
class ChunkRunner:
    """Runs messages in this process's threads."""

    runner: Runner
    store: SyncStore
    batch_requests: BatchRequests
    is_draining: threading.Event = field(default_factory=threading.Event)
    running: dict[str, AttemptContext] = field(default_factory=dict)
    """Attempts under way by job id; the housekeeping thread stops them."""

    @property
    def worker_id(self) -> str:
        """This process's id in the fleet."""
        return self.runner.worker_id

    def run(self, ids: list[str]) -> None:
        """Run the jobs of a message that are still to be run."""
        held = deque(self._persist([operations.take_jobs(self.worker_id, ids)])[0])
        hold_until = time.monotonic() + self.runner.settings.worker.hold_seconds
        settlement: tuple[Claim, Settlement] | None = None
        while held and not self.is_draining.is_set():
            # The first job of a message has had its turn; only a remainder gives way.
            is_remainder = settlement is not None
            if is_remainder and time.monotonic() >= hold_until:
                break
            claim = self._next(held[0], is_remainder, settlement)
            settlement = None
            if isinstance(claim, NotClaimed) and claim.reason == "urgent":
                break
            held.popleft()
            if isinstance(claim, Claim):
                settlement = (claim, self._attempt(claim))
        self._end(list(held), settlement)

    def _next(self, job_id: str, may_yield: bool, settlement: tuple[Claim, Settlement] | None) -> Claim | NotClaimed:
        nonce = str(next(_nonces))
        claim = operations.claim_job(self.worker_id, job_id, nonce, may_yield)
        if settlement is None:
            return self._persist([claim])[0]
        settled, claimed = self._persist([settlement[1].operation, claim])
        _report(*settlement, settled)
        return claimed

    def _end(self, held: list[str], settlement: tuple[Claim, Settlement] | None) -> None:
        ending: list[Operation[Any]] = [settlement[1].operation] if settlement else []
        if held:
            size = self.runner.settings.worker.chunk_size
            ending.append(operations.hand_back(self.worker_id, held, size))
        if not ending:
            return
        replies = self._persist(ending)
        if settlement:
            _report(*settlement, replies[0])

    def _attempt(self, claim: Claim) -> Settlement:
        shared = self._with_redis(lambda: self.batch_requests.get(claim.batch)) if claim.batch else {}
        request = {**shared, **claim.request}
        context = self.runner.context_for(claim, request)
        self.running[claim.id] = context
        try:
            return self.runner.run(claim, request, context)
        finally:
            del self.running[claim.id]

    def stop(self, job_id: str) -> None:
        """Stop a job that runs here before its next model call, because somebody canceled it."""
        if context := self.running.get(job_id):
            context.stop(_canceled())

    def _persist(self, steps: list[Operation[Any]]) -> list[Any]:
        return self._with_redis(lambda: self.store.run_all(steps))

    def _with_redis(self, use: Callable[[], Any]) -> Any:
        """Use Redis, waiting while it is away: every operation may be repeated, and an outcome must not be lost."""
        while True:
            try:
                return use()
            except (ConnectionError, TimeoutError) as error:
                log.warning("redis_unreachable", error=str(error))
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
