"""Jobs of a message that need not run: whatever was made before is looked up for all of them together."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import orjson
import structlog

from dspy_jobs import names
from dspy_jobs.cache_entry import CacheEntry
from dspy_jobs.store import SyncStore
from dspy_jobs.store.flights import Answered, settle_answered
from dspy_jobs.store.operations import EXPIRED
from dspy_jobs.store.records import Taken
from dspy_jobs.store.script import Operation
from worker import bugs
from worker.attempt import Runner
from worker.batch_requests import BatchRequests
from worker.response_cache import Found, ResponseCache
from worker.reuse import Job, Reuse, entry_of, keys_of
from worker.waiting_for_redis import until_there
from worker.wish import Wish

log = structlog.get_logger("worker")

#: Seconds after which the cache is asked again before a job runs. Until then the ledger knows of equal jobs that ended
#: meanwhile (`LANDED` in _flights.lua is longer), and asking for each job would cost a sixth of the run rate.
_STALE_SECONDS = 20.0


@dataclass(frozen=True)
class StoredAnswers:
    """Reads what taken jobs ask for, and finds outputs made before."""

    worker_id: str
    store: SyncStore
    batch_requests: BatchRequests
    reuse: Reuse
    cache: ResponseCache

    def read(self, taken: Sequence[Taken]) -> list[Job]:
        """The jobs with their requests."""
        return [self._job(job) for job in taken]

    def _job(self, taken: Taken) -> Job:
        request = self._request(taken)
        return Job(taken, request, self._wish(taken, request), time.monotonic())

    def _request(self, taken: Taken) -> dict[str, Any]:
        """What the caller gave, over what its batch shares; empty where that cannot be read: its attempt will fail."""
        raw = taken.request or self._get(names.job_request(taken.id))
        shared = self._shared(taken.batch) if taken.batch else {}
        try:
            return {**shared, **(orjson.loads(raw) if raw else {})}
        except orjson.JSONDecodeError as error:
            log.exception("request_unreadable", job_id=taken.id)
            bugs.report(error, "request_unreadable", taken)
            return {}

    def _wish(self, taken: Taken, request: dict[str, Any]) -> Wish | None:
        try:
            return self.reuse.wish(taken, request)
        except Exception as error:  # whatever it asks for, it must run or fail by itself, and others of its message too
            log.exception("wish_broke", job_id=taken.id)
            bugs.report(error, "wish_broke", taken, request)
            return None

    def _get(self, key: str) -> bytes | None:
        return until_there(self.store.redis, lambda: cast("bytes | None", self.store.redis.get(key)))

    def _shared(self, batch_id: str) -> dict[str, Any]:
        return until_there(self.store.redis, lambda: self.batch_requests.get(batch_id))

    def find(self, jobs: Sequence[Job]) -> list[Answered]:
        """Outcomes for those of the jobs whose outputs were made before."""
        found = self._coalesced([job for job in jobs if job.taken.leader and job.wish])
        ids = {answered.job_id for answered in found}
        rest = [job for job in jobs if job.wish and job.id not in ids]
        stored = self.cache.get(keys_of(rest)) if rest else {}
        return found + [a for job in rest if (a := self._made_of(job, stored.get(_key(job))))]

    def find_late(self, job: Job) -> Answered | None:
        """The outcome of a job whose output was made since its message came."""
        if job.wish is None:
            return None
        if time.monotonic() - job.looked_at < _STALE_SECONDS:
            return self._made_of(job, self.cache.peek(job.wish.key))
        return next(iter(self.find([job])), None)

    def of_leader(self, job: Job, leader: str) -> Answered | None:
        """The outcome of a job that another one like it has answered; None if that is not there any more."""
        if job.wish is None:
            return None
        return self._made_with(job, entry_of(self._get(names.outcome(leader)), job.wish.key))

    def _coalesced(self, jobs: Sequence[Job]) -> list[Answered]:
        """Outcomes of jobs that followed others; a leader's is read once for all that followed it."""
        wanted = {(job.taken.leader, _key(job)) for job in jobs}
        entries = {(leader, key): entry_of(self._get(names.outcome(leader)), key) for leader, key in wanted}
        return [made for job in jobs if (made := self._made_with(job, entries[job.taken.leader, _key(job)]))]

    def _made_with(self, job: Job, entry: CacheEntry | None) -> Answered | None:
        if entry is None or job.wish is None or not job.wish.accepts(entry):
            return None
        return self.reuse.answered(job, entry, "coalesced")

    def _made_of(self, job: Job, found: Found | None) -> Answered | None:
        if found is None or job.wish is None or not job.wish.accepts(found.entry):
            return None
        answered = self.reuse.answered(job, found.entry, "hit")
        if answered is None:
            self.cache.discard(job.wish.key)
        return answered

    def settle(self, answered: Sequence[Answered]) -> Operation[list[str]]:
        """The operation that ends the jobs so."""
        return settle_answered(self.worker_id, answered, EXPIRED)


def _key(job: Job) -> str:
    return job.wish.key if job.wish else ""


def stored_answers(runner: Runner, store: SyncStore) -> StoredAnswers:
    """Those for the jobs a runner runs."""
    reuse = Reuse(runner.settings, runner.programs)
    return StoredAnswers(runner.worker_id, store, BatchRequests(store.redis), reuse, runner.cache)
