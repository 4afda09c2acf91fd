"""What becomes of each job as Celery's task events, so that Flower shows jobs under the ids the API gave them.

Celery itself knows messages only, of which one may hold many jobs, so its own events for the task are off. An event
names the job, its program, model, variant, batch and attempt; never inputs, outputs or what an error says. A message of
several jobs has an entry of its own in the state CHUNK, of which the jobs are the children; it counts as none of them.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

from dspy_jobs.messages import message_id
from dspy_jobs.problems import meaning_of
from dspy_jobs.store.flights import Answered
from dspy_jobs.store.records import Claim, NotClaimed, Taken
from worker.attempt import Settlement

#: An event as Celery's receivers read it, but for the worker's name.
Event = dict[str, Any]

#: Most events kept for sending, some 5 MB: what a busy worker says in ten seconds. The oldest give way.
_MOST = 16_384

#: Event types by how an attempt ended.
_ENDS = {
    "succeeded": "task-succeeded",
    "failed": "task-failed",
    "canceled": "task-revoked",
    "retrying": "task-retried",
}


class _Chunk(NamedTuple):
    uuid: str
    began: float
    jobs: int


class JobEvents:
    """Notes events in the jobs' threads while they are wanted; `EventFeed` sends them. Thread-safe."""

    def __init__(self) -> None:
        self.is_wanted = False
        """Whether anybody listens. While nobody does, each call costs a look at this."""
        self.is_urgent = threading.Event()
        """Set when events should go at once, for another worker may soon have something to say of the same job."""
        self._events: deque[Event] = deque(maxlen=_MOST)
        self._here = threading.local()

    def received(self, ids: Sequence[str], taken: Sequence[Taken]) -> None:
        """A message for these jobs came to this thread, which took some of them."""
        if not self.is_wanted or not taken:
            return
        place = self._begin_chunk(ids, taken) if len(ids) > 1 else {"args": "single job"}
        for job in taken:
            shown = _shown(job.program, job.model, job.variant, job.batch, job.attempts + 1)
            self._note("task-received", job.id, name=job.program, kwargs=shown, **place)

    def started(self, claim: Claim) -> None:
        """An attempt of a job began."""
        if self.is_wanted:
            # What an attempt before left, its state too, is over: Celery's order of states knows no way back from it.
            self._note("task-started", claim.id, **_of(claim), state="STARTED", exception=None, result=None)

    def ended(self, claim: Claim, settlement: Settlement, reply: bool | str) -> None:
        """An attempt ended; `reply` is the store's. An outcome that it did not take never was."""
        if not self.is_wanted or reply in (False, "stale"):
            return
        status = "canceled" if reply == "canceled" else settlement.status
        attempt = settlement.attempt
        seconds = (attempt.ended_at - attempt.started_at) / 1000
        what = (
            {"exception": meaning_of(attempt.error.code)} if attempt.error else {"result": _result(claim, settlement)}
        )
        self._note(_ENDS[status], claim.id, **_of(claim), runtime=seconds, **what)
        if status == "retrying":
            self.is_urgent.set()

    def answered(self, answered: Answered, reply: str) -> None:
        """A job was to end with an output made before; `reply` is the store's."""
        if not self.is_wanted:
            return
        if reply == "finished":
            self._note("task-succeeded", answered.job_id, result=repr({"cache": answered.how}), exception=None)
        elif reply == "expired":
            self._expired(answered.job_id)

    def not_started(self, job_id: str, refused: NotClaimed) -> None:
        """A taken job was not claimed; if it was too late for it, it has ended."""
        if self.is_wanted and refused.reason == "expired":
            self._expired(job_id)

    def message_over(self, handed_back: int) -> None:
        """This thread is done with its message; so many of its jobs went back to the queue."""
        chunk: _Chunk | None = getattr(self._here, "chunk", None)
        if chunk is None:
            return
        self._here.chunk = None
        result = repr({"jobs": chunk.jobs, "handed_back": handed_back})
        self._note("task-chunk", chunk.uuid, runtime=time.time() - chunk.began, result=result)

    def take(self, most: int) -> list[Event]:
        """The oldest events, to be sent."""
        return [self._events.popleft() for _ in range(min(most, len(self._events)))]

    def give_back(self, events: Sequence[Event]) -> None:
        """These could not be sent: they are the oldest again."""
        self._events.extendleft(reversed(events))

    def forget(self) -> None:
        """Nobody listens."""
        self._events.clear()

    def _expired(self, job_id: str) -> None:
        self._note("task-failed", job_id, exception=meaning_of("expired"))

    def _begin_chunk(self, ids: Sequence[str], taken: Sequence[Taken]) -> dict[str, str]:
        """Note the message itself; answers what shows that a job is one of it."""
        chunk = self._here.chunk = _Chunk(message_id(ids), time.time(), len(taken))
        batch = _only(job.batch for job in taken)
        shared = {"model": taken[0].model, **({"batch": batch} if batch else {})}
        self._note(
            "task-chunk", chunk.uuid, name="chunk", args=f"chunk of {len(ids)}", kwargs=shared,
            received=chunk.began, started=chunk.began,
        )  # fmt: skip
        return {"parent_id": chunk.uuid, "root_id": chunk.uuid, "args": f"one of a chunk of {len(ids)}"}

    def _note(self, kind: str, uuid: str, **fields: Any) -> None:
        self._events.append({"type": kind, "uuid": uuid, "timestamp": time.time(), **fields})


def _of(claim: Claim) -> dict[str, Any]:
    """What says which job it is, again: the attempt is another one, or a listener has only just come."""
    shown = _shown(claim.program, claim.model, claim.variant, claim.batch, claim.attempt)
    return {"name": claim.program, "kwargs": shown}


def _shown(program: str, model: str, variant: str, batch: str, attempt: int) -> dict[str, Any]:
    """Arguments by name. Not written out, as Celery does: Flower would only read that again, at a fifth of its time."""
    shown: dict[str, Any] = {"model": model}
    if batch:
        shown["batch"] = batch
    if variant:
        shown["variant"] = variant
    return {**shown, "program": program, "attempt": attempt}


def _result(claim: Claim, settlement: Settlement) -> str:
    cache = "miss" if settlement.to_store else "bypass"
    return repr({"cache": cache, "attempt": claim.attempt, "model": claim.model})


def _only(values: Any) -> str:
    """The value, if they are all the same."""
    found = set(values)
    return found.pop() if len(found) == 1 else ""
