"""The worker's own thread for what must go on whatever its jobs do: its lease, cancellations, retries, recovery.

It has its own Redis connection, so that 128 busy threads cannot keep it from saying that the worker lives.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from typing import Any

import orjson
import structlog
from redis.exceptions import RedisError

from dspy_jobs import __version__, chores, names
from dspy_jobs.config_digest import config_digest
from dspy_jobs.settings import ModelSettings
from dspy_jobs.states import WaitReason
from dspy_jobs.store import SyncStore, operations
from dspy_jobs.store.gates import FleetCircuit
from dspy_jobs.store.script import Operation
from worker.chunk import ChunkRunner
from worker.circuit import Circuit, Circuits
from worker.consumption import pulse
from worker.fleet_report import FleetReport
from worker.heartbeat import Heartbeat

log = structlog.get_logger("worker")

#: Seconds between rounds. A cancellation or a due retry waits this long at most.
ROUND_SECONDS = 0.5
#: Rounds between looks for what is rarely amiss, such as a job whose message has vanished.
RARELY = 6
#: What a renewal says of an open circuit whose time is over and that nobody probes.
HALF_OPEN = "half_open"


class Housekeeping(threading.Thread):
    """Renews this worker's lease and does a share of the work any live process may do."""

    def __init__(
        self,
        chunk_runner: ChunkRunner,
        store: SyncStore,
        queues: list[str],
        circuits: Circuits,
        status_address: tuple[str, int] | None = None,
    ) -> None:
        """`status_address` is where the worker serves its own metrics and health, for others to know."""
        super().__init__(name="housekeeping", daemon=True)
        worker = chunk_runner.runner.settings.worker
        self.heartbeat = Heartbeat(worker.heartbeat_file, worker.lease_seconds)
        self._chunk_runner = chunk_runner
        self._store = store
        self._queues = queues
        self._circuits = circuits
        self._status_address = status_address
        self._report = FleetReport(chunk_runner.worker_id, chunk_runner.witnesses.instruments.totals)
        self._renewed_at = time.monotonic()
        self._config = config_digest(chunk_runner.runner.settings)
        self._rounds = 0
        self._reasons: dict[str, str] = {}
        """Why queues were closed in the last round."""
        self._is_heard = True
        self._ended = threading.Event()

    def run(self) -> None:
        """Rounds until told to end, also while Redis is away."""
        while not self._ended.is_set():
            try:
                self.round()
            except RedisError as error:
                log.warning("redis_unavailable", error=str(error))
                pulse.restart()
            self._beat()
            self._ended.wait(ROUND_SECONDS)

    def end(self) -> None:
        """Stop after the present round and leave the fleet."""
        self._ended.set()
        self.join(timeout=5)
        self.heartbeat.end()
        self._send_last(operations.retire_worker(self._chunk_runner.worker_id, self._queues))

    def send_report(self) -> None:
        """Send what was measured and not yet sent, before the process ends at once."""
        self._send_last()

    def lease_age(self) -> float:
        """Seconds since the lease was last renewed; before the first time, since this was made."""
        return time.monotonic() - self._renewed_at

    def circuit_states(self) -> dict[str, float]:
        """Each model's circuit as this worker knows it: 0 closed, 1 half-open, 2 open."""
        return {model: self._circuit_state(model, circuit) for model, circuit in self._circuits.items()}

    def _circuit_state(self, model: str, circuit: Circuit) -> float:
        if not circuit.is_open:
            return 0
        return 1 if self._reasons.get(names.queue(model)) == HALF_OPEN else 2

    def round(self) -> None:
        """One round: say that this worker lives, stop what was canceled, do what dead processes left."""
        runner = self._chunk_runner.runner
        queues = [] if self._chunk_runner.is_draining.is_set() else self._queues
        lease = runner.settings.worker.lease_seconds
        renewal = operations.renew_worker(runner.worker_id, lease, self._description(), queues)
        renewed = self._send(renewal)
        self._renewed_at = time.monotonic()
        for job_id in renewed.to_stop:
            self._chunk_runner.stop(job_id)
        if queues:
            self._follow_gates(renewed.closed)
        self._chunk_runner.abandon_stuck()
        self._chunk_runner.book_answered()
        self._store.follow(chores.all_chores(runner.settings))
        self._rounds += 1
        if self._rounds % RARELY == 0:
            self._store.follow(chores.rare_chores(runner.settings, time.time_ns() // 1_000_000))

    def _send(self, *more: Operation[Any]) -> Any:
        """Run operations, and with them what was measured since the last time; answers the last one's answer."""
        report = self._report.operations()
        # First: where scripts have to be loaded again, the first one that is missing is what says so.
        answers = self._store.run_all([*report, *more]) if report or more else [None]
        self._report.arrived(report)
        return answers[-1]

    def _send_last(self, *more: Operation[Any]) -> None:
        try:
            self._send(*more)
        except RedisError as error:
            log.warning("redis_unavailable", error=str(error))

    def _beat(self) -> None:
        if self._chunk_runner.is_draining.is_set():
            self.heartbeat.phase = "draining"
        try:
            self.heartbeat.beat(pulse.age())
            self._is_heard = True
        except OSError as error:  # whoever supervises this worker will find no beat, or an old one
            if self._is_heard:
                log.warning("heartbeat_unwritable", error=str(error))
            self._is_heard = False

    def _follow_gates(self, closed: dict[str, tuple[str, float]]) -> None:
        """Keep the circuits in step with the fleet and consume from open queues only."""
        for model, circuit in self._circuits.items():
            circuit.report_successes()
            reason, seconds = closed.get(names.queue(model), ("", 0.0))
            circuit.adopt(FleetCircuit(reason in (WaitReason.CIRCUIT_OPEN, HALF_OPEN), seconds))
        self._tell_of_gates({queue: reason for queue, (reason, _) in closed.items()})
        models = self._chunk_runner.runner.settings.models
        self._chunk_runner.gates.replace(
            {
                names.queue(model): closed[names.queue(model)][1]
                for model, settings in models.items()
                if names.queue(model) in closed and not _flows_on(closed[names.queue(model)][0], settings)
            }
        )

    def _tell_of_gates(self, reasons: dict[str, str]) -> None:
        """One line whenever a queue closes for another reason, or opens."""
        for queue in reasons.keys() | self._reasons.keys():
            before, now = self._reasons.get(queue, ""), reasons.get(queue, "")
            if now and now != before:
                log.warning("queue_closed", queue=queue, reason=now)
            elif before and not now:
                log.info("queue_opened", queue=queue, reason=before)
        self._reasons = reasons

    def _description(self) -> bytes:
        host, port = self._status_address or (None, None)
        runner = self._chunk_runner.runner
        return orjson.dumps(
            {
                "id": self._chunk_runner.worker_id,
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "concurrency": runner.settings.worker.concurrency,
                "queues": self._queues,
                "running": len(self._chunk_runner.running),
                "draining": self._chunk_runner.is_draining.is_set(),
                "metrics_host": host,
                "metrics_port": port,
                "lease_seconds": runner.settings.worker.lease_seconds,
                "silent_seconds": round(pulse.age(), 3),
                "stuck_threads": self._chunk_runner.stuck_threads,
                "version": __version__,
                "config": self._config,
            }
        )


def _flows_on(reason: str, model: ModelSettings) -> bool:
    """Whether a closed queue is consumed all the same: to find a probe, or to divert jobs to a fallback model."""
    return reason == HALF_OPEN or (reason == WaitReason.CIRCUIT_OPEN and bool(model.fallbacks))
