"""What HTTP shows: pure functions from what the store holds of jobs, batches, queues to the members a caller reads.

Chosen where the contract leaves room: `usage` and `cost_usd` of a job count every attempt, for every attempt is paid
for; they are null until the job has ended and where any part is unknown. `expires_at` is the time by which a job must
start, null once it has or will not; of a batch the time by which all its jobs must, null once it has ended. A batch's
`usage` counts what its attempts have reported; its tokens are null as soon as those of one call are unknown. Its
`cost_usd` is null as soon as one attempt of it has no known price or was cut short, so that nobody knows what it used.
"""

from __future__ import annotations

import math
from typing import Any

from dspy_jobs.demand import Demand, QueueDemand
from dspy_jobs.money import dollars, format_dollars, nanos
from dspy_jobs.outcomes import rfc3339
from dspy_jobs.states import BatchStatus, JobStatus, PauseReason, WaitReason
from dspy_jobs.store.records import Gate, StoredBatch, StoredJob
from dspy_jobs.submissions import DEFAULT_MIN_ITEMS

#: Members of a batch's `counts` that add up to its `total`.
COUNTED = tuple(status.value for status in JobStatus)
#: Under which name the calls of those are booked who have none.
DEFAULT_CLIENT = "default"
#: How a succeeded job came by its answer: stored before, run, run by another job at the same moment, or past the cache.
CACHE_WORDS = ("hit", "miss", "coalesced", "bypass")


def _time(ms: str | None) -> str | None:
    return rfc3339(ms) if ms else None


def job_view(job: StoredJob) -> dict[str, Any]:
    """A job as `GET /v1/jobs/{id}` shows it. It must not be gone."""
    view = job_result(job)
    view["urls"] = job_urls(job.id)
    return view


def job_urls(job_id: str) -> dict[str, str]:
    """Where to go on with a job."""
    path = f"/v1/jobs/{job_id}"
    return {"get": path, "cancel": f"{path}/cancel", "retry": f"{path}/retry"}


def job_result(job: StoredJob) -> dict[str, Any]:
    """A job as a batch's result line shows it."""
    fields, request, outcome = job.fields, job.request or {}, job.outcome or {}
    attempts = _attempts(job)
    started, ended = fields.get("started_at"), fields.get("ended_at")
    view: dict[str, Any] = {
        "id": job.id,
        "object": "job",
        "status": fields["status"],
        "program": fields["program"],
        "program_version": outcome.get("program_version") or request.get("program_version"),
        "model": fields["model"],
        "variant": fields.get("variant"),
        "client": _client(fields),
        "batch_id": fields.get("batch") or None,
        "custom_id": request.get("custom_id"),
        "request_id": request.get("request_id"),
        "attempt": int(fields.get("attempt", 0)),
        "attempts": [_attempt_view(attempt) for attempt in attempts],
        **_ending(job, outcome, request),
        **_cached(outcome),
        "usage": _usage(attempts) if outcome else None,
        "cost_usd": _cost(attempts) if outcome else None,
        "created_at": rfc3339(fields["created_at"]),
        "started_at": _time(started),
        "ended_at": _time(ended),
        "expires_at": None if started or ended else _time(fields.get("expires_at")),
        "metadata": request.get("metadata"),
    }
    if scores := _scores(fields):
        view["scores"] = scores
    return view


def _scores(fields: dict[str, str]) -> dict[str, float]:
    """What callers gave the job, by name."""
    prefix = "score:"
    return {name.removeprefix(prefix): float(value) for name, value in fields.items() if name.startswith(prefix)}


def _client(fields: dict[str, str]) -> str | None:
    """Whose it is, as the trusted proxy said; None where nobody did."""
    name = fields.get("client", DEFAULT_CLIENT)
    return None if name == DEFAULT_CLIENT else name


def _cached(outcome: dict[str, Any]) -> dict[str, Any]:
    """Whether the answer was a stored one, which, how old it was then, and what not running again has saved."""
    return {
        "cache": outcome.get("cache"),
        "cache_key": outcome.get("cache_key"),
        "cache_age_seconds": outcome.get("cache_age_seconds"),
        "saved_usd": _dollars(outcome.get("saved_nanos")),
    }


def _dollars(nanos: int | str | None) -> float | None:
    return None if nanos is None else dollars(nanos)


def _ending(job: StoredJob, outcome: dict[str, Any], request: dict[str, Any]) -> dict[str, Any]:
    """The members that depend on the status: why it waits, its output, or its error."""
    status = job.status
    if status == JobStatus.QUEUED:
        return _wait(job)
    if status == JobStatus.SUCCEEDED:
        return {"output": outcome.get("result")}
    if "problem" in outcome:
        place = {"instance": f"/v1/jobs/{job.id}", "request_id": request.get("request_id")}
        return {"error": {**outcome["problem"], **place}}
    return {}


def _wait(job: StoredJob) -> dict[str, Any]:
    """Why a queued job does not run, the time it will be looked at again, and how many go before it."""
    fields = job.fields
    if "follows" in fields and not job.paused:
        return {"wait_reason": WaitReason.BEHIND_N_JOBS.value, "behind": 1}  # the one that makes its answer
    if reason := fields.get("wait"):
        until = fields.get("until")
        return {"wait_reason": reason, **({"until": rfc3339(until)} if until else {})}
    if job.paused:
        return {"wait_reason": _WAITS_FOR[PauseReason(job.paused)].value}
    if job.gate:
        return _closed(job.gate)
    if job.workers == 0:
        return {"wait_reason": WaitReason.NO_WORKERS.value}
    if job.rank:
        return {"wait_reason": WaitReason.BEHIND_N_JOBS.value, "behind": job.rank}
    return {}


_WAITS_FOR = {
    PauseReason.OPERATOR: WaitReason.PAUSED,
    PauseReason.MAX_COST: WaitReason.BUDGET_EXHAUSTED,
    PauseReason.MAX_ERROR_RATE: WaitReason.PAUSED,
}


def _closed(gate: Gate) -> dict[str, Any]:
    """Why a queue is closed, and until when if that is known."""
    return {"wait_reason": gate.reason, **({"until": rfc3339(gate.until)} if gate.until else {})}


def _attempts(job: StoredJob) -> list[dict[str, Any]]:
    """Every attempt in order: those that did not end the job, the one that did, or the one under way."""
    attempts = list(job.attempts)
    last = (job.outcome or {}).get("attempt")
    if last:
        attempts.append(last)
    if job.status == JobStatus.RUNNING:
        fields = job.fields
        attempts.append(
            {"number": int(fields["attempt"]), "model": fields["model"], "started_at": fields["attempt_at"]}
        )
    return attempts


def _attempt_view(attempt: dict[str, Any]) -> dict[str, Any]:
    ended, usage, known = attempt.get("ended_at"), attempt.get("usage"), attempt.get("at_least")
    view = {
        "number": attempt["number"],
        "model": attempt["model"],
        "started_at": rfc3339(attempt["started_at"]),
        "ended_at": None if ended is None else rfc3339(ended),
        "calls": usage["calls"] if usage else None,
        "replayed": (known or attempt).get("replayed", 0),
        "usage": _usage([attempt]) if usage else None,
        "cost_usd": attempt.get("cost_usd"),
    }
    if known:
        view["at_least"] = {"usage": _usage([known]), "cost_usd": known["cost_usd"]}
    if "error" in attempt:
        view["error"] = attempt["error"]
    return view


def _total(values: list[Any]) -> Any:
    """Their sum, or None where one is unknown."""
    return None if None in values else sum(values)


def _usage(attempts: list[dict[str, Any]]) -> dict[str, Any]:
    parts = [attempt.get("usage") or _UNKNOWN_USAGE for attempt in attempts]
    sources = [part.get("source") for part in parts]
    usage = {name: _total([part.get(name) for part in parts]) for name in _COUNTS}
    usage["source"] = _source(sources)
    return usage


def _source(sources: list[str | None]) -> str | None:
    """Where the counts of all attempts come from; None where one attempt's are not known."""
    if not sources or None in sources:
        return None
    return "estimated" if "estimated" in sources else "provider"


#: What a usage counts, calls apart from tokens.
_COUNTS = ("input_tokens", "cached_input_tokens", "output_tokens", "reasoning_tokens", "calls")

#: An attempt whose worker was lost told nobody what it used.
_UNKNOWN_USAGE: dict[str, Any] = {}


def _cost(attempts: list[dict[str, Any]]) -> float | None:
    costs = [attempt.get("cost_usd") for attempt in attempts]
    # Sums of decimal fractions drift; whole nano-dollars do not.
    total: int | None = _total([None if cost is None else nanos(cost) for cost in costs])
    return dollars(total)


def retry_after(job: StoredJob, now_ms: int) -> int:
    """Seconds after which asking again may show something new."""
    until = job.fields.get("until")
    if until is None:
        return 1
    return max(1, min(60, math.ceil((int(until) - now_ms) / 1000)))


def batch_view(batch: StoredBatch, now_ms: int) -> dict[str, Any]:
    """A batch as `GET /v1/batches/{id}` shows it. It must not be gone."""
    fields, request = batch.fields, batch.request or {}
    counts = {name: int(fields.get(name, 0)) for name in ("total", *COUNTED, "cached")}
    view: dict[str, Any] = {
        "id": batch.id,
        "object": "batch",
        "status": fields["status"],
        "program": fields["program"],
        "program_version": request.get("program_version"),
        "model": fields["model"],
        "client": _client(fields),
        "counts": counts,
        "usage": _batch_usage(fields),
        "cost_usd": None if int(fields.get("unpriced", 0)) else _dollars(fields.get("cost", 0)),
        "cache": {name: int(fields.get(name, 0)) for name in CACHE_WORDS},
        "saved_usd": None if int(fields.get("unsaved", 0)) else _dollars(fields.get("saved", 0)),
        "limits": _limits(fields),
        "created_at": rfc3339(fields["created_at"]),
        "ended_at": _time(fields.get("ended_at")),
        "expires_at": _must_start_by(fields),
        "eta_seconds": _eta(batch, counts, now_ms),
        "metadata": request.get("metadata"),
        "request_id": request.get("request_id"),
        "urls": batch_urls(batch.id),
    }
    if "ended_reason" in fields:
        view["ended_reason"] = fields["ended_reason"]
    view |= _batch_wait(batch, counts)
    return view


def _batch_usage(fields: dict[str, str]) -> dict[str, int | None]:
    """What its booked calls used; tokens are unknown as soon as one call's are."""
    is_known = not int(fields.get("untokened", 0))
    tokens = {name: int(fields.get(name, 0)) if is_known else None for name in ("input_tokens", "output_tokens")}
    return {**tokens, "calls": int(fields.get("calls", 0))}


def _limits(fields: dict[str, str]) -> dict[str, Any] | None:
    """What pauses the batch, or None where nothing does."""
    cost, rate, least = (fields.get(f"limit_{name}") for name in ("cost", "error_rate", "min_items"))
    if cost is None and rate is None:
        return None
    return {
        "max_cost_usd": _dollars(cost),
        "max_error_rate": None if rate is None else float(rate),
        "min_items": int(least or DEFAULT_MIN_ITEMS),
    }


def _must_start_by(fields: dict[str, str]) -> str | None:
    """The time by which its jobs must have started."""
    return None if "ended_at" in fields else rfc3339(int(fields["created_at"]) + int(fields["expires_in"]))


def batch_urls(batch_id: str) -> dict[str, str]:
    """Where to go on with a batch."""
    path = f"/v1/batches/{batch_id}"
    moves = {name: f"{path}/{name}" for name in ("results", "cancel", "pause", "resume", "retry")}
    return {"get": path, **moves}


#: The first seconds of a batch say nothing of its pace: workers have only just heard of it.
_FIRST_SECONDS = 2.0


def _eta(batch: StoredBatch, counts: dict[str, int], now_ms: int) -> float | None:
    """Seconds until the batch ends if it goes on at its mean pace; None while that cannot be told."""
    if batch.status == BatchStatus.ENDED:
        return 0.0
    left = counts["queued"] + counts["running"]
    done = counts["total"] - left
    is_held = batch.gate is not None and counts["running"] == 0
    if batch.status == BatchStatus.PAUSED or is_held or done == 0:
        return None
    elapsed = (now_ms - int(batch.fields["created_at"])) / 1000
    if elapsed < _FIRST_SECONDS:
        return None
    return round(left * elapsed / done, 1)


def _batch_wait(batch: StoredBatch, counts: dict[str, int]) -> dict[str, Any]:
    if batch.status == BatchStatus.PAUSED:
        return _pause(batch.fields)
    if batch.status != BatchStatus.IN_PROGRESS or not counts["queued"]:
        return {}
    if batch.gate:
        return _closed(batch.gate)
    return {"wait_reason": WaitReason.NO_WORKERS.value} if batch.workers == 0 else {}


def _pause(fields: dict[str, str]) -> dict[str, Any]:
    """By what a batch is paused, since when, and what lets it go on."""
    reason = fields.get("pause_reason", PauseReason.OPERATOR)
    waits_for = _WAITS_FOR[PauseReason(reason)]
    pause = {"reason": reason, "detail": _PAUSES[PauseReason(reason)](fields), "at": _time(fields.get("paused_at"))}
    return {"wait_reason": waits_for.value, "pause": pause}


def _over_cost(fields: dict[str, str]) -> str:
    spent, limit = (format_dollars(int(fields.get(name) or 0)) for name in ("cost", "limit_cost"))
    if "held" in fields:  # by now there may be room again
        return (
            f"It has spent {spent} of {limit}, and somebody paused it besides; resume it to go on, with a higher "
            "max_cost_usd if that leaves no room for another job."
        )
    return (
        f"It has spent {spent} of {limit}, which leaves no room for another job; resume it with a higher max_cost_usd."
    )


def _over_error_rate(fields: dict[str, str]) -> str:
    failed, succeeded, rate_from_failed, rate_from_done = (
        int(fields.get(name) or 0) for name in ("failed", "succeeded", "rate_from_failed", "rate_from_done")
    )
    ended = failed + succeeded - rate_from_done
    rate = float(fields.get("limit_error_rate") or 1)
    return (
        f"{failed - rate_from_failed} of {ended} jobs failed, and {rate * 100:g} % may; "
        "see the results, then resume it to count anew."
    )


_PAUSES = {
    PauseReason.OPERATOR: lambda _: "Somebody paused it; resume it to go on.",
    PauseReason.MAX_COST: _over_cost,
    PauseReason.MAX_ERROR_RATE: _over_error_rate,
}


def gate_view(gate: Gate | None) -> dict[str, Any]:
    """Whether a queue's jobs may start; if not, why and until when."""
    if gate is None:
        return {"open": True, "reason": None, "until": None}
    return {"open": False, "reason": gate.reason, "until": rfc3339(gate.until) if gate.until else None}


def demand_view(demand: Demand, concurrency: int) -> dict[str, Any]:
    """What `GET /v1/autoscale` shows. Numbers have three decimals, as many as KEDA keeps of a metric."""
    return {
        "work": round(demand.work, 3),
        "work_slots": round(demand.work_slots, 3),
        "waiting": demand.waiting,
        "inflight": demand.inflight,
        "draining": demand.draining,
        "oldest_wait_seconds": round(demand.oldest_wait_seconds, 3),
        "service_seconds": _rounded(demand.service_seconds),
        "concurrency": concurrency,
        "queues": {part.load.name: _queue_demand(part) for part in demand.queues},
    }


def _queue_demand(part: QueueDemand) -> dict[str, Any]:
    return {
        "work_slots": round(part.work_slots, 3),
        "waiting": part.waiting,
        "inflight": part.load.running,
        "queued": part.load.queued,
        "oldest_wait_seconds": round(part.load.oldest_wait_seconds, 3),
        "service_seconds": _rounded(part.load.known_service_seconds),
        "max_concurrent": part.load.most,
        "gate": gate_view(part.load.gate),
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
