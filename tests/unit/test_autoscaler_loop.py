"""The loop: who acts, on what, and when it rather does nothing."""

from __future__ import annotations

import math
from typing import Any

import pytest
import structlog
from autoscaler_doubles import Clock, PlayedBackend, PlayedLease, PlayedMetric, scaled_object

from autoscaler.gauges import Gauges
from autoscaler.loop import Autoscaler


class Scene:
    """One autoscaler and the world it sees."""

    def __init__(self, replicas: int = 0) -> None:
        target = scaled_object()
        self.clock, self.metric, self.lease = Clock(), PlayedMetric(), PlayedLease()
        self.backend, self.gauges = PlayedBackend(replicas), Gauges(target)
        self.loop = Autoscaler(target.scaling, self.metric, self.backend, self.lease, self.gauges, self.clock)

    def tick(self, value: float | None) -> int:
        """The size after the next look at this value."""
        self.metric.value = value
        self.loop.step()
        self.clock.pass_by(5)
        return self.backend.replicas

    def gauge(self, name: str, **labels: str) -> float | None:
        """What Prometheus is told."""
        return self.gauges.registry.get_sample_value(name, labels)


@pytest.fixture
def scene() -> Scene:
    """Nothing runs yet."""
    return Scene()


def test_work_wakes_the_fleet_and_rest_ends_it(scene: Scene) -> None:
    """The size follows the metric up within a tick, down at once here, and to zero after the cooldown."""
    assert [scene.tick(value) for value in (0, 24, 24, 8)] == [0, 3, 3, 1]
    assert [scene.tick(0) for _ in range(14)][-3:] == [1, 0, 0]


def test_nothing_happens_between_ticks(scene: Scene) -> None:
    """Steps between two polls decide nothing."""
    scene.tick(0)
    scene.clock.pass_by(-1)
    scene.metric.value = 24
    assert not scene.loop.step()
    assert scene.backend.replicas == 0


def test_a_failed_read_holds(scene: Scene) -> None:
    """While the metric cannot be read nothing changes, however long; it is logged when it begins and when it ends."""
    with structlog.testing.capture_logs() as events:
        assert scene.tick(24) == 3
        assert {scene.tick(None) for _ in range(50)} == {3}
        assert scene.tick(16) == 2
    assert [event["event"] for event in events if event["event"].startswith("metric")] == [
        "metric_failed",
        "metric_recovered",
    ]


def test_a_failed_read_does_not_wake_either(scene: Scene) -> None:
    """Nobody knows of any work."""
    assert {scene.tick(None) for _ in range(5)} == {0}


def test_each_change_is_one_line(scene: Scene) -> None:
    """A change is logged once with its reason; ticks without one say nothing."""
    scene.metric.details = {"waiting": 20.0, "inflight": 4.0, "service_seconds": None}
    with structlog.testing.capture_logs() as events:
        for value in (24, 24, 24, 8):
            scene.tick(value)
    changes: list[dict[str, Any]] = [dict(event) for event in events if event["event"] == "scaled"]
    assert [(change["from"], change["to"], change["reason"]) for change in changes] == [
        (0, 3, "DesiredWithinRange"),
        (3, 1, "DesiredWithinRange"),
    ]
    assert (changes[0]["waiting"], changes[0]["metrics"]) == (20.0, {"s0": 24})


def test_who_does_not_lead_does_nothing(scene: Scene) -> None:
    """Without the lease nothing is read or scaled."""
    scene.lease.is_held, scene.lease.leader = False, "there"
    assert {scene.tick(24) for _ in range(3)} == {0}
    assert scene.backend.calls == ["stand_by for there"]
    assert scene.gauge("dspy_autoscaler_leader") == 0


def test_who_stands_by_says_for_whom_once(scene: Scene) -> None:
    """Silence would look like work: the leader is named when it is first seen, and when it is another one."""
    scene.lease.is_held = False
    with structlog.testing.capture_logs() as events:
        for leader in (None, "host process 1", "host process 1", "host process 2"):
            scene.lease.holder = leader
            scene.tick(24)
    told = [event["leader"] for event in events if event["event"] == "standing_by"]
    assert told == ["host process 1", "host process 2"]


def test_a_lost_lease_ends_acting_and_a_new_one_begins_anew(scene: Scene) -> None:
    """Workers are left running meanwhile, and looked for again when the lease is back."""
    scene.tick(24)
    scene.lease.is_held = False
    scene.tick(0)
    scene.lease.is_held = True
    assert scene.tick(24) == 3
    assert scene.backend.calls == ["take_over", 3, "stand_by for None", "take_over"]


def test_a_lease_lost_while_reading_stops_the_decision(scene: Scene) -> None:
    """An answer that came late must not be acted on: another one may lead by now."""
    observe = scene.metric.observe

    def slow_read() -> Any:
        scene.lease.is_held = False
        return observe()

    scene.metric.observe = slow_read  # type: ignore[method-assign]
    assert scene.tick(24) == 0


def test_a_restart_does_not_shrink_before_the_cooldown() -> None:
    """Workers found at the start were wanted by somebody: an idle minute goes by before the last one goes."""
    scene = Scene(replicas=1)
    sizes = [scene.tick(0) for _ in range(14)]
    assert sizes[:12] == [1] * 12
    assert sizes[-1] == 0


def test_the_size_found_is_the_first_recommendation() -> None:
    """A new autoscaler over four busy workers does not tear them down on its first look."""
    scene = Scene(replicas=4)
    assert scene.tick(32) == 4


def test_a_broken_backend_is_asked_again(scene: Scene) -> None:
    """A change that could not be made is no memory: the next tick decides it again."""
    scene.backend.is_broken = True
    assert scene.tick(24) == 0
    scene.backend.is_broken = False
    assert scene.tick(24) == 3


def test_who_does_not_lead_shows_no_old_numbers(scene: Scene) -> None:
    """What it saw while it led would stand beside the new leader's numbers for ever; what it counted stays."""
    scene.metric.details = {"waiting": 20.0}
    scene.tick(24)
    scene.lease.is_held = False
    scene.tick(0)
    ours = ("desired_replicas", "current_replicas", "draining_replicas", "raw_recommendation", "waiting_jobs")
    assert all(math.isnan(scene.gauge(f"dspy_autoscaler_{name}") or 0) for name in ours)
    shown = {metric.name for metric in scene.gauges.registry.collect() if metric.samples}
    assert not shown & {"keda_scaler_metrics_value", "keda_scaler_active", "keda_scaler_metrics_latency_seconds"}
    assert scene.gauge("dspy_autoscaler_scale_events_total", direction="up", reason="DesiredWithinRange") == 1
    scene.lease.is_held = True
    scene.tick(24)
    assert scene.gauge("dspy_autoscaler_desired_replicas") == 3


def test_prometheus_is_told(scene: Scene) -> None:
    """Values stand under KEDA's names and labels, and under ours."""
    scene.metric.details = {"waiting": 20.0}
    scene.tick(24)
    scene.tick(None)
    labels = {
        "namespace": "jobs",
        "metric": "s0-metrics-api",
        "scaledObject": "dspy-worker",
        "scaler": "metrics-apiScaler",
        "triggerIndex": "0",
        "type": "scaledobject",
    }
    assert scene.gauge("keda_scaler_metrics_value", **labels) == 24
    assert scene.gauge("keda_scaler_detail_errors_total", **labels) == 1
    assert scene.gauge("dspy_autoscaler_desired_replicas") == 3
    assert scene.gauge("dspy_autoscaler_waiting_jobs") == 20
    assert scene.gauge("dspy_autoscaler_scale_events_total", direction="up", reason="DesiredWithinRange") == 1
