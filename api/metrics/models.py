"""Each model's circuit breaker, and the workers of each queue."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from api.resources import Resources
from dspy_jobs import names
from dspy_jobs.store.counted import CIRCUIT_STATES, Fleet, read_fleet


async def read_models(resources: Resources) -> Collector:
    """Read them for all configured models."""
    queues = [names.queue(model) for model in sorted(resources.settings.models)]
    return FleetCollector(await resources.store.run(read_fleet(queues)))


class FleetCollector(Collector):
    """The fleet at one moment."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def collect(self) -> Iterator[Metric]:
        """The metric families."""
        meaning = "State of a model's circuit breaker: 0 closed, 1 half-open, 2 open."
        circuits = GaugeMetricFamily("dspy_circuit_breaker_state", meaning, labels=["model"])
        for queue, state in self._fleet.circuits.items():
            circuits.add_metric([queue.removeprefix(names.queue(""))], CIRCUIT_STATES.index(state))
        yield circuits
        workers = GaugeMetricFamily("dspy_workers", "Live workers that consume a queue.", labels=["queue"])
        for queue, number in self._fleet.workers.items():
            workers.add_metric([queue], number)
        yield workers
        meaning = "Live workers that finish the jobs they have and take no more."
        yield GaugeMetricFamily("dspy_workers_draining", meaning, value=self._fleet.draining)
        meaning = "Jobs that the live workers that take more can run at once."
        yield GaugeMetricFamily("dspy_worker_slots", meaning, value=self._fleet.threads)
