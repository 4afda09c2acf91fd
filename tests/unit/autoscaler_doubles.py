"""What unit tests of the running autoscaler share: a clock to be moved, a ScaledObject, and players of each part."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass, field

from autoscaler.backends.local_worker import LocalWorker
from autoscaler.backends.registry import Registered
from autoscaler.fleet import BackendError, Fleet
from autoscaler.reading import Reading
from autoscaler.scaled_object import ScaledObject, read_scaled_object
from dspy_jobs.pid_files import ProcessMark

SCALED_OBJECT = """
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata: {name: dspy-worker, namespace: jobs}
spec:
  scaleTargetRef: {name: worker}
  pollingInterval: 5
  cooldownPeriod: 60
  maxReplicaCount: 4
  advanced:
    horizontalPodAutoscalerConfig:
      behavior:
        scaleDown: {stabilizationWindowSeconds: 0, tolerance: "0"}
  triggers:
    - type: metrics-api
      metadata: {url: "http://api:8080/v1/autoscale", valueLocation: work, targetValue: "8"}
"""


def scaled_object(text: str = SCALED_OBJECT) -> ScaledObject:
    """The ScaledObject of these tests."""
    return read_scaled_object(text)


@dataclass
class Clock:
    """Seconds that pass when told to."""

    now: float = 1000.0

    def __call__(self) -> float:
        """The time."""
        return self.now

    def pass_by(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


@dataclass
class PlayedMetric:
    """An observer whose next value is set by hand; None is a failure."""

    value: float | None = 0.0
    details: Mapping[str, float | None] = field(default_factory=dict)

    def observe(self) -> Reading:
        """The value set last."""
        problems = {} if self.value is not None else {"s0": "refused"}
        return Reading({"s0": self.value}, problems, {"s0": 0.01}, self.details)

    def close(self) -> None:
        """Nothing."""


@dataclass
class PlayedLease:
    """Held as long as it is said to be."""

    is_held: bool = True
    leader: str | None = None
    holder: str | None = None

    def keep(self) -> bool:
        """Whether it is held."""
        return self.is_held

    def give_up(self) -> None:
        """Not held any more."""
        self.is_held = False


@dataclass
class PlayedBackend:
    """Notes what it is asked for; has a fleet of the size asked for last."""

    replicas: int = 0
    calls: list[str | int] = field(default_factory=list)
    is_broken: bool = False
    place: str = "here"

    def take_over(self) -> None:
        """Note it."""
        self.calls.append("take_over")

    def fleet(self) -> Fleet:
        """The size asked for last, all ready."""
        return Fleet(self.replicas, self.replicas)

    def scale(self, replicas: int) -> None:
        """Note it, unless broken."""
        if self.is_broken:
            raise BackendError("refused")
        self.calls.append(replicas)
        self.replicas = replicas

    def tend(self) -> None:
        """Nothing."""

    def stand_by(self, leader: str | None) -> None:
        """Note it once."""
        call = f"stand_by for {leader}"
        if self.calls[-1:] != [call]:
            self.calls.append(call)

    def stop(self) -> bool:
        """Note it; at once."""
        self.calls.append("stop")
        return True

    def hurry(self) -> None:
        """Nothing."""


@dataclass
class PlayedWorker(LocalWorker):
    """A worker without a process."""

    lives: bool = True
    code: int | None = None
    signals: list[signal.Signals] = field(default_factory=list)

    @property
    def is_alive(self) -> bool:
        """As it is said."""
        return self.lives

    @property
    def exit_code(self) -> int | None:
        """As it is said."""
        return self.code

    def send(self, number: signal.Signals) -> None:
        """Note it."""
        self.signals.append(number)

    def end(self, code: int) -> None:
        """It has ended."""
        self.lives, self.code = False, code


@dataclass
class PlayedWorkers:
    """Starts workers without processes, and is the registry they appear in as well."""

    started: list[PlayedWorker] = field(default_factory=list)
    found: list[LocalWorker] = field(default_factory=list)
    registered: dict[int, Registered] | None = field(default_factory=dict)
    last_words: str = "no such factory"
    place: str = "here"

    def start(self, name: str, now: float) -> LocalWorker:
        """Start one."""
        worker = PlayedWorker(name, ProcessMark(100 + len(self.started), now), now)
        self.started.append(worker)
        return worker

    def find(self, now: float) -> list[LocalWorker]:
        """Those an earlier autoscaler left, and those started here."""
        return [*self.found, *(worker for worker in self.started if worker.lives)]

    def forget(self, worker: LocalWorker) -> None:
        """Nothing."""

    def listen(self, name: str) -> None:
        """They say nothing beside their log."""

    def last_lines(self, name: str) -> str:
        """What any of them says."""
        return self.last_words

    def workers(self) -> dict[int, Registered] | None:
        """Those that came up."""
        return self.registered

    def come_up(self, running: int = 0) -> None:
        """All that live say so, each with so many jobs."""
        self.registered = {worker.mark.pid: Registered(running) for worker in self.started if worker.lives}


@dataclass
class Drains:
    """Notes how drains end, and what else becomes of workers."""

    seconds: list[float] = field(default_factory=list)
    killed: int = 0
    deaths: int = 0
    blocked: list[str] = field(default_factory=list)

    def drained(self, seconds: float) -> None:
        """Note it."""
        self.seconds.append(seconds)

    def drain_killed(self) -> None:
        """Count it."""
        self.killed += 1

    def worker_died(self) -> None:
        """Count it."""
        self.deaths += 1

    def start_blocked(self, reason: str) -> None:
        """Note it."""
        self.blocked.append(reason)
