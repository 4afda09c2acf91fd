"""How a worker is, as it knows itself: nothing here asks Redis or waits for anything."""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from dspy_jobs import __version__
from dspy_jobs.measures import OTHER
from worker import consumption
from worker.chunk import ChunkRunner
from worker.housekeeping import Housekeeping
from worker.watchdog import is_consumer_alive, stalled


class Condition(Collector):
    """One worker's gauges, and what it answers when asked how it is."""

    def __init__(self, chunk_runner: ChunkRunner, housekeeping: Housekeeping) -> None:
        self._chunk_runner, self._housekeeping = chunk_runner, housekeeping

    def document(self) -> dict[str, Any]:
        """Of `GET /health`: `unhealthy` is what a restart mends, `degraded` what it does not."""
        wrong, awkward = self._complaints(), self._troubles()
        return {
            "status": "unhealthy" if wrong else "degraded" if awkward else "healthy",
            "reasons": wrong + awkward,
            "version": __version__,
            "id": self._chunk_runner.worker_id,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "phase": self._housekeeping.heartbeat.phase,
            "heartbeat_age_seconds": round(self._housekeeping.heartbeat.age(), 3),
            "lease_age_seconds": round(self._housekeeping.lease_age(), 3),
            "consumer_alive": is_consumer_alive(),
            "running": len(self._chunk_runner.running),
            "stuck_threads": self._chunk_runner.stuck_threads,
        }

    def _complaints(self) -> list[str]:
        """What the watchdog or a supervisor that reads the heartbeat would end this worker for."""
        heartbeat, found = self._housekeeping.heartbeat, []
        if heartbeat.is_overdue:
            found.append("the housekeeping no longer goes round")
        # Before it has begun to consume, and once it has stopped to, it need not ask for messages.
        if heartbeat.phase == "ready" and (reason := stalled(self._chunk_runner)):
            found.append(reason)
        return found

    def _troubles(self) -> list[str]:
        lease = self._chunk_runner.runner.settings.worker.lease_seconds
        return ["the lease could not be renewed: Redis is away"] if self._housekeeping.lease_age() > lease else []

    def collect(self) -> Iterator[Metric]:
        """The gauges, as they are now."""
        for name, (meaning, value) in self._of_worker().items():
            yield GaugeMetricFamily(f"dspy_worker_{name}", meaning, value=value)
        yield _by_model("dspy_active_predictions", "Running jobs.", self._active())
        circuits = self._housekeeping.circuit_states()
        yield _by_model("dspy_circuit_breaker_state", "0 closed, 1 half-open, 2 open.", circuits)

    def _of_worker(self) -> dict[str, tuple[str, float]]:
        runner, threads = self._chunk_runner, consumption.free_threads
        waiting = sum(len(held) for held in list(runner.waiting.values()))
        return {
            "threads": ("Threads, so jobs that may run at once.", runner.runner.settings.worker.concurrency),
            "busy_threads": ("Threads that have a message.", threads.total - threads.count),
            "held_jobs": ("Jobs that run here or are about to.", waiting + len(runner.running)),
            "stuck_threads": ("Threads given up with programs that never returned.", runner.stuck_threads),
            "draining": ("Whether it is stopping: 1, else 0.", float(runner.is_draining.is_set())),
            "last_message_timestamp_seconds": (
                "When it last took a message (Unix time); before the first, when it started.",
                runner.message_at,
            ),
        }

    def _active(self) -> Mapping[str, float]:
        models = self._chunk_runner.runner.settings.models
        running = Counter(claim.model for claim, _ in list(self._chunk_runner.running.values()))
        known = {model: running.pop(model, 0) for model in models}
        return {**known, OTHER: running.total()} if running else known


def _by_model(name: str, meaning: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(name, meaning, labels=["model"])
    for model, value in values.items():
        family.add_metric([model], value)
    return family
