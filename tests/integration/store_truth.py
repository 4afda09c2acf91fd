"""The truth about a small store, read whole from Redis: what every count and list is held against."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import redis

from dspy_jobs import names
from dspy_jobs.messages import job_ids
from dspy_jobs.states import Priority
from dspy_jobs.store.demand import Outstanding
from dspy_jobs.store.records import text_fields

#: What a job in each state may become in one step; anything else is a broken promise.
TRANSITIONS = {
    "queued": {"running", "succeeded", "canceled", "expired"},
    "running": {"queued", "succeeded", "failed", "canceled"},
    "succeeded": set(),
    "failed": {"queued"},
    "canceled": {"queued"},
    "expired": {"queued"},
}
#: Fields that a job's record need not hold from the start.
NEW_JOB = {"batch": "", "attempt": "0"}
TERMINAL = {"succeeded", "failed", "canceled", "expired"}
CELERY_STATE = {"succeeded": "SUCCESS", "failed": "FAILURE", "expired": "FAILURE", "canceled": "REVOKED"}


@dataclass(frozen=True)
class Known:
    """Names of what a test uses beside jobs and batches."""

    queues: Sequence[str]
    workers: Sequence[str]
    flights: Sequence[str] = ()
    clients: Sequence[str] = ()


@dataclass(frozen=True)
class Shared:
    """What jobs share beside their batches and queues: answers and budgets."""

    leaders: dict[str, str]
    """Whom each flight's key names."""
    landing: dict[str, str]
    """Flights that are over with followers left: whose answer is theirs, or ''."""
    followers: dict[str, list[str]]
    """The list of followers of each flight; it may also hold jobs that went elsewhere."""
    parked: set[str]
    """The lists of jobs parked for their clients, together; the same goes for them."""
    paused: set[str]
    """Batches that count as paused."""
    calls: int
    """Calls in the books of the day."""


@dataclass
class Truth:
    """Everything the store holds of some jobs, batches, queues and workers."""

    jobs: dict[str, dict[str, str]]
    outcomes: dict[str, dict[str, Any] | None]
    batches: dict[str, dict[str, str]]
    members: dict[str, list[str]]
    """Job ids of each batch in input order."""
    results: dict[str, list[str]]
    places: dict[str, list[str]]
    """Where each job is, once for each time it is there."""
    messages: dict[str, list[bytes]]
    """Messages by the name of the Redis list they are in."""
    numbers: dict[str, dict[str, int]]
    """Counts of each queue, and under `totals` those of all."""
    leased: set[str]
    shared: Shared

    def reachable(self) -> set[tuple[str, str]]:
        """(list, job) of every message in a queue."""
        return {(name, job_id) for name, raws in self.messages.items() for raw in raws for job_id in job_ids(raw)}

    def queue_list(self, job_id: str) -> str:
        """The Redis list a job's message belongs into."""
        return names.queue_list(self.jobs[job_id]["queue"], int(self.jobs[job_id]["priority"]))

    def statuses(self, **wanted: str) -> Counter[str]:
        """Numbers of jobs by state, of those whose fields are as wanted."""
        return Counter(
            job["status"]
            for job in self.jobs.values()
            if all(job.get(name, "") == value for name, value in wanted.items())
        )


def read_shared(client: redis.Redis, known: Known, day: str) -> Shared:
    """Read it in one transaction."""
    with client.pipeline() as pipe:
        for key in known.flights:
            pipe.get(names.flight(key)).lrange(names.followers(key), 0, -1)
        for name in known.clients:
            pipe.lrange(names.client_parked(name), 0, -1)
        pipe.hgetall(names.LANDING).hgetall(names.costs(day)).hgetall(names.closed_costs(day))
        pipe.smembers(names.PAUSED_BATCHES)
        replies = iter(pipe.execute())
    flights = {key: (next(replies), _texts(next(replies))) for key in known.flights}
    parked = {job_id for _ in known.clients for job_id in _texts(next(replies))}
    landing, *books = (_fields(next(replies)) for _ in range(3))
    paused = _texts(next(replies))
    return Shared(
        leaders={key: leader.decode() for key, (leader, _) in flights.items() if leader},
        landing=landing,
        followers={key: ids for key, (_, ids) in flights.items() if ids},
        parked=parked,
        paused=set(paused),
        calls=sum(int(value) for part in books for name, value in part.items() if name.endswith("|calls")),
    )


def read_truth(client: redis.Redis, jobs: Sequence[str], batches: Sequence[str], known: Known, day: str = "") -> Truth:
    """Read it in two transactions: what jobs share, then all else. `day` is the day of the books, as yyyymmdd."""
    shared = read_shared(client, known, day)
    queues, workers = known.queues, known.workers
    lists = [names.queue_list(queue, priority.step) for queue in queues for priority in Priority]
    with client.pipeline() as pipe:
        for job_id in jobs:
            pipe.hgetall(names.job(job_id)).get(names.outcome(job_id))
        for batch_id in batches:
            pipe.hgetall(names.batch(batch_id)).lrange(names.batch_jobs(batch_id), 0, -1)
            pipe.lrange(names.batch_results(batch_id), 0, -1).lrange(names.batch_parked(batch_id), 0, -1)
        for queue in queues:
            pipe.hgetall(names.queue_numbers(queue))
            for priority in Priority:
                pipe.zrange(names.queue_waiting(queue, priority.step), 0, -1)
        for name in lists:
            pipe.lrange(name, 0, -1)
        for worker in workers:
            pipe.smembers(names.worker_held(worker))
        pipe.hgetall(names.TOTALS).zrange(names.DELAYED, 0, -1).zrange(names.WORKERS, 0, -1)
        replies = iter(pipe.execute())
    read = {job_id: (_fields(next(replies)), _loads(next(replies))) for job_id in jobs}
    batch = {b: (_fields(next(replies)), *(_texts(next(replies)) for _ in range(3))) for b in batches}
    queue_ = {
        queue: (_fields(next(replies)), [job_id for _ in Priority for job_id in _texts(next(replies))])
        for queue in queues
    }
    messages = {name: next(replies) for name in lists}
    held = {worker: _texts(next(replies)) for worker in workers}
    totals, delayed, leased = next(replies), next(replies), next(replies)
    truth = Truth(
        jobs={job_id: NEW_JOB | fields for job_id, (fields, _) in read.items()},
        outcomes={job_id: outcome for job_id, (_, outcome) in read.items()},
        batches={batch_id: b[0] for batch_id, b in batch.items()},
        members={batch_id: b[1] for batch_id, b in batch.items()},
        results={batch_id: b[2] for batch_id, b in batch.items()},
        places={job_id: [] for job_id in jobs},
        messages=messages,
        numbers={name: _numbers(fields) for name, (fields, _) in queue_.items()}
        | {"totals": _numbers(_fields(totals))},
        leased=set(_texts(leased)),
        shared=shared,
    )
    _put(truth, "waiting", [job_id for _, waiting in queue_.values() for job_id in waiting])
    _put(truth, "delayed", _texts(delayed))
    _put_waiting_for_others(truth, {job_id for b in batch.values() for job_id in b[3]})
    for worker, ids in held.items():
        _put(truth, f"held by {worker}", ids)
    for batch_id, ids in truth.members.items():
        released = int(truth.batches[batch_id].get("released", "0"))
        _put(truth, "unreleased", [job_id for job_id in ids[released:] if _never_sent(truth.jobs.get(job_id, {}))])
    return truth


def _put_waiting_for_others(truth: Truth, parked_with_batches: set[str]) -> None:
    """Lists may also hold jobs from an earlier time; whichever list of parked ones is read first sends a job."""
    parked = parked_with_batches | truth.shared.parked
    _put(truth, "parked", [job_id for job_id in parked if "parked" in truth.jobs.get(job_id, {})])
    for key, ids in truth.shared.followers.items():
        _put(truth, "following", [j for j in dict.fromkeys(ids) if truth.jobs.get(j, {}).get("follows") == key])


def _never_sent(job: dict[str, str]) -> bool:
    return job.get("status") == "queued" and "tries" not in job


def _put(truth: Truth, place: str, ids: Iterable[str]) -> None:
    for job_id in ids:
        truth.places.setdefault(job_id, []).append(place)


def _fields(raw: dict[bytes, bytes]) -> dict[str, str]:
    return text_fields([part for pair in raw.items() for part in pair])


def _texts(raw: Iterable[bytes]) -> list[str]:
    return [value.decode() for value in raw]


def _loads(raw: bytes | None) -> dict[str, Any] | None:
    return orjson.loads(raw) if raw else None


def _numbers(fields: dict[str, str]) -> dict[str, int]:
    return {name: int(fields.get(name, "0")) for name in ("queued", "taken", "running")}


def _is_taken(job: dict[str, str], queue: str) -> bool:
    return (job["status"], job["queue"]) == ("queued", queue) and "owner" in job


def check_counts(truth: Truth) -> None:
    """Every count equals what reading the jobs gives."""
    for batch_id, batch in truth.batches.items():
        if "status" in batch:
            found = truth.statuses(batch=batch_id)
            counted = {state: int(batch[state]) for state in TRANSITIONS}
            assert counted == {state: found[state] for state in TRANSITIONS}, batch_id
            assert sum(counted.values()) == int(batch["total"]), batch_id
    for name, numbers in truth.numbers.items():
        found = truth.statuses() if name == "totals" else truth.statuses(queue=name)
        taken = 0 if name == "totals" else len([job for job in truth.jobs.values() if _is_taken(job, name)])
        assert numbers == {"queued": found["queued"], "taken": taken, "running": found["running"]}, name


def check_demand(truth: Truth, found: Outstanding) -> None:
    """What is read without looking at jobs equals what looking at each of them gives."""
    for queue in found.queues:
        jobs = [job_id for job_id, job in truth.jobs.items() if job["queue"] == queue.name]
        waiting = [job_id for job_id in jobs if "waiting" in truth.places[job_id]]
        assert queue.waiting == len(waiting), queue
        assert queue.paused == sum(_is_paused(truth, truth.jobs[job_id]) for job_id in waiting), queue
        assert {n: getattr(queue, n) for n in ("queued", "taken", "running")} == truth.numbers[queue.name], queue
    held = Counter(place for places in truth.places.values() for place in places if place.startswith("held by "))
    assert +Counter({f"held by {worker.id}": worker.held for worker in found.workers}) == held


def _is_paused(truth: Truth, job: dict[str, str]) -> bool:
    return bool(job["batch"]) and truth.batches[job["batch"]]["status"] == "paused"


def check_places(truth: Truth, lost: set[str]) -> None:
    """Each job is in exactly the one place its state says; a waiting one has a message unless that was lost."""
    reachable = truth.reachable()
    for job_id, job in truth.jobs.items():
        places = truth.places[job_id]
        assert ("cancel" not in job) or job["status"] == "running", (job_id, "a wish to cancel outlived its attempt")
        if job["status"] == "queued":
            assert len(places) == 1, (job_id, places)
        elif job["status"] == "running":
            assert places == [f"held by {job['owner']}"], (job_id, places)
        else:
            assert places == [], (job_id, places)
        if places == ["waiting"]:
            assert (truth.queue_list(job_id), job_id) in reachable or job_id in lost, job_id
    holders = {
        place.removeprefix("held by ") for places in truth.places.values() for place in places if "held" in place
    }
    assert holders <= truth.leased, "a holder without a lease could never be found lost"
    assert truth.places.keys() == truth.jobs.keys(), "a list names a job nobody knows"


def check_outcomes(truth: Truth, endings: Counter[str], erased: set[str]) -> None:
    """An ended job has one outcome and stands at its place among its batch's results; no other job has one."""
    for job_id, job in truth.jobs.items():
        outcome, ended = truth.outcomes[job_id], job["status"] in TERMINAL
        assert (outcome is not None) == (ended and job_id not in erased), job_id
        assert ended == ("ended_at" in job), job_id
        if outcome is not None:
            assert outcome["status"] == CELERY_STATE[job["status"]], job_id
            assert outcome["task_id"] == job_id
        if job.get("batch"):
            results = truth.results[job["batch"]]
            assert results.count(job_id) == endings[job_id], job_id
            assert ("place" in job) == ended, job_id
            assert not ended or results[int(job["place"])] == job_id, job_id


def check_batches(truth: Truth) -> None:
    """A batch has ended exactly if nothing of it is queued or running."""
    for batch_id, batch in truth.batches.items():
        if "status" in batch:
            found = truth.statuses(batch=batch_id)
            assert (batch["status"] == "ended") == (found["queued"] + found["running"] == 0), batch_id
            assert (batch["status"] == "ended") == ("ended_reason" in batch) == ("ended_at" in batch), batch_id
            assert (batch["status"] == "paused") == (batch_id in truth.shared.paused), batch_id
            assert _counted_waiting(batch) == _waiting_by_queue(truth, batch_id), batch_id


def _counted_waiting(batch: dict[str, str]) -> Counter[str]:
    counts = {name.removeprefix("waiting "): int(n) for name, n in batch.items() if name.startswith("waiting ")}
    assert min(counts.values(), default=0) >= 0, batch
    return +Counter(counts)


def _waiting_by_queue(truth: Truth, batch_id: str) -> Counter[str]:
    waiting = [truth.jobs[job_id] for job_id, places in truth.places.items() if "waiting" in places]
    return Counter(job["queue"] for job in waiting if job["batch"] == batch_id)


def check_flights(truth: Truth) -> None:
    """One job leads a flight at most; whoever follows has a leader that will end, or is about to be sent."""
    leading = Counter(job["leads"] for job in truth.jobs.values() if "leads" in job)
    assert max(leading.values(), default=0) <= 1, leading
    for job_id, job in truth.jobs.items():
        if key := job.get("leads"):
            assert job["status"] in ("running", "queued"), (job_id, "leads though it has ended")
            assert truth.shared.leaders.get(key) == job_id
        if key := job.get("follows"):
            assert job["status"] == "queued", job_id
            assert leading[key] or key in truth.shared.landing, (job_id, "follows nobody, and nobody will send it")
            assert job.get("leads") != key, (job_id, "follows itself")
    assert truth.shared.landing.keys() <= truth.shared.followers.keys(), "nobody is left to be sent"


def check_messages(truth: Truth) -> None:
    """Every message is one Celery can read, with a tag of its own and without a job twice."""
    raws = [orjson.loads(raw) for raw_list in truth.messages.values() for raw in raw_list]
    tags = [raw["properties"]["delivery_tag"] for raw in raws]
    assert len(set(tags)) == len(tags)
    for raw in raws:
        ids = orjson.loads(raw["body"])[0][0]
        assert len(set(ids)) == len(ids) > 0
        assert ids[0] in raw["headers"]["id"]


def check_transitions(before: Truth, after: Truth) -> tuple[Counter[str], Counter[str]]:
    """No job took a forbidden turn and no attempt number went back. Answers the jobs and batches that ended now."""
    jobs, batches = Counter[str](), Counter[str]()
    for job_id, job in after.jobs.items():
        was = before.jobs.get(job_id, {"status": "queued", "attempt": "0"})
        assert job["status"] == was["status"] or job["status"] in TRANSITIONS[was["status"]], (job_id, was["status"])
        expired_now = job["status"] == "expired" != was["status"]
        assert not (expired_now and "started_at" in was), (job_id, "a job that has started never expires")
        assert int(job.get("attempt", 0)) - int(was.get("attempt", 0)) == (
            (was["status"], job["status"]) in (("queued", "running"), ("queued", "succeeded"))
        ), job_id
        jobs[job_id] += was["status"] not in TERMINAL and job["status"] in TERMINAL
    for batch_id, batch in after.batches.items():
        was_ended = before.batches.get(batch_id, {}).get("status") == "ended"
        batches[batch_id] += batch.get("status") == "ended" and not was_ended
    return +jobs, +batches
