"""Events of jobs: what Celery's own receiver makes of them, and what never stands in them."""

from __future__ import annotations

from typing import Any

import pytest
from celery.events.state import State

from dspy_jobs.ids import new_job_id
from dspy_jobs.outcomes import Attempt
from dspy_jobs.problems import problem
from dspy_jobs.store.flights import Answered
from dspy_jobs.store.records import Claim, NotClaimed, Taken
from worker.attempt import Settlement
from worker.job_events import JobEvents

SECRET = "the patient's name"


@pytest.fixture
def events() -> JobEvents:
    """Events that somebody listens to."""
    wanted = JobEvents()
    wanted.is_wanted = True
    return wanted


def _taken(job_id: str, attempts: int = 0, batch: str = "") -> Taken:
    return Taken(job_id, attempts, batch, "qa", "fast", "b", "", f'{{"inputs": "{SECRET}"}}'.encode(), 0)


def _claim(job_id: str, attempt: int = 1) -> Claim:
    return Claim(job_id, attempt, 0, 0, "", "qa", "fast", {"inputs": SECRET}, 3, 0, 0, (), False)


def _settlement(status: str, code: str | None = None) -> Settlement:
    error = problem(code, SECRET) if code else None
    return Settlement(None, status, Attempt(1, "fast", 1000, 3500, error))  # type: ignore[arg-type]


def _state(events: JobEvents, state: State | None = None) -> State:
    """What a listener knows after the events so far."""
    state = state or State()
    for event in events.take(10_000):
        assert SECRET not in str(event)
        state.event({"hostname": "worker@here", "clock": 0, "local_received": event["timestamp"], **event})
    return state


def _run(events: JobEvents, job_id: str, status: str, code: str | None = None, attempt: int = 1) -> None:
    events.received([job_id], [_taken(job_id, attempt - 1)])
    events.started(_claim(job_id, attempt))
    events.ended(_claim(job_id, attempt), _settlement(status, code), True)


def test_nothing_is_noted_while_nobody_listens() -> None:
    """Without a listener a job costs no more than a look."""
    events = JobEvents()
    _run(events, new_job_id(), "retrying", "server")
    events.message_over(1)
    assert events.take(10) == []
    assert not events.is_urgent.is_set()


@pytest.mark.parametrize(
    ("status", "code", "state", "exception"),
    [
        ("succeeded", None, "SUCCESS", None),
        ("failed", "program_error", "FAILURE", "program_error: The program raised an error"),
        ("retrying", "server", "RETRY", "server: The provider failed"),
        ("canceled", "canceled", "REVOKED", "canceled: It was canceled"),
    ],
)
def test_a_single_job(events: JobEvents, status: str, code: str | None, state: str, exception: str | None) -> None:
    """Its entry has the job's id, its program, model and variant, how it ended and how long it took."""
    job_id = new_job_id()
    _run(events, job_id, status, code)
    assert events.is_urgent.is_set() == (status == "retrying")
    task = _state(events).tasks[job_id]
    assert (task.name, task.state, task.exception, task.runtime) == ("qa", state, exception, 2.5)
    assert task.args == "single job"
    assert task.kwargs == {"model": "fast", "program": "qa", "attempt": 1}
    assert (task.result == "{'cache': 'bypass', 'attempt': 1, 'model': 'fast'}") == (status == "succeeded")


def test_a_chunk_and_its_jobs(events: JobEvents) -> None:
    """A message of several has an entry that counts as no job; its jobs are its children and name their batch."""
    ids = [new_job_id() for _ in range(3)]
    events.received(ids, [_taken(job_id, batch="batch_1") for job_id in ids[:2]])
    events.started(_claim(ids[0]))
    events.message_over(1)
    state = _state(events)
    chunk = state.tasks[f"chunk-3-{ids[0]}"]
    assert (chunk.name, chunk.state, chunk.args) == ("chunk", "CHUNK", "chunk of 3")
    assert chunk.result == "{'jobs': 2, 'handed_back': 1}"
    assert chunk.kwargs == {"model": "fast", "batch": "batch_1"}
    assert {child.uuid for child in chunk.children} == set(ids[:2])
    assert [state.tasks[job_id].state for job_id in ids[:2]] == ["STARTED", "RECEIVED"]
    assert state.tasks[ids[1]].kwargs["batch"] == "batch_1"
    assert state.tasks[ids[1]].kwargs["variant"] == "b"
    assert state.tasks[ids[1]].args == "one of a chunk of 3"
    assert ids[2] not in state.tasks
    events.message_over(0)
    assert events.take(1) == [], "a thread is done with a chunk once"


def test_an_attempt_after_an_end_shows(events: JobEvents) -> None:
    """A job that failed and was retried by hand runs again, and its old error is gone; so does one that waited."""
    for before in ("failed", "retrying"):
        job_id = new_job_id()
        _run(events, job_id, before, "server")
        events.received([job_id], [_taken(job_id, 1)])
        events.started(_claim(job_id, 2))
        task = _state(events).tasks[job_id]
        assert (task.state, task.exception) == ("STARTED", None)
        assert task.kwargs["attempt"] == 2


@pytest.mark.parametrize(("reply", "state"), [(False, "STARTED"), ("stale", "STARTED"), ("canceled", "REVOKED")])
def test_what_the_store_made_of_it_counts(events: JobEvents, reply: Any, state: str) -> None:
    """An outcome that the store refused never was; a retry of a job canceled meanwhile is its cancellation."""
    job_id = new_job_id()
    events.started(_claim(job_id))
    events.ended(_claim(job_id), _settlement("retrying", "server"), reply)
    assert _state(events).tasks[job_id].state == state


def test_jobs_that_did_not_run(events: JobEvents) -> None:
    """An answer made before is a success that says so; one too late is a failure; one that waits stays as it was."""
    ids = [new_job_id() for _ in range(5)]
    events.received(ids, [_taken(job_id) for job_id in ids])
    events.answered(Answered(ids[0], SECRET.encode(), "hit", 0), "finished")
    events.answered(Answered(ids[1], SECRET.encode(), "hit", 0), "expired")
    events.answered(Answered(ids[2], SECRET.encode(), "hit", 0), "parked")
    events.not_started(ids[3], NotClaimed("expired"))
    events.not_started(ids[4], NotClaimed("following"))
    tasks = _state(events).tasks
    assert [tasks[job_id].state for job_id in ids] == ["SUCCESS", "FAILURE", "RECEIVED", "FAILURE", "RECEIVED"]
    assert tasks[ids[0]].result == "{'cache': 'hit'}"
    assert tasks[ids[3]].exception == "expired: It did not start in time"


def test_what_cannot_be_sent_is_bounded(events: JobEvents) -> None:
    """The oldest events give way; what was given back is the oldest again."""
    claim = _claim(new_job_id())
    for _ in range(20_000):
        events.started(claim)
    first = events.take(1)
    events.give_back(first)
    taken = events.take(30_000)
    assert taken[:1] == first
    assert len(taken) == 16_384
