"""When a component is healthy, degraded or unhealthy: pure functions from what was seen to what `GET /health` shows.

`unhealthy` is what keeps jobs from being taken or run, `degraded` what does harm to some of them or soon will,
`unknown` what only Redis can tell while it does not answer: then the numbers are the last ones known, from `as_of`.
Every `detail` says what to do. docs/health.md has the rules as a table.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from api.failures import ProgramFailures
from api.health_checks import CacheServer, Ledger, LostWorker
from api.looks import Known, Seen
from dspy_jobs import __version__
from dspy_jobs.demand import QueueDemand, QueueLoad, WorkerLoad, demand_of
from dspy_jobs.disk_space import DiskSpace, complaint_about_disk
from dspy_jobs.outcomes import rfc3339
from dspy_jobs.redis_state import (
    HANGS_REMEDY,
    Complaint,
    RedisState,
    complaint_about_failure,
    complaints_about_cache,
    complaints_about_ledger,
)
from dspy_jobs.settings import Settings
from dspy_jobs.states import CircuitState, WaitReason
from dspy_jobs.views import gate_view

T = TypeVar("T")
Status = Literal["healthy", "degraded", "unhealthy", "unknown"]

#: From best to worst. What is unknown is so because something else is unhealthy.
_ORDER: tuple[Status, ...] = ("healthy", "unknown", "degraded", "unhealthy")
#: Workers shown one by one.
MOST_WORKERS = 100
#: Seconds without a question for messages after which a worker's consumer, which asks every second, has stopped.
DEAF_SECONDS = 10.0
#: Failed jobs of a program, and their share of those that ended, from which something is wrong with it.
MANY_FAILURES, MUCH_FAILURE = 5, 0.1
#: Programs shown one by one, and codes of each.
_MOST_PROGRAMS, _MOST_CODES = 10, 3
#: Queues named one by one.
_MOST_QUEUES = 2

_GATE_REMEDIES: dict[str, str] = {
    WaitReason.PAUSED: "somebody paused it; `dspy-jobs queue resume {queue}` lets it go on",
    WaitReason.CIRCUIT_OPEN: "see circuits",
    WaitReason.BUDGET_EXHAUSTED: "a budget is used up; see `dspy-jobs budgets`",
    WaitReason.RATE_LIMITED: "the provider's limit is reached; it opens by itself",
}

#: For a reason that only a newer release knows.
_UNKNOWN_REMEDY = "see the release notes of the newest version that runs"


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something wrong with a component, and what to do."""

    status: Status
    detail: str


def worst(statuses: Iterable[Status]) -> Status:
    """The status of a whole."""
    return max(statuses, key=_ORDER.index, default="healthy")


def component(troubles: Iterable[Trouble], **members: Any) -> dict[str, Any]:
    """What is shown of a component."""
    found = list(troubles)
    detail = {"detail": "; ".join(trouble.detail for trouble in found)} if found else {}
    return {"status": worst(trouble.status for trouble in found), **detail, **members}


def health_document(
    settings: Settings,
    ledger: Seen[Ledger],
    cache: Seen[CacheServer] | None,
    disk: Seen[DiskSpace] | None,
    now_ms: float,
) -> dict[str, Any]:
    """What `GET /health` shows. `cache` is None where it is switched off, `disk` where Redis is elsewhere."""
    # What causes trouble elsewhere stands before what it causes.
    components = {
        "redis": of_redis(ledger),
        **({"disk": of_disk(disk)} if disk else {}),
        "cache": of_cache(cache, ledger, settings),
        "programs": of_programs(ledger),
        "budgets": of_budgets(ledger),
        "circuits": of_circuits(ledger),
        "workers": of_workers(ledger, settings),
        "failures": of_failures(ledger),
        "queues": of_queues(ledger, settings),
    }
    problems = [
        f"{name}: {found['detail']}"
        for name, found in components.items()
        if found["status"] in ("degraded", "unhealthy")
    ]
    return {
        "status": worst(found["status"] for found in components.values()),
        "version": __version__,
        "checked_at": rfc3339(now_ms),
        "problems": problems,
        "components": components,
    }


def of_redis(seen: Seen[Ledger]) -> dict[str, Any]:
    """The Redis of queue, jobs and results: without it nothing works."""
    if failure := _failure(seen, "REDIS_URL"):
        last = {"as_of": rfc3339(seen.known.at * 1000), **_memory(seen.known.value.server)} if seen.known else {}
        return component([_trouble(failure, "unhealthy")], latency_ms=None, **last)
    assert seen.known is not None
    ledger = seen.known.value
    found = complaints_about_ledger(ledger.server)
    troubles = [_trouble(complaint, "unhealthy" if complaint.stops_work else "degraded") for complaint in found]
    return component(troubles, latency_ms=round(ledger.latency_ms, 2), **_memory(ledger.server))


def of_cache(seen: Seen[CacheServer] | None, ledger: Seen[Ledger], settings: Settings) -> dict[str, Any]:
    """The response cache: without it jobs run all the same, and are paid for again. None: it is switched off."""
    if seen is None:
        return component([], enabled=False)
    if settings.cache.url is None and not ledger.is_fresh:
        return unknown(seen.known, enabled=True, latency_ms=None)  # the same server, whose trouble is told once
    if failure := _failure(seen, "CACHE_URL"):
        cost = "; jobs run meanwhile without stored answers"
        trouble = _trouble(failure, "degraded")
        return component([Trouble(trouble.status, trouble.detail + cost)], enabled=True, latency_ms=None)
    assert seen.known is not None
    server = seen.known.value.server
    is_shared = ledger.known is not None and ledger.known.value.server.run_id == server.run_id
    troubles = [] if is_shared else [_trouble(c, "degraded") for c in complaints_about_cache(server)]
    numbers = {"latency_ms": round(seen.known.value.latency_ms, 2), "shares_redis": is_shared, **_memory(server)}
    return component(troubles, enabled=True, **numbers)


def of_programs(seen: Seen[Ledger]) -> dict[str, Any]:
    """Whether the API knows any program, so that it can take jobs."""
    if seen.known is None:
        return unknown(None, described=None)
    found = seen.known.value.programs
    none = Trouble(
        "unhealthy", "no worker has said which programs there are: start one, or `python -m worker.describe`"
    )
    return _as_known(seen, component([] if found else [none], described=found))


def of_failures(seen: Seen[Ledger]) -> dict[str, Any]:
    """Programs whose jobs have failed lately: all else may be well while one that was just deployed fails always."""
    if seen.known is None:
        return unknown(None, window_seconds=None, programs=[])
    recent = seen.known.value.failures
    worst_first = sorted(recent.programs, key=lambda found: (-is_failing(found), -found.failed))
    failing = [found for found in worst_first if is_failing(found)]
    ago = f"{recent.seconds / 60:.0f} min" if recent.seconds >= 90 else f"{recent.seconds:.0f} s"
    troubles = [Trouble("degraded", _failing(found, ago)) for found in failing[:_MOST_CODES]]
    if len(failing) > len(troubles):
        troubles.append(Trouble("degraded", f"and {len(failing) - len(troubles)} more programs"))
    if troubles:
        remedy = "`dspy-jobs list --status failed` shows them, docs/runbook.md what each code asks for"
        troubles[-1] = Trouble("degraded", f"{troubles[-1].detail}: {remedy}")
    shown = [_failures_of(found) for found in worst_first[:_MOST_PROGRAMS]]
    return _as_known(seen, component(troubles, window_seconds=round(recent.seconds, 1), programs=shown))


def is_failing(found: ProgramFailures) -> bool:
    """Whether so many jobs of a program failed that it is no chance."""
    return found.failed >= MANY_FAILURES and found.share >= MUCH_FAILURE


def _failing(found: ProgramFailures, ago: str) -> str:
    codes = ", ".join(list(found.codes)[:_MOST_CODES])
    return (
        f"{found.failed} of {found.ended} jobs of {found.program} on {found.model} failed in the last {ago} ({codes})"
    )


def _failures_of(found: ProgramFailures) -> dict[str, Any]:
    return {
        "program": found.program,
        "model": found.model,
        "ended": found.ended,
        "failed": found.failed,
        "codes": dict(list(found.codes.items())[:_MOST_CODES]),
        "failing": is_failing(found),
    }


def of_workers(seen: Seen[Ledger], settings: Settings) -> dict[str, Any]:
    """The processes that run jobs. None is well while nothing waits for one."""
    if seen.known is None:
        return unknown(None, live=None, draining=None, lost=None, workers=[], gone=[])
    workers = seen.known.value.outstanding.workers
    live = [worker for worker in workers if worker.is_alive]
    shown = component(
        _about_workers(seen.known.value, settings),
        live=len(live),
        draining=sum(worker.is_draining for worker in live),
        lost=sum(not worker.is_alive and worker.held > 0 for worker in workers),
        workers=[_worker(worker) for worker in live[:MOST_WORKERS]],
        gone=[_gone(worker) for worker in seen.known.value.lost],
    )
    return _as_known(seen, shown)


def _about_workers(ledger: Ledger, settings: Settings) -> Iterator[Trouble]:
    grace = settings.autoscaler.startup_grace_seconds
    for queue in demand_of(ledger.outstanding.queues, ledger.outstanding.workers, settings).queues:
        waited = queue.load.oldest_wait_seconds
        if queue.waiting and waited > grace and not consumers(queue.load.name, ledger.outstanding.workers):
            detail = f"jobs of {queue.load.name} have waited {waited:.0f} s and no worker consumes it: start one"
            yield Trouble("unhealthy", f"{detail}, and look at its first lines{_who_went(ledger)}")
    for worker in ledger.outstanding.workers:
        if not worker.is_alive and worker.held:
            yield Trouble(
                "degraded", f"{worker.id} is lost with {worker.held} jobs; they will be queued again by itself"
            )
        elif is_deaf(worker):
            yield Trouble(
                "degraded",
                f"{worker.id} lives and has not asked for messages for {worker.silent_seconds:.0f} s; it ends itself "
                "after a minute, and its supervisor must start another",
            )


def consumers(queue: str, workers: Iterable[WorkerLoad]) -> int:
    """Live workers that take jobs from a queue."""
    return sum(worker.is_alive and not worker.is_draining and queue in worker.queues for worker in workers)


def is_deaf(worker: WorkerLoad) -> bool:
    """Whether the worker lives, should take messages and does not ask for any."""
    is_consuming = worker.is_alive and not worker.is_draining
    return is_consuming and worker.silent_seconds is not None and worker.silent_seconds > DEAF_SECONDS


def _who_went(ledger: Ledger) -> str:
    """Where to look for what became of those that worked before."""
    if not ledger.lost:
        return ""
    last = ledger.lost[0]
    where = f"pid {last.pid} on {last.host}" if last.host else last.id
    return f"; {len(ledger.lost)} ended or hang without notice, the last one {where}, heard of {rfc3339(last.heard_at)}"


def _gone(worker: LostWorker) -> dict[str, Any]:
    return {"id": worker.id, "host": worker.host, "pid": worker.pid, "heard_at": rfc3339(worker.heard_at)}


def _worker(worker: WorkerLoad) -> dict[str, Any]:
    age, port = worker.heartbeat_age_seconds, worker.metrics_port
    return {
        "id": worker.id,
        "host": worker.host,
        "heartbeat_age_seconds": None if age is None else round(age, 3),
        "running": worker.running,
        "held": worker.held,
        "concurrency": worker.concurrency,
        "draining": worker.is_draining,
        "consuming": not worker.is_draining and not is_deaf(worker),
        "stuck_threads": worker.stuck_threads,
        "version": worker.version or None,
        "config": worker.config or None,
        **({"metrics_port": port} if port is not None else {}),
    }


def of_queues(seen: Seen[Ledger], settings: Settings) -> dict[str, Any]:
    """What waits and runs for each model, and whether it may."""
    if seen.known is None:
        return unknown(None, queues=[])
    outstanding = seen.known.value.outstanding
    queues = demand_of(outstanding.queues, outstanding.workers, settings).queues
    troubles = [*_closed(queues), *_late(queues, outstanding.workers, settings.autoscaler.target_wait_seconds)]
    shown = [_queue(queue, consumers(queue.load.name, outstanding.workers)) for queue in queues]
    return _as_known(seen, component(troubles, queues=shown))


def _closed(queues: Sequence[QueueDemand]) -> Iterator[Trouble]:
    """Queues behind gates, those of one reason together: a budget that is used up closes all of them."""
    by_reason: dict[str, list[str]] = {}
    for queue in queues:
        if queue.load.gate is not None:
            by_reason.setdefault(queue.load.gate.reason, []).append(queue.load.name)
    for reason, closed in by_reason.items():
        remedy = _GATE_REMEDIES.get(reason, _UNKNOWN_REMEDY).format(queue=closed[0] if len(closed) == 1 else "QUEUE")
        are = "is" if len(closed) == 1 else "are"
        yield Trouble("degraded", f"{_listed(closed)} {are} closed ({reason}): {remedy}")


def _late(queues: Sequence[QueueDemand], workers: Sequence[WorkerLoad], target: float) -> Iterator[Trouble]:
    """Queues whose jobs could run and have waited too long, together."""
    late = [q.load for q in queues if q.load.gate is None and q.waiting and q.load.oldest_wait_seconds > target]
    consumed = {load.name: number for load in late if (number := consumers(load.name, workers))}
    stuck = consumed if not any(queue.load.running for queue in queues) else {}
    if stuck:
        waited = _have_waited([load for load in late if load.name in stuck])
        number = max(stuck.values())
        yield Trouble("unhealthy", f"{waited} and none runs, with {number} workers: restart them, read their logs")
    if slow := [load for load in late if load.name not in stuck]:
        remedy = "start workers or raise their maximum"
        yield Trouble("degraded", f"{_have_waited(slow)}, longer than {target:g} s: {remedy}")


def _have_waited(late: Sequence[QueueLoad]) -> str:
    up_to = "" if len(late) == 1 else "up to "
    longest = max(load.oldest_wait_seconds for load in late)
    return f"jobs of {_listed([load.name for load in late])} have waited {up_to}{longest:.0f} s"


def _listed(queues: Sequence[str]) -> str:
    """A few queues by name, more by their number."""
    return ", ".join(queues) if len(queues) <= _MOST_QUEUES else f"{len(queues)} queues"


def _queue(queue: QueueDemand, workers: int) -> dict[str, Any]:
    load = queue.load
    return {
        "name": load.name,
        "queued": load.queued,
        "running": load.running,
        "oldest_wait_seconds": round(load.oldest_wait_seconds, 3) if load.waiting else None,
        "workers": workers,
        "gate": gate_view(load.gate),
    }


def of_circuits(seen: Seen[Ledger]) -> dict[str, Any]:
    """Which models fail."""
    if seen.known is None:
        return unknown(None, models={})
    circuits = seen.known.value.circuits
    words = {
        CircuitState.OPEN: "its provider fails; look at its status page and at `error` of recent jobs",
        CircuitState.HALF_OPEN: "its provider failed, and one job at a time tries it; it closes by itself",
    }
    troubles = [
        Trouble("degraded", f"{model} is {state}: {words[state]}")
        for model, state in circuits.items()
        if state != CircuitState.CLOSED
    ]
    return _as_known(seen, component(troubles, models=dict(circuits)))


def of_budgets(seen: Seen[Ledger]) -> dict[str, Any]:
    """What is left to spend: of all clients, and of the one that has used most of its own, whoever that is.

    A client that has used up its own budget waits by its own doing; that is counted, and no harm to the service.
    """
    if seen.known is None:
        return unknown(None, clients_exhausted=None, budgets=[])
    found = seen.known.value.budgets
    used_up = [budget["client"] for budget in found if budget["exhausted"]]
    detail = (
        "the budget of all clients is used up, and jobs wait: raise it in [budgets] and restart the workers "
        "(`kubectl rollout restart deployment/worker`, or stop `dspy-jobs up` and start it again)"
    )
    troubles = [Trouble("degraded", detail)] if None in used_up else []
    shown = [budget for period in ("day", "month") for budget in _fullest(found, period)]
    clients = len({client for client in used_up if client is not None})
    return _as_known(seen, component(troubles, clients_exhausted=clients, budgets=shown))


def _fullest(budgets: list[dict[str, Any]], period: str) -> Iterator[dict[str, Any]]:
    """The budget over all clients, and the fullest one of a client: names of clients are nobody's business here."""
    for scope in ("all", "client"):
        mine = [b for b in budgets if b["period"] == period and (b["client"] is None) == (scope == "all")]
        if mine:
            fullest = max(mine, key=_used)
            numbers = {name: fullest[name] for name in ("limit_usd", "spent_usd", "exhausted", "resets_at")}
            yield {"scope": scope, "period": period, **numbers}


def _used(budget: Mapping[str, Any]) -> float:
    return float(budget["spent_usd"] / budget["limit_usd"]) if budget["limit_usd"] else float("inf")


def of_disk(seen: Seen[DiskSpace]) -> dict[str, Any]:
    """Where the embedded Redis of this machine keeps its data."""
    if seen.known is None or not seen.is_fresh:
        cause = type(seen.error).__name__ if seen.error else f"no answer for {seen.hangs:.1f} s"
        return component([Trouble("degraded", f"the data folder cannot be looked at ({cause}): mend its file system")])
    disk = seen.known.value
    numbers = {"free_bytes": disk.free_bytes, "total_bytes": disk.total_bytes, "data_bytes": disk.data_bytes}
    complaint = complaint_about_disk(disk)
    if complaint is None:
        return component([], **numbers)
    return component([_trouble(complaint, "unhealthy" if complaint.stops_work else "degraded")], **numbers)


def unknown(known: Known[Any] | None, **members: Any) -> dict[str, Any]:
    """A component of which Redis alone could tell, and does not."""
    since = {"as_of": rfc3339(known.at * 1000)} if known else {}
    return {"status": "unknown", "detail": "Redis does not answer; see the component redis", **since, **members}


def _as_known(seen: Seen[T], shown: dict[str, Any]) -> dict[str, Any]:
    """The component as it is, or where that cannot be told just now, as it was."""
    if seen.is_fresh:
        return shown
    del shown["status"]
    shown.pop("detail", None)
    return unknown(seen.known, **shown)


def _failure(seen: Seen[Any], variable: str) -> Complaint | None:
    """Why a server could not be asked just now, if so."""
    if seen.hangs:
        return Complaint(f"has not answered for {seen.hangs:.2f} s", HANGS_REMEDY, stops_work=True)
    return complaint_about_failure(seen.error, variable) if seen.error else None


def _trouble(complaint: Complaint, status: Status) -> Trouble:
    return Trouble(status, f"{complaint.what}: {complaint.remedy}")


def _memory(server: RedisState) -> dict[str, Any]:
    return {
        "version": server.version,
        "used_memory_bytes": server.used_bytes,
        "max_memory_bytes": server.limit_bytes or None,
        "max_memory_policy": server.policy,
    }
