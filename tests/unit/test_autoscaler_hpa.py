"""The HPA's sizes: tolerance, windows, policies and bounds as in Kubernetes."""

from __future__ import annotations

from typing import Any

import pytest

from autoscaler.hpa import HpaSpec, limit_legacy, limit_rate, stabilize, stabilize_legacy, sync
from autoscaler.metric import Metric
from autoscaler.quantity import milli
from autoscaler.recommendation import Size, Tolerances, recommend, recommend_all
from autoscaler.spec import Behavior
from autoscaler.state import HpaState, Recommendation, ScaleEvent

NOW = 10_000.0


def _behavior(**directions: Any) -> Behavior:
    return Behavior.model_validate(directions)


def _pods(value: int, period: int = 60) -> dict[str, Any]:
    return {"type": "Pods", "value": value, "periodSeconds": period}


def _percent(value: int, period: int = 60) -> dict[str, Any]:
    return {"type": "Percent", "value": value, "periodSeconds": period}


def _same(replicas: int) -> Size:
    return Size(replicas, replicas, replicas)


@pytest.mark.parametrize(
    ("usage", "target", "size", "expected"),
    [
        (88.0, 8.0, _same(10), 10),
        (88.001, 8.0, _same(10), 12),
        (72.0, 8.0, _same(10), 10),
        (71.999, 8.0, _same(10), 9),
        (11.0, 10.0, _same(1), 1),
        (44.0, 8.0, Size(5, 6, 5), 6),
        (80.0, 8.0, Size(2, 2, 0), 10),
        (17.0, 8.0, _same(0), 3),
        (0.0, 8.0, _same(0), 0),
        (0.0, 8.0, _same(3), 0),
        (1e18, 0.001, _same(3), 2**31 - 1),
    ],
)
def test_average_value_ignores_ready_pods(usage: float, target: float, size: Size, expected: int) -> None:
    """AverageValue divides by the target whatever is ready; inside the band the existing size stands."""
    metric = Metric(milli(usage), milli(target), "AverageValue")
    assert recommend(milli(usage), metric, size, Tolerances()) == expected


@pytest.mark.parametrize(
    ("usage", "size", "expected"),
    [
        (40.0, _same(2), 8),
        (40.0, Size(4, 4, 1), 4),
        (11.0, Size(4, 5, 1), 4),
        (9.0, Size(4, 5, 1), 4),
        (0.0, _same(4), 0),
        (40.0, _same(0), 4),
    ],
)
def test_value_multiplies_ready_pods(usage: float, size: Size, expected: int) -> None:
    """Value compounds on the ready replicas; inside the band the size asked for stands."""
    metric = Metric(milli(usage), milli(10.0), "Value")
    assert recommend(milli(usage), metric, size, Tolerances()) == expected


@pytest.mark.parametrize(
    ("tolerances", "usage", "expected"),
    [
        (Tolerances(scale_up=0.0), 81.0, 11),
        (Tolerances(scale_up=0.0), 72.0, 10),
        (Tolerances(scale_down=0.0), 79.0, 10),
        (Tolerances(scale_down=0.0), 72.0, 9),
        (Tolerances(scale_down=0.0), 88.0, 10),
        (Tolerances(0.0, 0.0), 80.0, 10),
    ],
)
def test_tolerance_has_a_direction(tolerances: Tolerances, usage: float, expected: int) -> None:
    """Each direction has its own tolerance and does not borrow the other's."""
    assert recommend(milli(usage), Metric(None, milli(8.0), "AverageValue"), _same(10), tolerances) == expected


@pytest.mark.parametrize(
    ("usages", "expected"),
    [
        ((8.0, 40.0), 5),
        ((None, 40.0), 5),
        ((None, 16.0), 2),
        ((None, 8.0), None),
        ((None, None), None),
        ((0.0, 0.0), 0),
    ],
)
def test_the_largest_metric_wins_and_failures_only_scale_up(
    usages: tuple[float | None, ...], expected: int | None
) -> None:
    """Metrics give their maximum; if one fails nothing may shrink, and if all fail nothing changes."""
    metrics = [Metric(None if u is None else milli(u), milli(8.0), "AverageValue") for u in usages]
    assert recommend_all(metrics, _same(2), Tolerances()) == expected


@pytest.mark.parametrize(
    ("policies", "select", "events", "current", "expected"),
    [
        ([_pods(4, 15), _percent(100, 15)], "Max", [], 1, 5),
        ([_pods(4, 15), _percent(100, 15)], "Max", [], 5, 10),
        ([_pods(4, 15), _percent(100, 15)], "Min", [], 5, 9),
        ([_pods(4, 15)], "Disabled", [], 5, 5),
        ([_percent(10)], "Max", [], 100, 111),
        ([_percent(1)], "Max", [], 3, 4),
        ([_pods(5, 120)], "Max", [(1, 100), (5, 60), (9, 20)], 100, 100),
        ([_pods(150, 120)], "Max", [(1, 100), (5, 60), (9, 20)], 100, 235),
        ([_percent(200, 120)], "Max", [(1, 100), (5, 60), (9, 20)], 100, 255),
        ([_pods(4, 15)], "Max", [(4, 15)], 5, 9),
        ([_pods(4, 15)], "Max", [(4, 14.999)], 5, 5),
    ],
)
def test_policies_limit_growth(
    policies: list[dict[str, Any]], select: str, events: list[tuple[int, float]], current: int, expected: int
) -> None:
    """Growth since the period began is limited in float64; events exactly a period old no longer count."""
    spec = HpaSpec(1, 10_000, _behavior(scaleUp={"policies": policies, "selectPolicy": select}))
    state = HpaState((), tuple(ScaleEvent(NOW - age, change) for change, age in events))
    limited = limit_rate(spec, state, current, 9_999, NOW)
    assert limited == (expected, "ScaleUpLimit")


@pytest.mark.parametrize(
    ("policies", "select", "events", "current", "expected"),
    [
        ([_pods(20), _percent(1)], "Max", [], 100, 80),
        ([_pods(2), _percent(1)], "Max", [], 100, 98),
        ([_pods(2), _percent(50)], "Min", [], 5, 3),
        ([_percent(50)], "Max", [], 5, 2),
        ([_percent(1)], "Max", [], 3, 2),
        ([_pods(1)], "Disabled", [], 9, 9),
        ([_percent(50, 120)], "Max", [(2, 100), (4, 60), (6, 20)], 100, 56),
        ([_percent(10, 120)], "Max", [(10, 100), (10, 60), (10, 20)], 100, 100),
        ([_pods(1, 60)], "Max", [(1, 60)], 4, 3),
        ([_pods(1, 60)], "Max", [(1, 59)], 4, 4),
    ],
)
def test_policies_limit_shrinking(
    policies: list[dict[str, Any]], select: str, events: list[tuple[int, float]], current: int, expected: int
) -> None:
    """Shrinking since the period began is limited, percentages truncate, and Min means the smallest change."""
    spec = HpaSpec(1, 10_000, _behavior(scaleDown={"policies": policies, "selectPolicy": select}))
    state = HpaState((), (), tuple(ScaleEvent(NOW - age, change) for change, age in events))
    assert limit_rate(spec, state, current, 0, NOW) == (expected, "ScaleDownLimit")


def test_both_kinds_of_event_place_the_start() -> None:
    """The size at the period's start undoes growth and shrinking alike."""
    spec = HpaSpec(1, 1000, _behavior(scaleUp={"policies": [_percent(300, 300)]}))
    state = HpaState((), (ScaleEvent(NOW - 60, 4),), (ScaleEvent(NOW - 60, 2),))
    assert limit_rate(spec, state, 6, 24, NOW) == (16, "ScaleUpLimit")


@pytest.mark.parametrize(
    ("current", "desired", "expected"),
    [
        (5, 7, (7, "DesiredWithinRange")),
        (5, 5, (5, "DesiredWithinRange")),
        (10, 60, (20, "TooManyReplicas")),
        (3, 0, (2, "TooFewReplicas")),
        (2, 60, (6, "ScaleUpLimit")),
    ],
)
def test_bounds_follow_policies(current: int, desired: int, expected: tuple[int, str]) -> None:
    """The bound is named when it, not a policy, stops the change."""
    assert limit_rate(HpaSpec(2, 20, Behavior()), HpaState(), current, desired, NOW) == expected


@pytest.mark.parametrize(
    ("current", "desired", "expected"),
    [
        (1, 99, (4, "ScaleUpLimit")),
        (2, 99, (4, "ScaleUpLimit")),
        (3, 99, (6, "ScaleUpLimit")),
        (10, 99, (20, "TooManyReplicas")),
        (30, 25, (20, "TooManyReplicas")),
        (9, 1, (2, "TooFewReplicas")),
        (9, 2, (2, "DesiredWithinRange")),
    ],
)
def test_without_behavior_growth_doubles_from_four(current: int, desired: int, expected: tuple[int, str]) -> None:
    """Without behavior the staircase is 4, 8, 16, and shrinking is not limited."""
    assert limit_legacy(HpaSpec(2, 20, None), current, desired) == expected


@pytest.mark.parametrize(("age", "expected"), [(299.0, 9), (300.0, 9), (300.001, 3)])
def test_the_legacy_window_includes_its_edge(age: float, expected: int) -> None:
    """Without behavior a recommendation exactly 300 s old still counts, and can raise the size."""
    assert stabilize_legacy([Recommendation(NOW - age, 9)], 3, NOW) == expected


@pytest.mark.parametrize(
    ("up", "down", "past", "current", "raw", "expected"),
    [
        (0, 180, [(4, 120), (5, 60)], 100, 3, 5),
        (300, 0, [(4, 120), (5, 60)], 1, 7, 4),
        (300, 300, [(3, 180)], 2, 1, 2),
        (300, 300, [(1, 180)], 2, 3, 2),
        (0, 300, [(10, 60)], 8, 3, 8),
        (0, 300, [(10, 300)], 12, 3, 3),
        (0, 300, [(10, 299.999)], 12, 3, 10),
        (60, 0, [(2, 60)], 2, 10, 10),
        (60, 0, [(2, 59)], 2, 10, 2),
    ],
)
def test_windows_are_strict_and_never_push_up(
    up: int, down: int, past: list[tuple[int, float]], current: int, raw: int, expected: int
) -> None:
    """With behavior, a window excludes its edge, and an old high only slows shrinking."""
    behavior = _behavior(scaleUp={"stabilizationWindowSeconds": up}, scaleDown={"stabilizationWindowSeconds": down})
    recommendations = [Recommendation(NOW - age, value) for value, age in past]
    assert stabilize(behavior, recommendations, current, raw, NOW) == expected


def _sync(spec: HpaSpec, state: HpaState, usage: float | None, replicas: int, now: float = NOW) -> Any:
    metric = Metric(None if usage is None else milli(usage), milli(8.0), "AverageValue")
    return sync(spec, state, [metric], _same(replicas), now)


def test_zero_replicas_disable_the_hpa() -> None:
    """At zero the HPA does nothing but remember the size it first saw."""
    synced = _sync(HpaSpec(1, 20, Behavior()), HpaState(), 800.0, 0)
    assert (synced.replicas, synced.reason) == (0, "ScalingDisabled")
    assert synced.state.recommendations == (Recommendation(NOW, 0),)


def test_the_first_size_seen_delays_growth() -> None:
    """The size first seen counts as a recommendation, so a scale-up window starts with it."""
    spec = HpaSpec(1, 20, _behavior(scaleUp={"stabilizationWindowSeconds": 60}))
    synced = _sync(spec, HpaState(), 80.0, 2)
    assert (synced.replicas, synced.reason) == (2, "ScaleUpStabilized")


@pytest.mark.parametrize(("replicas", "expected"), [(30, 20), (1, 3)])
def test_outside_the_bounds_is_corrected_at_once(replicas: int, expected: int) -> None:
    """Past windows and policies, without a metric, a size outside the bounds is put on the bound."""
    slow = {"policies": [_pods(1)], "selectPolicy": "Disabled"}
    spec = HpaSpec(3, 20, _behavior(scaleUp=slow, scaleDown=slow))
    assert _sync(spec, HpaState(), None, replicas).replicas == expected


def test_failed_metrics_leave_no_trace() -> None:
    """When all metrics fail, size and memory stay as they are."""
    state = HpaState((Recommendation(NOW - 5, 4),))
    synced = _sync(HpaSpec(1, 20, Behavior()), state, None, 4)
    assert (synced.replicas, synced.reason, synced.state) == (4, "FailedGetExternalMetric", state)


def test_only_own_changes_are_events() -> None:
    """A change the HPA makes is remembered for its policies; a size it keeps is not."""
    spec = HpaSpec(1, 20, Behavior())
    grown = _sync(spec, HpaState(), 800.0, 1).state
    assert (grown.scale_ups, grown.scale_downs) == ((ScaleEvent(NOW, 4),), ())
    assert _sync(spec, grown, 800.0, 5, NOW + 5).state.scale_ups == (ScaleEvent(NOW, 4),)


def test_memory_is_bounded() -> None:
    """Recommendations and events older than any window are forgotten."""
    spec, state = HpaSpec(1, 1000, Behavior()), HpaState()
    for tick in range(2000):
        state = _sync(spec, state, 8.0 * (1 + tick % 50), 1 + (tick - 1) % 50, tick * 15.0).state
    assert len(state.recommendations or ()) <= 3600 / 15 + 2
    assert len(state.scale_ups) + len(state.scale_downs) <= 1800 / 15 + 1
