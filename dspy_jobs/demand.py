"""How many call slots the outstanding jobs need: the number that KEDA and our own autoscaler scale on.

Depth is weighed by service time: a hundred waiting jobs of one second and of one minute need very different fleets.
Only what a worker could do something about is demand. Jobs behind a closed gate or of a paused batch are none; those of
a half-open circuit are one at most, the probe. What runs is demand, except in a draining worker, which is no longer
capacity.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dspy_jobs import names
from dspy_jobs.states import WaitReason

if TYPE_CHECKING:
    from dspy_jobs.settings import Settings
    from dspy_jobs.store.records import Gate

#: Least metric reported while anything is outstanding: one thousandth, the smallest step KEDA keeps.
SMALLEST_WORK = 0.001
#: Jobs of a queue that must have succeeded before its service time is taken for known.
MIN_SAMPLES = 5


@dataclass(frozen=True, slots=True)
class Load:
    """What is outstanding: counts of jobs, times in seconds.

    `inflight` excludes jobs held by draining workers, which are no longer capacity. `service_seconds` is None while
    too few jobs have finished to know it. `provider_slots` caps concurrent calls; None means no cap.
    """

    waiting: int
    inflight: int
    oldest_wait_seconds: float = 0.0
    service_seconds: float | None = None
    provider_slots: float | None = None


def work_slots(load: Load, target_wait_seconds: float) -> float:
    """Return the concurrent call slots needed so that a job waits about `target_wait_seconds`.

    An unknown service time, or a job that has already waited too long, counts every waiting job in full.
    """
    if load.service_seconds is None or load.oldest_wait_seconds > target_wait_seconds:
        share = 1.0
    else:
        share = min(1.0, load.service_seconds / target_wait_seconds)
    slots = load.inflight + load.waiting * share
    return slots if load.provider_slots is None else min(slots, load.provider_slots)


def work(slots: float, outstanding: int, target_utilization: float) -> float:
    """Return the metric that KEDA reads: slots with headroom, so that workers are busy that share of time.

    0 only if nothing is outstanding. KEDA keeps three decimals, so the share of very short jobs would otherwise read
    as an idle queue, and so would a provider without a free slot, stranding jobs at zero.
    """
    if outstanding == 0:
        return 0.0
    return max(slots / target_utilization, SMALLEST_WORK)


@dataclass(frozen=True, slots=True)
class QueueLoad:
    """A queue as the ledger has it."""

    name: str
    queued: int = 0
    """All its queued jobs, also those that could not run now: delayed, parked, following another."""
    waiting: int = 0
    """Jobs with a message under way."""
    taken: int = 0
    """Jobs that workers hold and have not started."""
    running: int = 0
    oldest_wait_seconds: float = 0.0
    """0 where none waits."""
    service_seconds: float = 0.0
    """Mean run time of the last jobs."""
    samples: int = 0
    """How many jobs that mean is of; at some number it is no longer counted."""
    most: int | None = None
    """Jobs that may run at once in the whole fleet."""
    gate: Gate | None = None
    """Why it is closed, if it is."""
    is_half_open: bool = False
    """Whether what closes it is a circuit that lets a probe through."""
    is_probed: bool = False
    """Whether that probe is under way."""
    paused: int = 0
    """How many of the waiting are of paused batches: a worker would only put them aside."""

    @property
    def known_service_seconds(self) -> float | None:
        """The mean run time; None while too few jobs have succeeded to know it."""
        return self.service_seconds if self.samples >= MIN_SAMPLES else None


@dataclass(frozen=True, slots=True)
class WorkerLoad:
    """A worker as its lease, its description and its held jobs tell; `running` is half a second old."""

    id: str
    is_alive: bool
    is_draining: bool = False
    held: int = 0
    """Jobs it runs or is about to run."""
    running: int = 0
    concurrency: int = 0
    host: str = ""
    pid: int = 0
    queues: tuple[str, ...] = ()
    """Queues it consumes unless it is draining."""
    version: str = ""
    """The release of dspy-jobs it runs; empty if it does not say."""
    config: str = ""
    """The digest of its configuration; empty if it does not say."""
    heartbeat_age_seconds: float | None = None
    """Since it last renewed its lease."""
    silent_seconds: float | None = None
    """How long its consumer had not asked for a message when it last renewed its lease."""
    stuck_threads: int = 0
    """Threads it gave up with programs that never return."""
    metrics_port: int | None = None
    """Port of its own metrics, if it serves any."""


@dataclass(frozen=True, slots=True)
class QueueDemand:
    """What a queue asks for."""

    load: QueueLoad
    waiting: int
    """Jobs that could run now if there were slots."""
    work_slots: float
    """Slots its running and waiting jobs need; never more than may run at once."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What all queues together ask for. Counts are of jobs."""

    work: float
    """Slots with headroom: the metric to scale on, with a worker's concurrency as its target."""
    work_slots: float
    waiting: int
    inflight: int
    """Running jobs, without those of draining workers."""
    draining: int
    oldest_wait_seconds: float
    """Of the queues whose jobs could run; 0 where none waits."""
    service_seconds: float | None
    """Mean run time of the jobs that wait, as far as it is known."""
    queues: tuple[QueueDemand, ...]


def demand_of(queues: Sequence[QueueLoad], workers: Iterable[WorkerLoad], settings: Settings) -> Demand:
    """What the queues ask for of a fleet of these workers.

    The one formula holds for each queue by its own times, and their sum for the fleet: a queue whose jobs are overdue
    because few of them may run at once must not make the jobs of all others count in full.
    """
    scaling, workers = settings.autoscaler, tuple(workers)
    running = sum(queue.running for queue in queues)
    draining = min(running, sum(min(w.running, w.held) for w in workers if w.is_alive and w.is_draining))
    unstarted = max(0, sum(worker.held for worker in workers) - running)
    waiting = _waiting(queues, unstarted, settings)
    parts = tuple(_of_queue(queue, waiting[queue.name], scaling.target_wait_seconds) for queue in queues)
    slots = sum(part.work_slots for part in parts)
    if scaling.provider_slots is not None:
        slots = min(slots, scaling.provider_slots)
    slots = max(0.0, slots - draining)  # the provider's slots that draining workers use are no others' to use
    outstanding = sum(waiting.values()) + running - draining
    return Demand(
        work=work(slots, outstanding, scaling.target_utilization),
        work_slots=slots,
        waiting=sum(waiting.values()),
        inflight=running - draining,
        draining=draining,
        oldest_wait_seconds=max((part.load.oldest_wait_seconds for part in parts if part.waiting), default=0.0),
        service_seconds=_mean_service_seconds(parts),
        queues=parts,
    )


def _of_queue(queue: QueueLoad, waiting: int, target_wait_seconds: float) -> QueueDemand:
    most = None if queue.most is None else max(queue.most, queue.running)  # it may just have been lowered
    load = Load(waiting, queue.running, queue.oldest_wait_seconds, queue.known_service_seconds, most)
    return QueueDemand(queue, waiting, work_slots(load, target_wait_seconds))


def _waiting(queues: Sequence[QueueLoad], unstarted: int, settings: Settings) -> dict[str, int]:
    """Jobs of each queue that could run now. Workers hold `unstarted` jobs that they have not started."""
    is_open = {queue.name: queue.gate is None for queue in queues}
    outstanding = {q.name: max(0, q.waiting - q.paused) + min(q.taken, unstarted) for q in queues}
    return {q.name: _admitted(q, outstanding[q.name], _flows_on(q, is_open, settings)) for q in queues}


def _admitted(queue: QueueLoad, outstanding: int, flows_on: bool) -> int:
    if queue.gate is None or flows_on:
        return outstanding
    if queue.is_half_open and not queue.is_probed:
        return min(1, outstanding)
    return 0


def _flows_on(queue: QueueLoad, is_open: Mapping[str, bool], settings: Settings) -> bool:
    """Whether workers send the jobs of an open circuit to another model, whose queue takes them."""
    if queue.gate is None or queue.gate.reason != WaitReason.CIRCUIT_OPEN:
        return False
    model = settings.models.get(queue.name.removeprefix(names.queue("")))
    return model is not None and any(is_open.get(names.queue(other), False) for other in model.fallbacks)


def _mean_service_seconds(parts: Sequence[QueueDemand]) -> float | None:
    """Mean run time over the queues where it is known; None where it is known of none.

    Weighed by what waits, so that its product with the number of waiting jobs is the time those will take. Running
    jobs would be the wrong weight where any wait: at each moment the long ones are over-represented among them.
    """
    known = [(part, part.load.service_seconds) for part in parts if part.load.known_service_seconds is not None]
    weights: tuple[Callable[[QueueDemand], int], ...] = (lambda p: p.waiting, lambda p: p.load.running, lambda _: 1)
    for weight in weights:
        if total := sum(weight(part) for part, _ in known):
            return sum(weight(part) * seconds for part, seconds in known) / total
    return None
