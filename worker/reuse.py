"""Outputs made before, for jobs that ask for the same again: from the cache, or from a job they followed."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
import structlog
from cachetools import LRUCache
from pydantic import ValidationError

from dspy_jobs import money, outcomes
from dspy_jobs.cache_entry import CacheEntry
from dspy_jobs.cache_key import KeySubject, cache_key, subject_of
from dspy_jobs.outcomes import Attempt, Reused
from dspy_jobs.settings import Settings
from dspy_jobs.store.flights import Answered
from dspy_jobs.store.records import Taken
from worker.programs import Arm, Program
from worker.wish import Wish

log = structlog.get_logger("worker")

#: Combinations of program, model and parameters whose part of the key is remembered.
_SUBJECTS = 1024


@dataclass(frozen=True, slots=True)
class Job:
    """A taken job with what it asks for."""

    taken: Taken
    request: dict[str, Any]
    """What the caller gave, over what its batch shares."""
    wish: Wish | None
    """None if it neither takes nor leaves an output."""
    looked_at: float = 0.0
    """When outputs made before were looked up, by the monotonic clock."""

    @property
    def id(self) -> str:
        """The job's id."""
        return self.taken.id


class Reuse:
    """Knows what a job may take from others and makes its outcome of it. Thread-safe."""

    def __init__(self, settings: Settings, programs: Mapping[str, Program]) -> None:
        self._settings = settings
        self._programs = programs
        self._subjects: LRUCache[tuple[Any, ...], KeySubject] = LRUCache(_SUBJECTS)
        self._lock = threading.Lock()

    def wish(self, taken: Taken, request: Mapping[str, Any]) -> Wish | None:
        """What a job asks for; None if it asks not to share, or its program must not, or its inputs have no key."""
        wanted = request.get("cache") or {}
        mode = wanted.get("mode", "default")
        program = self._programs.get(taken.program)
        if not self._settings.cache.enabled or mode == "off" or program is None or not self._is_kept(taken.program):
            return None
        arm = program.arms.get(taken.variant)
        if arm is None:
            return None
        try:
            subject = self._subject(taken, arm, wanted.get("namespace", ""), request.get("parameters") or {})
            key = cache_key(subject, request["inputs"], program.description.input_schema)
        except (KeyError, ValueError) as error:
            log.debug("no_cache_key", job_id=taken.id, error=str(error))
            return None
        max_age = wanted.get("max_age_seconds")
        return Wish(key, mode, 0 if max_age is None else max(0, taken.at - max_age * 1000))

    def _is_kept(self, program: str) -> bool:
        return self._settings.programs[program].cache

    def _subject(self, taken: Taken, arm: Arm, namespace: str, parameters: Mapping[str, Any]) -> KeySubject:
        known = (taken.program, taken.variant, taken.model, namespace, orjson.dumps(parameters) if parameters else b"")
        with self._lock:
            subject = self._subjects.get(known)
            if subject is None:
                model, layers = self._settings.models[taken.model], (arm.parameters, parameters)
                subject = subject_of(taken.model, model, arm.version, taken.variant, namespace, *layers)
                self._subjects[known] = subject
        return subject

    def answered(self, job: Job, entry: CacheEntry, how: str) -> Answered | None:
        """A job's outcome made of an output made before; None if the output does not fit the program after all."""
        program = self._programs[job.taken.program]
        assert job.wish is not None, "a job that may not share is given nothing"
        try:
            program.types.check_output(entry.output)
        except ValidationError:
            return None
        at = job.taken.at
        attempt = Attempt(job.taken.attempts + 1, job.taken.model, at, at)
        reused = Reused(how, job.wish.key, max(0, at - entry.created_at) / 1000, entry.cost_nanos)
        version = program.arms[job.taken.variant].version
        outcome = outcomes.success(job.id, entry.output, attempt, version, reused)
        return Answered(job.id, outcome, how, entry.cost_nanos)


def entry_of(outcome: bytes | None, key: str) -> CacheEntry | None:
    """What a leader's outcome holds for those that followed it; None if it is not there any more or not theirs."""
    if outcome is None:
        return None
    found = orjson.loads(outcome)
    if found["status"] != "SUCCESS" or found.get("cache_key") != key:
        return None
    cost = found["cost_usd"]
    nanos = found.get("saved_nanos") if found["cache"] in ("hit", "coalesced") else cost and money.nanos(cost)
    made_at = found["attempt"]["ended_at"] - round(1000 * found.get("cache_age_seconds", 0))
    return CacheEntry(found["result"], made_at, nanos, found["program_version"])


def keys_of(jobs: Iterable[Job]) -> list[str]:
    """The keys of outputs that jobs would take."""
    return list(dict.fromkeys(job.wish.key for job in jobs if job.wish and job.wish.may_take))
