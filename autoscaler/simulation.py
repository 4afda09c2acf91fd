"""Plays a trace to the very decisions the autoscaler takes, in simulated time, and tells what came of it."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from autoscaler.cadence import Cadence, Due, Periods
from autoscaler.decision import decide
from autoscaler.scaled_object import ScaledObject, TriggerSource
from autoscaler.signal import Load, work, work_slots
from autoscaler.simulated_fleet import SimulatedFleet
from autoscaler.state import Observation, State
from autoscaler.trace import Trace
from autoscaler.value_location import LocationError, number_at
from dspy_jobs import names

#: Hours a simulation may go on after the trace's last row, in case the fleet never comes to rest.
_LONGEST_AFTERMATH = 6 * 3600.0


class SimulationError(ValueError):
    """The ScaledObject cannot be simulated; the message says why."""


@dataclass(frozen=True)
class World:
    """What the simulated workers and the signal are like; times in seconds."""

    concurrency: int
    startup_seconds: float = 3.0
    target_wait_seconds: float = 60.0
    target_utilization: float = 0.8
    provider_slots: int | None = None
    hourly_price: float = 1.0
    """What a worker costs an hour, in any currency."""


@dataclass(frozen=True)
class Tick:
    """The world as one run of either loop saw and left it. ``cost`` is what the workers have cost until then.

    What concerns jobs is None in a trace of the metric alone. ``longest_wait_seconds`` is that of the jobs that started
    since the tick before, 0 if none did: between two ticks most jobs come and go unseen.
    """

    t: float
    work: float
    waiting: int | None
    inflight: int | None
    oldest_wait_seconds: float | None
    longest_wait_seconds: float | None
    before: int
    replicas: int
    ready: int
    draining: int
    cost: float
    reason: str


@dataclass(frozen=True)
class Jobs:
    """What became of a trace's jobs; waits are of all that started, in seconds."""

    jobs: int
    unstarted: int
    most_waiting: int
    wait_mean: float
    wait_p50: float
    wait_p95: float
    wait_p99: float
    wait_max: float


@dataclass(frozen=True)
class Summary:
    """What the whole trace came to."""

    seconds: float
    most_replicas: int
    overshoot: int
    """Replicas beyond what any one metric value asked for."""
    replica_seconds: float
    cost: float
    jobs: Jobs | None
    """None if the trace says nothing of jobs."""


@dataclass(frozen=True)
class Played:
    """A simulation from beginning to end."""

    ticks: tuple[Tick, ...]
    summary: Summary

    def as_json(self) -> dict[str, Any]:
        """For machines; nothing is said of jobs where the trace says nothing of them."""
        summary = asdict(self.summary)
        summary |= summary.pop("jobs") or {}
        ticks = [{name: value for name, value in asdict(tick).items() if value is not None} for tick in self.ticks]
        return {"summary": summary, "ticks": ticks}


def simulate(target: ScaledObject, trace: Trace, world: World, periods: Periods, until: float | None = None) -> Played:
    """Play a trace. It ends at ``until``, by default once all jobs are done and the fleet rests.

    Raises:
        SimulationError: a trigger of the ScaledObject has no counterpart in a simulation.
    """
    metrics = _metrics(target.sources)
    player = _Player(target, trace, world, metrics)
    cadence, state = Cadence(periods, 0.0), State(created=0.0)
    ticks = list[Tick]()
    while not _is_over(player, ticks, trace, until, cadence.next_time, target):
        now = cadence.next_time
        state, tick = player.tick(state, cadence.due(now), now)
        ticks.append(tick)
    return Played(tuple(ticks), player.summary(ticks))


class _Player:
    def __init__(
        self, target: ScaledObject, trace: Trace, world: World, metrics: list[Callable[[dict[str, Any]], float]]
    ) -> None:
        self._target, self._trace, self._world, self._metrics = target, trace, world, metrics
        self._fleet = SimulatedFleet(world.concurrency, world.startup_seconds)
        self._arrivals = self._told_waits = 0
        self._level_times = [level.t for level in trace.levels]
        self.replicas = 0

    @property
    def outstanding(self) -> int:
        """Jobs that wait, run, or are still to come."""
        return self._fleet.outstanding + len(self._trace.arrivals) - self._arrivals

    def tick(self, state: State, due: Due, now: float) -> tuple[State, Tick]:
        self._let_arrive(now)
        document = self._document(now)
        triggers = zip(self._target.scaling.triggers, self._metrics, strict=True)
        values = {trigger.name: metric(document) for trigger, metric in triggers}
        before = self.replicas
        seen = Observation(
            values, before, status=before, ready=self._fleet.ready(now), keda_due=due.keda, hpa_due=due.hpa
        )
        state, self.replicas, reason = decide(self._target.scaling, state, seen, now)
        self._fleet.scale(now, self.replicas)
        return state, self._tick(now, document, before, reason)

    def _let_arrive(self, now: float) -> None:
        arrivals = self._trace.arrivals
        while self._arrivals < len(arrivals) and arrivals[self._arrivals].t <= now:
            row = arrivals[self._arrivals]
            self._fleet.arrive(row.t, row.jobs, row.service_seconds)
            self._arrivals += 1
        self._fleet.advance(now)

    def _document(self, now: float) -> dict[str, Any]:
        load, world = self._fleet.load(now), self._world
        given = Load(load.waiting, load.inflight, load.oldest_wait_seconds, load.service_seconds, world.provider_slots)
        slots = work_slots(given, world.target_wait_seconds)
        metric = work(slots, load.waiting + load.inflight, world.target_utilization)
        if self._trace.levels:
            metric = slots = self._level(now)
        return {
            "work": metric,
            "work_slots": slots,
            "waiting": load.waiting,
            "inflight": load.inflight,
            "oldest_wait_seconds": load.oldest_wait_seconds,
            "service_seconds": load.service_seconds,
            "concurrency": world.concurrency,
            "ready": self._fleet.ready(now),
        }

    def _level(self, now: float) -> float:
        index = bisect_right(self._level_times, now) - 1
        return self._trace.levels[index].work if index >= 0 else 0.0

    def _tick(self, now: float, document: dict[str, Any], before: int, reason: str) -> Tick:
        has_jobs = not self._trace.levels
        return Tick(
            t=now,
            work=document["work"],
            waiting=document["waiting"] if has_jobs else None,
            inflight=document["inflight"] if has_jobs else None,
            oldest_wait_seconds=document["oldest_wait_seconds"] if has_jobs else None,
            longest_wait_seconds=self._longest_new_wait() if has_jobs else None,
            before=before,
            replicas=self.replicas,
            ready=self._fleet.ready(now),
            draining=len(self._fleet.draining),
            cost=self._cost(now),
            reason=reason,
        )

    def _longest_new_wait(self) -> float:
        """Of the jobs that started since this was asked last."""
        new = self._fleet.waits[self._told_waits :]
        self._told_waits += len(new)
        return max(new, default=0.0)

    def _cost(self, now: float) -> float:
        return self._fleet.worker_seconds(now) / 3600 * self._world.hourly_price

    def summary(self, ticks: list[Tick]) -> Summary:
        end = ticks[-1].t if ticks else 0.0
        most_replicas = max((tick.replicas for tick in ticks), default=0)
        asked = max((math.ceil(tick.work / self._target.load_per_replica) for tick in ticks), default=0)
        return Summary(
            seconds=end,
            most_replicas=most_replicas,
            overshoot=max(0, most_replicas - max(asked, self._target.scaling.min_replica_count)),
            replica_seconds=self._fleet.worker_seconds(end),
            cost=self._cost(end),
            jobs=None if self._trace.levels else self._jobs(ticks),
        )

    def _jobs(self, ticks: list[Tick]) -> Jobs:
        waits = sorted(self._fleet.waits)
        jobs = sum(row.jobs for row in self._trace.arrivals)
        return Jobs(
            jobs=jobs,
            unstarted=jobs - len(waits),
            most_waiting=max((tick.waiting or 0 for tick in ticks), default=0),
            wait_mean=sum(waits) / len(waits) if waits else 0.0,
            wait_p50=_quantile(waits, 0.5),
            wait_p95=_quantile(waits, 0.95),
            wait_p99=_quantile(waits, 0.99),
            wait_max=waits[-1] if waits else 0.0,
        )


def _is_over(
    player: _Player, ticks: list[Tick], trace: Trace, until: float | None, now: float, target: ScaledObject
) -> bool:
    if until is not None:
        return now > until
    if now > trace.end + _LONGEST_AFTERMATH:
        return True
    rests = player.replicas == min(
        target.scaling.min_replica_count, target.scaling.idle_replica_count or target.scaling.min_replica_count
    )
    return now > trace.end and player.outstanding == 0 and rests and bool(ticks) and ticks[-1].draining == 0


def _metrics(sources: Sequence[TriggerSource]) -> list[Callable[[dict[str, Any]], float]]:
    """What each trigger would read. The first list holds all that waits, the others nothing: sum and maximum agree."""
    lists = [source for source in sources if source.type == "redis" and _counted(source) == "waiting"]
    return [_metric(source, is_empty=source in lists[1:]) for source in sources]


def _metric(source: TriggerSource, is_empty: bool) -> Callable[[dict[str, Any]], float]:
    if source.type == "metrics-api":
        location = source.metadata["valueLocation"]
        return lambda document: _located(document, location)
    if source.type != "redis":
        raise SimulationError(f"a {source.type} trigger cannot be simulated; remove it from a copy of the file")
    counted = _counted(source)
    return lambda document: 0.0 if is_empty else float(document[counted])


def _counted(source: TriggerSource) -> str:
    """What a list holds, by its name: jobs under way, workers, or else jobs that wait."""
    name = source.metadata["listName"]
    return {"unacked": "inflight", names.WORKERS: "ready"}.get(name, "waiting")


def _located(document: dict[str, Any], location: str) -> float:
    try:
        return number_at(document, location)
    except LocationError as error:
        raise SimulationError(f"the simulated service has no such number: {error}") from error


def _quantile(values: list[float], share: float) -> float:
    """The smallest value that so large a share of the values does not exceed."""
    return values[max(0, math.ceil(len(values) * share) - 1)] if values else 0.0
