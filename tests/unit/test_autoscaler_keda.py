"""The executor moves between zero, idle and the minimum exactly as KEDA's, and errors hold."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autoscaler.keda import poll
from autoscaler.spec import ScalingSpec, read_annotations
from autoscaler.state import Decision, Observation, State

#: A busy machine must not fail a property.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

NEVER = State(created=0.0)


def _spec(annotations: Mapping[str, str] | None = None, **fields: Any) -> ScalingSpec:
    prefixed = {f"autoscaling.keda.sh/{key}": value for key, value in (annotations or {}).items()}
    fields.setdefault("triggers", [{"name": "work", "target": 10.0}])
    return ScalingSpec.model_validate({"annotations": read_annotations(prefixed), **fields})


def _poll(spec: ScalingSpec, value: float | None, replicas: int, now: float = 1000.0, state: State = NEVER) -> Decision:
    values = dict.fromkeys([trigger.name for trigger in spec.triggers], value)
    return poll(spec, state, Observation(values, replicas), now)


@pytest.mark.parametrize(("value", "replicas"), [(49.9, 0), (50.0, 0), (50.1, 1), (40.0, 0), (-60.0, 0), (math.nan, 0)])
def test_activation_is_strictly_greater_and_beats_the_target(value: float, replicas: int) -> None:
    """Target 10 and activation 50: forty jobs leave the fleet at zero, and fifty exactly do too."""
    spec = _spec(triggers=[{"name": "work", "target": 10.0, "activation": 50.0}])
    assert _poll(spec, value, 0).replicas == replicas


@pytest.mark.parametrize(("minimum", "woken"), [(0, 1), (1, 1), (3, 3)])
def test_waking_goes_to_the_minimum_or_one(minimum: int, woken: int) -> None:
    """However much work waits, the executor wakes the minimum or one replica, and counts as active now."""
    decision = _poll(_spec(minReplicaCount=minimum), 900.0, 0)
    assert decision.replicas == woken
    assert decision.state.last_active == 1000.0


@pytest.mark.parametrize(("now", "replicas"), [(1299.0, 7), (1300.0, 7), (1300.001, 0)])
def test_cooldown_is_strict_and_ends_in_one_step(now: float, replicas: int) -> None:
    """Strictly after the cooldown since the last active poll, any size drops to zero at once."""
    cooled = _poll(_spec(), 0.0, 7, now, State(created=0.0, last_active=1000.0))
    assert cooled.replicas == replicas
    assert cooled.reason == ("ScalerNotActive" if replicas == 0 else "ScalerCooldown")


def test_cooldown_does_nothing_above_a_minimum() -> None:
    """With a minimum and no idle count, the executor never scales in."""
    assert _poll(_spec(minReplicaCount=2), 0.0, 9, 10_000.0, State(0.0, last_active=0.0)).replicas == 9


@pytest.mark.parametrize(("initial", "now", "replicas"), [(0, 0.0, 3), (0, 0.001, 0), (120, 120.0, 3), (120, 120.5, 0)])
def test_never_active_counts_from_creation(initial: int, now: float, replicas: int) -> None:
    """An object never active ignores the cooldown and waits the initial one since its creation, strictly."""
    assert _poll(_spec(initialCooldownPeriod=initial, cooldownPeriod=9999), 0.0, 3, now).replicas == replicas


@pytest.mark.parametrize(
    ("fallback", "replicas", "reason"),
    [
        (None, 4, "TriggerError"),
        ({"failureThreshold": 9, "replicas": 2}, 4, "TriggerError"),
        ({"failureThreshold": 9, "replicas": 0}, 0, "ScalerNotActive"),
    ],
)
def test_errors_hold_except_with_a_fallback_of_zero(
    fallback: dict[str, int] | None, replicas: int, reason: str
) -> None:
    """A failed read holds the size long after the cooldown; only a fallback of 0 replicas lets it drop."""
    spec = _spec(fallback=fallback)
    decision = _poll(spec, None, 4, 10_000.0, State(0.0, last_active=0.0))
    assert (decision.replicas, decision.reason) == (replicas, reason)


def test_partial_errors_do_not_refresh_activity() -> None:
    """While one trigger is active and another fails, the size holds and the cooldown is not pushed back."""
    spec = _spec(triggers=[{"name": "a", "target": 1.0}, {"name": "b", "target": 1.0}])
    decision = poll(spec, NEVER, Observation({"a": 5.0, "b": None}, 3), 50.0)
    assert (decision.replicas, decision.reason, decision.state.last_active) == (3, "PartialTriggerError", None)


def test_partial_errors_still_wake() -> None:
    """An active trigger wakes the fleet from zero even while another fails."""
    spec = _spec(triggers=[{"name": "a", "target": 1.0}, {"name": "b", "target": 1.0}])
    assert poll(spec, NEVER, Observation({"a": 5.0, "b": None}, 0), 50.0).replicas == 1


@pytest.mark.parametrize(
    ("value", "replicas", "expected"), [(1.0, 0, 3), (1.0, 2, 3), (1.0, 3, 3), (1.0, 9, 9), (0.0, 9, 0), (0.0, 0, 0)]
)
def test_idle_mode_moves_between_idle_and_minimum(value: float, replicas: int, expected: int) -> None:
    """With idleReplicaCount 0, activity raises to the minimum and rest goes to idle, never in between."""
    assert _poll(_spec(idleReplicaCount=0, minReplicaCount=3), value, replicas).replicas == expected


def test_below_the_minimum_is_raised_without_activity() -> None:
    """Without an idle count, an inactive object below its minimum is raised to it."""
    assert _poll(_spec(minReplicaCount=2), 0.0, 1).replicas == 2


@pytest.mark.parametrize(
    ("annotation", "value", "metric", "replicas", "expected"),
    [
        ("paused-scale-in", "true", 0.0, 4, 4),
        ("paused-scale-in", "yes, please", 0.0, 4, 4),
        ("paused-scale-in", "false", 0.0, 4, 0),
        ("paused-scale-in", "F", 0.0, 4, 0),
        ("paused-scale-in", "fAlSe", 0.0, 4, 4),
        ("paused-scale-in", "true", 9.0, 0, 1),
        ("paused-scale-out", "true", 9.0, 0, 0),
        ("paused-scale-out", "0", 9.0, 0, 1),
        ("paused-scale-out", "true", 0.0, 4, 0),
        ("force-activation", "true", 0.0, 0, 1),
        ("force-activation", "true", 0.0, 4, 4),
        ("force-activation", "false", 0.0, 0, 0),
    ],
)
def test_annotations_steer_the_executor(
    annotation: str, value: str, metric: float, replicas: int, expected: int
) -> None:
    """Each pause blocks its own direction, forcing counts as active, and any non-boolean text means true."""
    assert _poll(_spec({annotation: value}), metric, replicas).replicas == expected


def test_a_blocked_wake_is_not_activity() -> None:
    """While scale-out is paused at zero, work does not start the cooldown clock."""
    assert _poll(_spec({"paused-scale-out": "true"}), 9.0, 0).state.last_active is None


@pytest.mark.parametrize(("limit", "replicas", "expected"), [(None, 5, 0), (1, 5, 5), (1, 1, 0), (4, 5, 5), (4, 4, 0)])
def test_the_last_step_to_zero_can_wait_for_the_drain(limit: int | None, replicas: int, expected: int) -> None:
    """scaleToZeroFrom keeps the cooldown from jumping past scale-down policies; unset, KEDA's rule stands."""
    spec = _spec().model_copy(update={"scale_to_zero_from": limit})
    assert _poll(spec, 0.0, replicas).replicas == expected


def test_fallback_starts_after_threshold_plus_one_failures() -> None:
    """With threshold 2, the third failed read in a row wakes the fleet from zero; a success starts over."""
    spec = _spec(fallback={"failureThreshold": 2, "replicas": 6})
    state, sizes = NEVER, []
    for now, value in enumerate([None, None, 0.0, None, None, None]):
        state, replicas, _ = _poll(spec, value, 0, float(now), state)
        sizes.append(replicas)
    assert sizes == [0, 0, 0, 0, 0, 1]


def test_failures_are_counted_per_trigger() -> None:
    """Two triggers failing alternately never reach the threshold together."""
    spec = _spec(
        triggers=[{"name": "a", "target": 1.0}, {"name": "b", "target": 1.0}],
        fallback={"failureThreshold": 1, "replicas": 6},
    )
    state = NEVER
    for now, values in enumerate([{"a": None, "b": 0.0}, {"a": 0.0, "b": None}] * 3):
        state, replicas, _ = poll(spec, state, Observation(values, 0), float(now))
        assert replicas == 0


FORMULA = {"formula": "a + b", "target": "8", "activationTarget": "5"}
TWO_TRIGGERS = [{"name": "a", "target": 1.0}, {"name": "b", "target": 1.0}]


@pytest.mark.parametrize(
    ("values", "replicas"),
    [
        ({"a": 2.0, "b": 3.0}, 0),
        ({"a": 2.0, "b": 3.5}, 1),
        ({"a": 2.0, "b": 3.0004}, 0),
        ({"a": 60.0, "b": -60.0}, 1),
        ({"a": 99.0, "b": None}, 0),
    ],
)
def test_a_formula_decides_activity_alone(values: dict[str, float | None], replicas: int) -> None:
    """Only the formula's value, in three decimals, counts against activationTarget; any failure means inactive."""
    spec = _spec(triggers=TWO_TRIGGERS, scalingModifiers=FORMULA)
    assert poll(spec, NEVER, Observation(values, 0), 10.0).replicas == replicas


def test_a_failed_trigger_under_a_formula_holds() -> None:
    """A formula with a failed trigger is inactive, yet the error keeps the fleet from scaling to zero."""
    spec = _spec(triggers=TWO_TRIGGERS, scalingModifiers=FORMULA)
    decision = poll(spec, State(0.0, last_active=0.0), Observation({"a": 99.0, "b": None}, 4), 10_000.0)
    assert (decision.replicas, decision.reason) == (4, "TriggerError")


def test_nil_reaching_arithmetic_holds() -> None:
    """A failed trigger that the formula has no substitute for is an error, not an idle queue."""
    spec = _spec(
        triggers=TWO_TRIGGERS,
        scalingModifiers=FORMULA,
        fallback={"failureThreshold": 0, "replicas": 2, "behavior": "scalingModifiers"},
    )
    decision = poll(spec, State(0.0, last_active=0.0), Observation({"a": 0.0, "b": None}, 4), 10_000.0)
    assert (decision.replicas, decision.reason) == (4, "TriggerError")


def test_a_substitute_keeps_the_formula_alive() -> None:
    """Under fallback behavior scalingModifiers, a failed trigger is nil and ``??`` takes the next one."""
    spec = _spec(
        triggers=TWO_TRIGGERS,
        scalingModifiers={"formula": "a ?? b", "target": "8"},
        fallback={"failureThreshold": 0, "replicas": 2, "behavior": "scalingModifiers"},
    )
    assert poll(spec, NEVER, Observation({"a": None, "b": 3.0}, 0), 10.0).replicas == 1
    assert poll(spec, NEVER, Observation({"a": None, "b": 0.0}, 0), 10.0).replicas == 0


@pytest.mark.parametrize(("target", "replicas"), [("8", 1), ("+8", 1), ("6.4", 0), ("8.0", 0), ("1e1", 0)])
def test_a_fractional_target_disables_the_fallback(target: str, replicas: int) -> None:
    """Under a formula, KEDA honours the fallback only if the target reads as an integer."""
    spec = _spec(
        triggers=TWO_TRIGGERS,
        scalingModifiers={"formula": "a + b", "target": target},
        fallback={"failureThreshold": 0, "replicas": 2},
    )
    assert poll(spec, NEVER, Observation({"a": None, "b": 1.0}, 0), 10.0).replicas == replicas


def _reference(  # the executor of KEDA, written as its documentation words it
    spec: ScalingSpec, last_active: float | None, value: float | None, cur: int, now: float
) -> tuple[int, float | None]:
    idle, minimum = spec.idle_replica_count, spec.min_replica_count
    is_error, is_active = value is None, value is not None and value > 0
    if is_active:
        if (idle is not None and cur < minimum) or cur == 0:
            return (minimum if minimum > 0 else 1), now
        return cur, now
    if is_error and (spec.fallback is None or spec.fallback.replicas != 0):
        return cur, last_active
    if (idle is not None and cur > idle) or (cur > 0 and minimum == 0):
        start = spec.initial_cooldown_period if last_active is None else last_active + spec.cooldown_period
        return ((idle if idle is not None else minimum) if start < now else cur), last_active
    if idle is None and cur < minimum:
        return minimum, last_active
    return cur, last_active


@patient
@given(
    st.sampled_from([(0, None), (2, None), (2, 0)]),
    st.sampled_from([None, {"failureThreshold": 99, "replicas": 0}, {"failureThreshold": 99, "replicas": 3}]),
    st.lists(st.tuples(st.sampled_from([None, 0.0, 5.0]), st.integers(0, 4), st.integers(0, 40)), max_size=12),
)
def test_executor_agrees_with_its_description(
    counts: tuple[int, int | None], fallback: dict[str, int] | None, steps: list[tuple[float | None, int, int]]
) -> None:
    """Over random histories the executor and a literal reading of its description never part."""
    minimum, idle = counts
    spec = _spec(
        minReplicaCount=minimum, idleReplicaCount=idle, fallback=fallback, cooldownPeriod=30, initialCooldownPeriod=20
    )
    state, last_active, now = NEVER, None, 0.0
    for value, replicas, pause in steps:
        now += pause
        decision = _poll(spec, value, replicas, now, state)
        expected, last_active = _reference(spec, last_active, value, replicas, now)
        assert (decision.replicas, decision.state.last_active) == (expected, last_active)
        state = decision.state
