"""KEDA's own loop: between zero (or idle) and the minimum, nothing else.

Follows ``pkg/scaling/executor/scale_scaledobjects.go`` (``RequestScale``) of KEDA 2.20.
"""

from __future__ import annotations

from dataclasses import replace

from autoscaler.metric import Activity, Readings, activity, count_failures
from autoscaler.spec import ScalingSpec
from autoscaler.state import Decision, Observation, State


def poll(spec: ScalingSpec, state: State, observation: Observation, now: float) -> Decision:
    """Run the executor once. The reasons are KEDA's condition reasons where it has one."""
    failures = count_failures(spec, state.failures, observation.values, from_cache=False)
    state = replace(state, failures=failures)
    seen = activity(Readings(spec, observation.values, failures))
    if seen.is_active or spec.annotations.force_activation:
        return _active(spec, state, seen, observation.replicas, now)
    return _inactive(spec, state, seen, observation.replicas, now)


def _active(spec: ScalingSpec, state: State, seen: Activity, replicas: int, now: float) -> Decision:
    idles = spec.idle_replica_count is not None and replicas < spec.min_replica_count
    if idles or replicas == 0:
        if spec.annotations.paused_scale_out:
            return Decision(state, replicas, "ScaleOutPaused")
        # Waking goes to the minimum or 1, never to ceil(metric / target): that is the HPA's next step.
        return Decision(replace(state, last_active=now), max(spec.min_replica_count, 1), _active_reason(seen))
    if seen.is_error:
        return Decision(state, replicas, "PartialTriggerError")
    return Decision(replace(state, last_active=now), replicas, _active_reason(seen))


def _active_reason(seen: Activity) -> str:
    return "Fallback" if seen.is_fallback else "ScalerActive"


def _inactive(spec: ScalingSpec, state: State, seen: Activity, replicas: int, now: float) -> Decision:
    if seen.is_error and _holds_on_error(spec):
        return Decision(state, replicas, "TriggerError")
    if _may_rest(spec, replicas):
        return _rest(spec, state, replicas, now)
    if spec.idle_replica_count is None and replicas < spec.min_replica_count:
        return Decision(state, spec.min_replica_count, "TooFewReplicas")
    return Decision(state, replicas, "ScalerNotActive")


def _holds_on_error(spec: ScalingSpec) -> bool:
    """An error holds the size, except with ``fallback.replicas: 0``, which KEDA lets fall through to zero."""
    return spec.fallback is None or spec.fallback.replicas != 0


def _may_rest(spec: ScalingSpec, replicas: int) -> bool:
    if spec.idle_replica_count is not None and replicas > spec.idle_replica_count:
        return True
    return replicas > 0 and spec.min_replica_count == 0


def _rest(spec: ScalingSpec, state: State, replicas: int, now: float) -> Decision:
    """Go to idle or zero in one step once the cooldown is over (``scaleToZeroOrIdle``)."""
    if spec.annotations.paused_scale_in:
        return Decision(state, replicas, "ScaleInPaused")
    if not _is_cooled_down(spec, state, now):
        return Decision(state, replicas, "ScalerCooldown")
    if spec.scale_to_zero_from is not None and replicas > spec.scale_to_zero_from:
        return Decision(state, replicas, "ScaleToZeroFrom")
    resting = spec.min_replica_count if spec.idle_replica_count is None else spec.idle_replica_count
    return Decision(state, resting, "ScalerNotActive")


def _is_cooled_down(spec: ScalingSpec, state: State, now: float) -> bool:
    """Strictly after the last active poll; an object never active counts from its creation instead."""
    if state.last_active is None:
        return state.created + spec.initial_cooldown_period < now
    return state.last_active + spec.cooldown_period < now
