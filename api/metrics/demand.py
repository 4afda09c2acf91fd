"""What the fleet is scaled on, and each queue as it is."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from api.autoscale import present_demand
from api.resources import Resources
from dspy_jobs import names
from dspy_jobs.demand import Demand


async def read_queues(resources: Resources) -> Collector:
    """Read the demand at this moment."""
    return DemandCollector(await present_demand(resources))


class DemandCollector(Collector):
    """What the fleet is scaled on, and each queue as it is."""

    def __init__(self, demand: Demand) -> None:
        self._demand = demand

    def collect(self) -> Iterator[Metric]:
        """The metric families. What is not known has no sample."""
        yield from _of_fleet(self._demand)
        yield from _of_queues(self._demand)


def _of_fleet(demand: Demand) -> Iterator[Metric]:
    gauges = {
        "work": ("Call slots needed, with headroom: the metric to scale on.", demand.work),
        "work_slots": ("Call slots needed so that jobs wait no longer than they should.", demand.work_slots),
        "waiting_jobs": ("Jobs that could run now if there were slots.", demand.waiting),
        "inflight_jobs": ("Running jobs, without those of draining workers.", demand.inflight),
        "draining_jobs": ("Jobs that draining workers run to their end.", demand.draining),
        "oldest_wait_seconds": ("Wait of the oldest job that could run; 0 without one.", demand.oldest_wait_seconds),
        "service_seconds": ("Mean run time of the jobs that wait; absent while unknown.", demand.service_seconds),
    }
    for name, (meaning, value) in gauges.items():
        yield GaugeMetricFamily(f"dspy_autoscaler_{name}", meaning, value=value)


def _of_queues(demand: Demand) -> Iterator[Metric]:
    loads = [part.load for part in demand.queues]
    gauges: dict[str, tuple[str, list[float]]] = {
        "depth": ("Queued jobs, whatever they wait for.", [load.queued for load in loads]),
        "waiting": ("Queued jobs that could run now if there were slots.", [part.waiting for part in demand.queues]),
        "running": ("Running jobs.", [load.running for load in loads]),
        "oldest_wait_seconds": ("Wait of the oldest sent job; 0 without one.", [q.oldest_wait_seconds for q in loads]),
    }
    for name, (meaning, values) in gauges.items():
        family = GaugeMetricFamily(f"dspy_queue_{name}", meaning, labels=["queue"])
        for load, value in zip(loads, values, strict=True):
            family.add_metric([load.name], value)
        yield family
    # The reason is empty, which to Prometheus is no label, while a queue is open.
    labels = ["queue", "reason"]
    gates = GaugeMetricFamily("dspy_queue_gate_open", "Whether its jobs may start; if not, why.", labels=labels)
    for load in loads:
        gates.add_metric([load.name, load.gate.reason if load.gate else ""], 0 if load.gate else 1)
    yield gates
    active = GaugeMetricFamily("dspy_active_predictions", "Running jobs of each model.", labels=["model"])
    for load in loads:
        active.add_metric([load.name.removeprefix(names.queue(""))], load.running)
    yield active
