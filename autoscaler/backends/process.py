"""Runs workers as processes of this machine: starts, drains and replaces them.

Nothing here waits: ``tend`` looks at every worker and takes whatever step is due. A worker outlives this process, so
that a crash of the autoscaler costs no job; the next one finds it by its file.
"""

from __future__ import annotations

import signal
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Protocol

import structlog

from autoscaler.backends.crash_loop import CrashLoop
from autoscaler.backends.local_worker import LocalWorker
from autoscaler.backends.registry import Registered, Registry
from autoscaler.backends.victims import Candidate, victims
from autoscaler.fleet import BackendError, Fleet, Misconfigured

log = structlog.get_logger("autoscaler")

#: Seconds after which a draining worker with nothing left to run is told a second time: programs that never return keep
#: its threads, and so the process. Long enough for the last outcome to be written.
EMPTY_SECONDS = 30.0

#: Seconds between looks for workers that a former autoscaler of this machine left, while one of another leads.
SEARCH_SECONDS = 5.0

#: How a worker ends whose configuration is wrong; starting it again would only say so again.
WRONG_CONFIGURATION = 2

#: Why a start waits that will come soon: others are under way.
_TURN = "turn"


class Workers(Protocol):
    """Starts workers and finds those that run."""

    @property
    def place(self) -> str:
        """Names where it finds them."""
        ...

    def start(self, name: str, now: float) -> LocalWorker:
        """Start one."""
        ...

    def find(self, now: float) -> list[LocalWorker]:
        """Those that run, whoever started them."""
        ...

    def forget(self, worker: LocalWorker) -> None:
        """One has ended."""
        ...

    def listen(self, name: str) -> None:
        """Pass on what one has said beside its log."""
        ...

    def last_lines(self, name: str) -> str:
        """What one said last."""
        ...


class WorkerLog(Protocol):
    """Is told how workers end, and why some do not start."""

    def drained(self, seconds: float) -> None:
        """A worker ended after it was asked to."""
        ...

    def drain_killed(self) -> None:
        """A worker had to be killed."""
        ...

    def worker_died(self) -> None:
        """A worker ended that nobody had asked to."""
        ...

    def start_blocked(self, reason: str) -> None:
        """Workers are missing and cannot be started for now: `crash_loop`, `configuration` or `memory`."""
        ...


@dataclass(frozen=True)
class Limits:
    """Bounds of what is done to workers; times in seconds, memory in MiB."""

    drain_seconds: float
    """From the request to stop until it is killed; longer than the worker's own bound, after which it gives back."""
    stop_seconds: float
    """The same where the autoscaler itself ends: until the worker is told a second time, and gives back at once."""
    give_back_seconds: float
    """From the second request to stop until it is killed."""
    startup_seconds: float
    """From its start until it says that it lives; after that it is killed and counts as dead."""
    memory_mib: float
    """What one worker may come to need."""
    starting: int
    """How many may start at once: each keeps a core busy while it imports."""
    shows_content: bool = False
    """Whether the log may hold what jobs were given: the last lines of a worker that had jobs may be theirs."""


class ProcessBackend:
    """The workers of this machine."""

    def __init__(
        self,
        workers: Workers,
        registry: Registry,
        limits: Limits,
        events: WorkerLog,
        available_mib: Callable[[], float],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._launcher, self._registry, self._limits, self._events = workers, registry, limits, events
        self._available_mib, self._clock = available_mib, clock
        self.place = workers.place
        self._workers: dict[str, LocalWorker] = {}
        #: Those this process started, by number; only it learns how they end.
        self._own: dict[int, LocalWorker] = {}
        self._known: dict[int, Registered] = {}
        self._crashes: dict[str, CrashLoop] = defaultdict(CrashLoop)
        self._refusals = CrashLoop()
        self._wanted = 0
        self._stopping_since: float | None = None
        self._next_search: float | None = None
        self._is_short_of_memory = False
        self._obstacles: set[str] = set()

    def take_over(self) -> None:
        """Find the workers that run."""
        self._workers = self._found()
        self._look()
        self._wanted = len(self._active())
        if self._workers:
            pids = [worker.mark.pid for worker in self._workers.values()]
            log.info("adopted", workers=sorted(self._workers), pids=pids)

    def _found(self) -> dict[str, LocalWorker]:
        """Those that run, by name. What this process knows of them already is more than what their files say."""
        known = {**self._own, **{worker.mark.pid: worker for worker in self._workers.values()}}
        found = [known.get(worker.mark.pid, worker) for worker in self._launcher.find(self._clock())]
        return {worker.name: worker for worker in found}

    def fleet(self) -> Fleet:
        """The size asked for, the workers that said they live, those that drain."""
        ready = sum(self._is_ready(worker) for worker in self._active())
        return Fleet(self._wanted, min(ready, self._wanted), len(self._workers) - len(self._active()))

    def scale(self, replicas: int) -> None:
        """Ask for this size: the first steps are taken at once, the others as they fall due."""
        self._wanted = replicas
        self.tend()

    def tend(self) -> None:
        """Collect the dead, bound the slow, start and drain what is due.

        Raises:
            BackendError: the machine let no worker start just now.
            Misconfigured: a worker said that its configuration is wrong, and none works with an earlier one.
        """
        self._look()
        self._listen()
        self._collect()
        self._bound()
        self._shed()
        self._fill()

    def stand_by(self, leader: str | None) -> None:
        """Leave the workers to a leader that sees them; from one that does not, they go once their jobs are done."""
        self._own = {pid: worker for pid, worker in self._own.items() if worker.is_alive}
        if leader and leader != self.place:
            self._retreat()
            return
        self._next_search = None
        if leader:
            self._workers = {}

    def _retreat(self) -> None:
        """Drain every worker here, also those left by an earlier autoscaler, unless one beside us does so just now."""
        now = self._clock()
        if self._next_search is not None and now >= self._next_search:
            self._workers.update(self._found())
        if self._next_search is None or now >= self._next_search:
            self._next_search = now + SEARCH_SECONDS
        self._end_all()

    def _end_all(self) -> None:
        self._look()
        self._wanted = 0
        for worker in self._active():
            self._drain(worker)
        self._listen()
        self._collect()
        self._bound()

    def stop(self) -> bool:
        """Drain every worker, within a bound; True once all have ended."""
        now = self._clock()
        self._stopping_since = now if self._stopping_since is None else self._stopping_since
        if now - self._stopping_since >= self._limits.stop_seconds:
            self.hurry()
        self._end_all()
        return not self._workers

    def hurry(self) -> None:
        """A worker told twice gives its jobs back and ends at once."""
        for worker in self._workers.values():
            self._hurry(worker)

    def _hurry(self, worker: LocalWorker) -> None:
        if worker.hurried_since is None:
            worker.hurried_since = self._clock()
            worker.send(signal.SIGTERM)
            log.info("hurried", worker=worker.name, pid=worker.mark.pid, running=self._candidate(worker).running)

    def _look(self) -> None:
        """Ask who has come up, and who was told to stop by somebody else. Without an answer the last one holds."""
        known = self._registry.workers()
        if known is None:
            return
        self._known = known
        for worker in self._workers.values():
            said = known.get(worker.mark.pid)
            if said and not worker.was_ready:
                worker.was_ready, self._refusals = True, CrashLoop()
            if said and said.is_draining:
                self._note_drain(worker, said)

    def _note_drain(self, worker: LocalWorker, said: Registered) -> None:
        now = self._clock()
        worker.draining_since = now if worker.draining_since is None else worker.draining_since
        if said.running:
            worker.empty_since = None
        elif worker.empty_since is None:
            worker.empty_since = now

    def _listen(self) -> None:
        for name in self._workers:
            self._launcher.listen(name)

    def _active(self) -> list[LocalWorker]:
        """Those that are capacity: a draining worker is none, and is never called back."""
        return [worker for worker in self._workers.values() if not worker.is_draining]

    def _is_ready(self, worker: LocalWorker) -> bool:
        return worker.mark.pid in self._known

    def _collect(self) -> None:
        for worker in [worker for worker in self._workers.values() if not worker.is_alive]:
            last_lines = self._launcher.last_lines(worker.name)
            del self._workers[worker.name]
            self._launcher.forget(worker)
            self._own.pop(worker.mark.pid, None)
            if worker.draining_since is not None:
                self._ended(worker, self._clock() - worker.draining_since)
            else:
                self._died(worker, last_lines)

    def _ended(self, worker: LocalWorker, seconds: float) -> None:
        self._crashes.pop(worker.name, None)
        self._events.drained(seconds)
        log.info("worker_ended", worker=worker.name, pid=worker.mark.pid, drain_seconds=round(seconds, 1))

    def _died(self, worker: LocalWorker, last_lines: str) -> None:
        now = self._clock()
        self._events.worker_died()
        # A worker that took jobs had a good configuration: one of their programs ended it with that code.
        if worker.exit_code == WRONG_CONFIGURATION and not worker.was_ready and last_lines:
            self._refused(worker, last_lines)
            return
        pause = self._crashes[worker.name].died(now, now - worker.started)
        log.error(
            "worker_died",
            worker=worker.name,
            pid=worker.mark.pid,
            exit_code=worker.exit_code,
            deaths=self._crashes[worker.name].deaths,
            restart_in_seconds=pause,
            **({"last_lines": last_lines} if self._limits.shows_content or not worker.was_ready else {}),
        )

    def _refused(self, worker: LocalWorker, reason: str) -> None:
        """A worker said that its configuration is wrong. Those that run have an earlier one, and go on with it."""
        if not any(other.was_ready and other.is_alive for other in self._workers.values()):
            raise Misconfigured(reason)
        now = self._clock()
        pause = self._refusals.died(now, now - worker.started)
        log.error("worker_misconfigured", worker=worker.name, reason=reason, restart_in_seconds=pause)

    def _bound(self) -> None:
        """Kill what neither starts nor ends in its time; it is collected in the next round."""
        for worker in [worker for worker in self._workers.values() if not worker.was_killed]:
            if worker.draining_since is not None:
                self._bound_drain(worker, worker.draining_since)
            elif not worker.was_ready and self._clock() - worker.started > self._limits.startup_seconds:
                self._kill(worker, "did not come up")

    def _bound_drain(self, worker: LocalWorker, since: float) -> None:
        now, limits = self._clock(), self._limits
        if worker.empty_since is not None and now - worker.empty_since > EMPTY_SECONDS:
            self._hurry(worker)
        hurried = now if worker.hurried_since is None else worker.hurried_since
        if now - since > limits.drain_seconds or now - hurried > limits.give_back_seconds:
            self._events.drain_killed()
            self._kill(worker, "did not end")

    def _kill(self, worker: LocalWorker, why: str) -> None:
        worker.was_killed = True
        worker.send(signal.SIGKILL)
        log.warning("worker_killed", worker=worker.name, pid=worker.mark.pid, reason=why)

    def _shed(self) -> None:
        active = self._active()
        for name in victims(map(self._candidate, active), len(active) - self._wanted):
            self._drain(self._workers[name])

    def _candidate(self, worker: LocalWorker) -> Candidate:
        said = self._known.get(worker.mark.pid)
        return Candidate(worker.name, said is not None, said.running if said else 0, worker.started)

    def _drain(self, worker: LocalWorker) -> None:
        worker.draining_since = self._clock()
        worker.send(signal.SIGTERM)
        log.info("draining", worker=worker.name, pid=worker.mark.pid, running=self._candidate(worker).running)

    def _fill(self) -> None:
        """Start what is missing, as far as crashes, cores and memory allow; the rest waits for a later round."""
        now, obstacles = self._clock(), set[str]()
        for name in self._missing():
            if obstacle := self._obstacle(name, now):
                obstacles.add(obstacle)
            else:
                self._start(name, now)
        for obstacle in obstacles - self._obstacles - {_TURN}:
            self._events.start_blocked(obstacle)
        self._obstacles = obstacles

    def _obstacle(self, name: str, now: float) -> str | None:
        """What keeps a missing worker from being started just now."""
        if not self._refusals.may_start(now):
            return "configuration"
        if not self._crashes[name].may_start(now):
            return "crash_loop"
        starting = sum(not self._is_ready(worker) and not worker.was_ready for worker in self._active())
        if starting >= (1 if self._refusals.deaths else self._limits.starting):  # one is enough to find out
            return _TURN
        return None if self._has_memory(starting) else "memory"

    def _start(self, name: str, now: float) -> None:
        try:
            worker = self._launcher.start(name, now)
        except OSError as error:  # no room for a process, or for its files
            pause = self._crashes[name].died(now, 0)
            raise BackendError(f"{name} cannot be started: {error}; tried again in {pause:g} s") from error
        self._workers[name] = self._own[worker.mark.pid] = worker
        log.info("worker_started", worker=name, pid=worker.mark.pid)

    def _missing(self) -> list[str]:
        """The lowest free names, one for each worker that should be there; a name that pauses keeps its place."""
        number = max(0, self._wanted - len(self._active()))
        free = (name for index in count(1) if (name := f"worker-{index}") not in self._workers)
        return [next(free) for _ in range(number)]

    def _has_memory(self, starting: int) -> bool:
        """Whether there is memory for one more besides those that have not taken theirs yet."""
        available, needed = self._available_mib(), self._limits.memory_mib * (starting + 1)
        is_short = available < needed
        if is_short and not self._is_short_of_memory:
            log.warning("memory_short", available_mib=round(available), needed_mib=round(needed), wanted=self._wanted)
        self._is_short_of_memory = is_short
        return not is_short
