"""Promises of a whole decision that hold whatever the settings, the history and the metrics are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autoscaler.decision import decide
from autoscaler.spec import Annotations, Behavior, ScalingSpec
from autoscaler.state import Decision, HpaState, Observation, Recommendation, State

#: A busy machine must not fail a property.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

POLICIES = st.lists(
    st.fixed_dictionaries(
        {
            "type": st.sampled_from(["Pods", "Percent"]),
            "value": st.integers(1, 300),
            "periodSeconds": st.integers(1, 120),
        }
    ),
    min_size=1,
    max_size=3,
)
RULES = st.fixed_dictionaries(
    {},
    optional={
        "stabilizationWindowSeconds": st.integers(0, 120),
        "selectPolicy": st.sampled_from(["Max", "Min", "Disabled"]),
        "policies": POLICIES,
        "tolerance": st.sampled_from(["0", "0.1", "0.5"]),
    },
)
BEHAVIORS = st.none() | st.fixed_dictionaries({}, optional={"scaleUp": RULES, "scaleDown": RULES})
TRIGGER = st.fixed_dictionaries(
    {"target": st.floats(0.5, 20), "metricType": st.sampled_from(["AverageValue", "Value"])},
    optional={"activation": st.floats(0, 5), "useCachedMetrics": st.booleans()},
)
FALLBACKS = st.none() | st.fixed_dictionaries(
    {
        "failureThreshold": st.integers(0, 3),
        "replicas": st.integers(0, 9),
        "behavior": st.sampled_from(["static", "currentReplicas", "currentReplicasIfHigher", "currentReplicasIfLower"]),
    }
)


@st.composite
def specs(draw: st.DrawFn, fallbacks: st.SearchStrategy[Any] = FALLBACKS) -> ScalingSpec:
    """Draw settings that KEDA would admit."""
    low = draw(st.integers(0, 5))
    return ScalingSpec.model_validate(
        {
            "triggers": draw(st.lists(TRIGGER, min_size=1, max_size=2)),
            "minReplicaCount": low,
            "maxReplicaCount": draw(st.integers(max(low, 1), 40)),
            "idleReplicaCount": draw(st.sampled_from([None, 0])) if low > 0 else None,
            "cooldownPeriod": draw(st.integers(0, 60)),
            "initialCooldownPeriod": draw(st.integers(0, 60)),
            "behavior": draw(BEHAVIORS),
            "fallback": draw(fallbacks),
        }
    )


VALUES = st.none() | st.floats(0, 400)
STEPS = st.lists(st.tuples(VALUES, VALUES, st.integers(1, 40)), min_size=1, max_size=15)


def _replay(
    spec: ScalingSpec, steps: Sequence[tuple[float | None, float | None, int]], replicas: int
) -> list[tuple[Observation, Decision]]:
    """Feed each decision's size back as the next one's, as an autoscaler does."""
    state, now, history = State(created=0.0), 0.0, []
    for first, second, pause in steps:
        now += pause
        values = dict(zip([trigger.name for trigger in spec.triggers], [first, second], strict=False))
        observation = Observation(values, replicas)
        decision = decide(spec, state, observation, now)
        history.append((observation, decision))
        state, replicas = decision.state, decision.replicas
    return history


@patient
@given(specs(), STEPS, st.integers(0, 60))
def test_bounds_always_hold(spec: ScalingSpec, steps: list[Any], replicas: int) -> None:
    """After both loops the size is zero or between the HPA's bounds, from any start."""
    for _, decision in _replay(spec, steps, replicas):
        assert decision.replicas == 0 or spec.hpa_min_replicas <= decision.replicas <= spec.max_replica_count


@patient
@given(specs(), STEPS, st.integers(0, 60))
def test_equal_input_gives_equal_output(spec: ScalingSpec, steps: list[Any], replicas: int) -> None:
    """A history replayed gives the same sizes, reasons and states."""
    assert _replay(spec, steps, replicas) == _replay(spec, steps, replicas)


@patient
@given(specs(), STEPS, st.integers(0, 60))
def test_work_is_never_left_at_zero(spec: ScalingSpec, steps: list[Any], replicas: int) -> None:
    """While a trigger is above its activation, the fleet is never zero after a decision."""
    for observation, decision in _replay(spec, steps, replicas):
        if any(_is_active(spec, observation.values, index) for index in range(len(spec.triggers))):
            assert decision.replicas > 0


def _is_active(spec: ScalingSpec, values: Mapping[str, float | None], index: int) -> bool:
    value = values[spec.triggers[index].name]
    return value is not None and value > spec.triggers[index].activation


@patient
@given(specs(fallbacks=st.none()), STEPS, st.integers(0, 5), st.data())
def test_errors_change_nothing(spec: ScalingSpec, steps: list[Any], start: int, data: st.DataObject) -> None:
    """When every read fails and no fallback is set, a size within the bounds stays, whatever came before."""
    *_, (_, last) = _replay(spec, steps, start)
    replicas = data.draw(st.integers(spec.hpa_min_replicas, spec.max_replica_count) | st.just(0))
    failed = Observation({trigger.name: None for trigger in spec.triggers}, replicas)
    assert decide(spec, last.state, failed, 10_000.0).replicas == replicas


@patient
@given(
    st.sampled_from([("scaleUp", 1), ("scaleDown", -1)]),
    st.integers(1, 5),
    st.integers(1, 120),
    st.lists(st.tuples(st.floats(0, 400), st.integers(1, 40)), min_size=1, max_size=20),
)
def test_policies_are_never_exceeded(
    direction: tuple[str, int], pods: int, period: int, steps: list[tuple[float, int]]
) -> None:
    """Within any period, the net change in a limited direction never exceeds its Pods policy."""
    name, sign = direction
    rules = {
        "policies": [{"type": "Pods", "value": pods, "periodSeconds": period}],
        "stabilizationWindowSeconds": 0,
    }
    spec = ScalingSpec.model_validate(
        {"triggers": [{"target": 8.0}], "minReplicaCount": 1, "maxReplicaCount": 50, "behavior": {name: rules}}
    )
    now, sizes = 0.0, [(0.0, 25)]
    for (_, decision), (_, pause) in zip(_replay(spec, [(v, None, p) for v, p in steps], 25), steps, strict=True):
        now += pause
        changed = sign * (decision.replicas - sizes[-1][1])
        before = [size for time, size in sizes if time <= now - period][-1:] or [25]
        if changed > 0:
            assert sign * (decision.replicas - before[0]) <= pods
        sizes.append((now, decision.replicas))


@patient
@given(specs(), STEPS, st.integers(0, 60))
def test_disabled_directions_never_move(spec: ScalingSpec, steps: list[Any], replicas: int) -> None:
    """Paused scale-in never shrinks and paused scale-out never grows a size that lies within the bounds."""
    for field, sign in (("paused_scale_in", -1), ("paused_scale_out", 1)):
        paused = spec.model_copy(update={"annotations": Annotations(**{field: True})})
        for observation, decision in _replay(paused, steps, replicas):
            if spec.hpa_min_replicas <= observation.replicas <= spec.max_replica_count:
                assert sign * (decision.replicas - observation.replicas) <= 0


@patient
@given(specs(), STEPS, st.sampled_from([None, 0, 3]))
def test_pauses_freeze(spec: ScalingSpec, steps: list[Any], count: int | None) -> None:
    """A paused object keeps its size, or takes the one its annotation names, even zero."""
    paused = spec.model_copy(update={"annotations": Annotations(paused=count is None, paused_replicas=count)})
    for observation, decision in _replay(paused, steps, 7):
        expected = observation.replicas if count is None else count
        assert (decision.replicas, decision.reason) == (expected, "ScaledObjectPaused")


def test_a_pause_forgets_the_hpa() -> None:
    """Pausing deletes the HPA, so its memory starts anew afterwards."""
    spec = ScalingSpec.model_validate({"triggers": [{"target": 8.0}], "annotations": Annotations(paused=True)})
    state = State(0.0, last_active=5.0, hpa=HpaState((Recommendation(1.0, 9),)))
    decision = decide(spec, state, Observation({"s0": 8.0}, 3), 10.0)
    assert decision.state == State(0.0, last_active=5.0)


def _work(**fields: Any) -> ScalingSpec:
    return ScalingSpec.model_validate({"triggers": [{"name": "work", "target": 8.0}], **fields})


def _decide(spec: ScalingSpec, value: float | None, replicas: int, now: float = 100.0, **state: Any) -> Decision:
    return decide(spec, State(0.0, **state), Observation({"work": value}, replicas), now)


@pytest.mark.parametrize(
    ("fields", "value", "replicas", "state", "expected"),
    [
        ({"behavior": {}}, 5.0, 0, {}, (1, "ScalerActive")),
        ({"behavior": {}}, 800.0, 1, {}, (5, "ScaleUpLimit")),
        ({"behavior": {}, "maxReplicaCount": 3}, 800.0, 1, {}, (3, "TooManyReplicas")),
        ({"behavior": {}}, 8.0, 5, {}, (5, "ScaleDownStabilized")),
        ({"behavior": {}}, 40.0, 5, {}, (5, "ScalerActive")),
        ({}, 0.0, 1, {"last_active": 90.0}, (1, "ScalerCooldown")),
        ({}, 0.0, 5, {}, (0, "ScalerNotActive")),
        ({}, 0.0, 0, {}, (0, "ScalerNotActive")),
        ({}, None, 5, {}, (5, "FailedGetExternalMetric")),
        ({"fallback": {"failureThreshold": 0, "replicas": 4}, "behavior": {}}, None, 2, {}, (4, "Fallback")),
        ({"fallback": {"failureThreshold": 0, "replicas": 4}}, None, 0, {}, (4, "Fallback")),
    ],
)
def test_reasons_name_what_decided(
    fields: dict[str, Any], value: float | None, replicas: int, state: dict[str, Any], expected: tuple[int, str]
) -> None:
    """The reason names the loop that changed the size, or what held it back."""
    decision = _decide(_work(**fields), value, replicas, **state)
    assert (decision.replicas, decision.reason) == expected


@pytest.mark.parametrize(
    ("behavior", "replicas", "expected"),
    [
        ("static", 9, 6),
        ("static", 2, 6),
        ("currentReplicas", 9, 9),
        ("currentReplicas", 2, 2),
        ("currentReplicasIfHigher", 9, 9),
        ("currentReplicasIfHigher", 2, 6),
        ("currentReplicasIfLower", 9, 6),
        ("currentReplicasIfLower", 2, 2),
    ],
)
@pytest.mark.parametrize("metric_type", ["AverageValue", "Value"])
def test_fallback_lands_on_its_size(behavior: str, replicas: int, expected: int, metric_type: str) -> None:
    """Each fallback behavior gives its size for either metric type, once windows and policies allow."""
    fields = {
        "triggers": [{"name": "work", "target": 8.0, "metricType": metric_type}],
        "fallback": {"failureThreshold": 0, "replicas": 6, "behavior": behavior},
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}},
    }
    assert _decide(_work(**fields), None, replicas).replicas == expected


@pytest.mark.parametrize(("cached", "ticks"), [(False, 2), (True, 4)])
def test_both_loops_count_failures_unless_cached(cached: bool, ticks: int) -> None:
    """Threshold 3 trips in the second tick when each loop reads for itself, in the fourth with a cache."""
    spec = ScalingSpec.model_validate(
        {
            "triggers": [{"name": "work", "target": 8.0, "useCachedMetrics": cached}],
            "fallback": {"failureThreshold": 3, "replicas": 6},
            "behavior": {},
        }
    )
    history = _replay(spec, [(None, None, 15)] * 5, 2)
    assert [decision.replicas == 2 for _, decision in history] == [tick < ticks - 1 for tick in range(5)]


def test_a_formula_sums_where_triggers_take_the_maximum() -> None:
    """Two queues of 16 need 4 replicas by formula, but only 2 as separate triggers."""
    triggers = [{"name": "a", "target": 8.0}, {"name": "b", "target": 8.0}]
    seen = Observation({"a": 16.0, "b": 16.0}, 1)
    apart = ScalingSpec.model_validate({"triggers": triggers, "behavior": {}})
    summed = apart.model_copy(update={"scaling_modifiers": _summing()})
    assert decide(apart, State(0.0), seen, 1.0).replicas == 2
    assert decide(summed, State(0.0), seen, 1.0).replicas == 4


def _summing() -> Any:
    return ScalingSpec.model_validate(
        {
            "triggers": [{"name": "a", "target": 8.0}, {"name": "b", "target": 8.0}],
            "scalingModifiers": {"formula": "a + b", "target": "8"},
        }
    ).scaling_modifiers


def test_a_nil_formula_takes_the_fallback_size() -> None:
    """When every alternative of ``??`` has failed, the fallback's replicas stand in, from zero too."""
    spec = ScalingSpec.model_validate(
        {
            "triggers": [{"name": "a", "target": 8.0}, {"name": "b", "target": 8.0}],
            "scalingModifiers": {"formula": "a ?? b", "target": "2"},
            "fallback": {"failureThreshold": 0, "replicas": 4, "behavior": "scalingModifiers"},
            "behavior": {},
        }
    )
    failed = Observation({"a": None, "b": None}, 0)
    assert decide(spec, State(0.0), failed, 1.0).replicas == 4


def test_only_due_loops_run() -> None:
    """The executor alone wakes one replica; the HPA alone leaves zero alone; neither changes nothing."""
    spec, values = _work(behavior={}), {"work": 80.0}
    sizes = [
        decide(spec, State(0.0), Observation(values, 0, keda_due=keda, hpa_due=hpa), 1.0).replicas
        for keda, hpa in [(True, False), (False, True), (True, True), (False, False)]
    ]
    assert sizes == [1, 0, 5, 0]


def test_keda_defaults_drain_as_documented() -> None:
    """Target 5 on KEDA's defaults: 1, then 3 held for 300 s, then 2, and zero 301 s after the last work."""
    spec = ScalingSpec.model_validate({"triggers": [{"name": "work", "target": 5.0}]})
    steps = [
        (0, "keda", 12, 1),
        (15, "hpa", 12, 3),
        (30, "both", 9, 3),
        (60, "both", 0, 3),
        (315, "hpa", 0, 3),
        (316, "hpa", 0, 2),
        (330, "keda", 0, 2),
        (331, "keda", 0, 0),
    ]
    state, replicas = State(0.0), 0
    for now, loop, value, expected in steps:
        seen = Observation({"work": float(value)}, replicas, keda_due=loop != "hpa", hpa_due=loop != "keda")
        state, replicas, _ = decide(spec, state, seen, float(now))
        assert (now, replicas) == (now, expected)


def test_a_paused_direction_brings_behavior() -> None:
    """Pausing a direction gives the HPA a behavior, and thereby the newer rules for the other direction."""
    spec = _work(annotations=Annotations(paused_scale_in=True))
    assert spec.hpa_behavior == Behavior.model_validate({"scaleDown": {"selectPolicy": "Disabled"}})
    assert _decide(spec, 800.0, 1).replicas == 5
    assert _decide(_work(), 800.0, 1).replicas == 4
