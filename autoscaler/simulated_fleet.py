"""Workers and jobs in simulated time: start-up takes a while, slots are taken first come first served."""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass, field
from itertools import count

from autoscaler.backends.victims import Candidate, victims
from autoscaler.signal import Load

#: Share of the newest run time in the running mean, as a worker's account of its jobs has it.
_MEAN_SHARE = 1 / 32
#: Finished jobs before the mean counts as known.
_LEAST_SAMPLES = 5


@dataclass
class SimulatedWorker:
    """One worker. It takes jobs from ``ready_at`` on, unless it drains."""

    name: str
    started: float
    ready_at: float
    running: int = 0
    draining_since: float | None = None
    ended: float | None = None

    def seconds_until(self, now: float) -> float:
        """How long it has been there."""
        return (now if self.ended is None else self.ended) - self.started


@dataclass(order=True)
class _Event:
    t: float
    order: int
    worker: SimulatedWorker = field(compare=False)
    #: None is the moment it becomes ready, else the run time of the job that ends.
    service_seconds: float | None = field(compare=False, default=None)


class SimulatedFleet:
    """A fleet and the queue before it. ``advance`` moves its time on; all times in seconds."""

    def __init__(self, concurrency: int, startup_seconds: float) -> None:
        self._concurrency, self._startup_seconds = concurrency, startup_seconds
        self._waiting: deque[tuple[float, float]] = deque()
        self._events: list[_Event] = []
        self._order = count()
        self._finished = 0
        self._mean = 0.0
        self.workers: list[SimulatedWorker] = []
        self.waits: list[float] = []

    @property
    def active(self) -> list[SimulatedWorker]:
        """The workers that are capacity, or will be once they are ready."""
        return [worker for worker in self.workers if worker.draining_since is None]

    @property
    def draining(self) -> list[SimulatedWorker]:
        """The workers that finish their jobs and then end."""
        return [worker for worker in self.workers if worker.draining_since is not None and worker.ended is None]

    @property
    def outstanding(self) -> int:
        """Jobs that wait or run."""
        return len(self._waiting) + sum(worker.running for worker in self.workers)

    def ready(self, now: float) -> int:
        """How many workers take jobs."""
        return sum(worker.ready_at <= now for worker in self.active)

    def load(self, now: float) -> Load:
        """What the signal is computed from."""
        return Load(
            waiting=len(self._waiting),
            inflight=sum(worker.running for worker in self.active),
            oldest_wait_seconds=now - self._waiting[0][0] if self._waiting else 0.0,
            service_seconds=self._mean if self._finished >= _LEAST_SAMPLES else None,
        )

    def arrive(self, now: float, jobs: int, service_seconds: float) -> None:
        """Let jobs arrive."""
        self.advance(now)
        self._waiting.extend([(now, service_seconds)] * jobs)
        self._assign(now)

    def scale(self, now: float, replicas: int) -> None:
        """Start or drain workers until so many are active."""
        self.advance(now)
        active = self.active
        for _ in range(replicas - len(active)):
            self._start(now)
        names = set(victims((_candidate(worker, now) for worker in active), len(active) - replicas))
        for worker in active:
            if worker.name in names:
                worker.draining_since = now
                self._end_if_idle(worker, now)

    def advance(self, now: float) -> None:
        """Let everything happen that happens until then."""
        while self._events and self._events[0].t <= now:
            event = heapq.heappop(self._events)
            if event.service_seconds is not None:
                self._finish(event.worker, event.service_seconds, event.t)
            self._assign(event.t)

    def worker_seconds(self, now: float) -> float:
        """How long all workers were there, together: what they cost."""
        return sum(worker.seconds_until(now) for worker in self.workers)

    def _start(self, now: float) -> None:
        worker = SimulatedWorker(f"worker-{len(self.workers) + 1}", now, now + self._startup_seconds)
        self.workers.append(worker)
        heapq.heappush(self._events, _Event(worker.ready_at, next(self._order), worker))

    def _assign(self, now: float) -> None:
        """Give waiting jobs to free slots, the least busy worker first."""
        while self._waiting:
            free = [w for w in self.active if w.ready_at <= now and w.running < self._concurrency]
            if not free:
                return
            worker = min(free, key=lambda one: one.running)
            arrived, service_seconds = self._waiting.popleft()
            self.waits.append(now - arrived)
            worker.running += 1
            heapq.heappush(self._events, _Event(now + service_seconds, next(self._order), worker, service_seconds))

    def _finish(self, worker: SimulatedWorker, service_seconds: float, now: float) -> None:
        worker.running -= 1
        self._finished += 1
        share = max(_MEAN_SHARE, 1 / self._finished)
        self._mean += (service_seconds - self._mean) * share
        self._end_if_idle(worker, now)

    def _end_if_idle(self, worker: SimulatedWorker, now: float) -> None:
        if worker.draining_since is not None and worker.running == 0:
            worker.ended = now


def _candidate(worker: SimulatedWorker, now: float) -> Candidate:
    return Candidate(worker.name, worker.ready_at <= now, worker.running, worker.started)
