"""What Prometheus is told: KEDA's own names and labels, so that its dashboards carry over, and ours beside them."""

from __future__ import annotations

import math

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from autoscaler.fleet import Fleet
from autoscaler.reading import Reading
from autoscaler.scaled_object import ScaledObject
from autoscaler.spec import ScalingSpec

#: Labels of KEDA's ``pkg/metricscollector/prommetrics.go``.
_SCALER_LABELS = ("namespace", "metric", "scaledObject", "scaler", "triggerIndex", "type")
_OBJECT_LABELS = ("namespace", "scaledObject")
_TYPE = "scaledobject"

#: Our gauges that show a number of the signal's own document.
_DETAILS = {
    "work_slots": ("work_slots", "Call slots the outstanding jobs need."),
    "waiting": ("waiting_jobs", "Jobs that wait and could run."),
    "inflight": ("inflight_jobs", "Jobs that run, but for those of draining workers."),
    "oldest_wait_seconds": ("oldest_wait_seconds", "How long the oldest waiting job has waited."),
    "service_seconds": ("service_seconds", "How long a job runs, on average; NaN while unknown."),
}

_DRAIN_BUCKETS = (0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600)


class Gauges:
    """All metrics of one autoscaler, in a registry of their own."""

    def __init__(self, target: ScaledObject) -> None:
        self.registry = CollectorRegistry()
        self._target, self._namespace = target, target.namespace or "default"
        self._make_keda_metrics()
        self._make_our_metrics()
        self.obey(target, target.scaling)

    def _make_keda_metrics(self) -> None:
        def gauge(name: str, text: str, labels: tuple[str, ...] = _SCALER_LABELS) -> Gauge:
            return Gauge(f"keda_{name}", text, labels, registry=self.registry)

        def counter(name: str, text: str, labels: tuple[str, ...]) -> Counter:
            return Counter(f"keda_{name}", text, labels, registry=self.registry)

        self._values = gauge("scaler_metrics_value", "Each scaler's metric.")
        self._active = gauge("scaler_active", "Whether a scaler is active.")
        self._latency = gauge("scaler_metrics_latency_seconds", "How long reading a scaler's metric took.")
        self._errors = counter("scaler_detail_errors", "Failed reads of each scaler.", _SCALER_LABELS)
        self._errors_of_object = counter("scaled_object_errors", "Failed reads of each ScaledObject.", _OBJECT_LABELS)
        self._paused = gauge("scaled_object_paused", "Whether it is paused.", _OBJECT_LABELS)
        self._lateness = gauge(
            "internal_scale_loop_latency_seconds",
            "How much later than due the loop ran.",
            ("namespace", "type", "resource"),
        )

    def _make_our_metrics(self) -> None:
        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"dspy_autoscaler_{name}", text, registry=self.registry)

        self._desired = gauge("desired_replicas", "Workers there should be.")
        self._current = gauge("current_replicas", "Workers that are ready.")
        self._draining = gauge("draining_replicas", "Workers that finish their jobs and then end.")
        self._min = gauge("min_replicas", "Fewest workers.")
        self._max = gauge("max_replicas", "Most workers.")
        self._raw = gauge("raw_recommendation", "Workers the metric alone asks for, before windows and policies.")
        self._fallback = gauge("fallback_active", "Whether the fallback stands in for a metric that cannot be read.")
        self._leader = gauge("leader", "Whether this process is the one that scales.")
        self._details = {key: gauge(name, text) for key, (name, text) in _DETAILS.items()}
        self._events = Counter(
            "dspy_autoscaler_scale_events",
            "Changes of the number of workers.",
            ("direction", "reason"),
            registry=self.registry,
        )
        self._drain_seconds = Histogram(
            "dspy_autoscaler_drain_seconds",
            "How long workers took to finish their jobs.",
            buckets=_DRAIN_BUCKETS,
            registry=self.registry,
        )
        self._killed = Counter(
            "dspy_autoscaler_drain_killed", "Workers killed because they did not end.", registry=self.registry
        )
        self._deaths = Counter(
            "dspy_autoscaler_worker_deaths", "Workers that ended without being asked to.", registry=self.registry
        )
        self._blocked = Counter(
            "dspy_autoscaler_starts_blocked",
            "Times that missing workers could not be started, each counted as it began.",
            ("reason",),
            registry=self.registry,
        )
        for reason in ("crash_loop", "configuration", "memory"):
            self._blocked.labels(reason)

    def obey(self, target: ScaledObject, scaling: ScalingSpec) -> None:
        """Show what is obeyed from now on; ``scaling`` has the bounds that hold. Former triggers are forgotten."""
        self._target, self._namespace = target, target.namespace or "default"
        for gauge in (self._values, self._active, self._latency, self._paused):
            gauge.clear()
        self._min.set(scaling.min_replica_count)
        self._max.set(scaling.max_replica_count)
        self._errors_of_object.labels(*self._object)
        self._paused.labels(*self._object).set(float(scaling.annotations.is_paused))

    def read(self, reading: Reading) -> None:
        """Show what was read; of a trigger that failed the last value stays, as in KEDA."""
        for index, (trigger, source) in enumerate(
            zip(self._target.scaling.triggers, self._target.sources, strict=True)
        ):
            metric = f"s{index}-{source.type}" if trigger.name == f"s{index}" else trigger.name
            labels = (self._namespace, metric, self._target.name, f"{source.type}Scaler", str(index), _TYPE)
            self._latency.labels(*labels).set(reading.seconds.get(trigger.name, 0.0))
            value = reading.values[trigger.name]
            failed = value is None
            self._errors.labels(*labels).inc(failed)
            self._errors_of_object.labels(*self._object).inc(failed)
            if value is not None:
                self._values.labels(*labels).set(value)
            self._active.labels(*labels).set(value is not None and value > trigger.activation)
        for name, gauge in self._details.items():
            value = reading.details.get(name)
            gauge.set(math.nan if value is None else value)

    def decided(self, desired: int, raw: int | None, in_fallback: bool) -> None:
        """Show a decision; ``raw`` is None if no metric could be read."""
        self._desired.set(desired)
        self._raw.set(math.nan if raw is None else raw)
        self._fallback.set(in_fallback)

    def fleet(self, fleet: Fleet) -> None:
        """Show the workers there are."""
        self._current.set(fleet.replicas if fleet.ready is None else fleet.ready)
        self._draining.set(fleet.draining)

    def scaled(self, before: int, after: int, reason: str) -> None:
        """Count a change."""
        self._events.labels("up" if after > before else "down", reason).inc()

    def late(self, seconds: float) -> None:
        """Show how much later than due the loop ran."""
        self._lateness.labels(self._namespace, _TYPE, self._target.name).set(seconds)

    def leads(self, leads: bool) -> None:
        """Show whether this process is the leader. Of what only the leader knows another one shows nothing."""
        self._leader.set(leads)
        if leads:
            return
        for gauge in (self._values, self._active, self._latency, self._lateness):
            gauge.clear()
        of_leader = (self._desired, self._current, self._draining, self._raw, self._fallback)
        for gauge in (*of_leader, *self._details.values()):
            gauge.set(math.nan)

    def drained(self, seconds: float) -> None:
        """Note that a worker ended after it was asked to."""
        self._drain_seconds.observe(seconds)

    def drain_killed(self) -> None:
        """Note that a worker had to be killed."""
        self._killed.inc()

    def worker_died(self) -> None:
        """Note that a worker ended that nobody had asked to."""
        self._deaths.inc()

    def start_blocked(self, reason: str) -> None:
        """Note that missing workers cannot be started from now on, and why."""
        self._blocked.labels(reason).inc()

    @property
    def _object(self) -> tuple[str, str]:
        return self._namespace, self._target.name
