"""One decision: KEDA's executor, then the HPA, over one observation; pure, so that it can be replayed."""

from __future__ import annotations

from dataclasses import replace

from autoscaler import hpa, keda
from autoscaler.metric import Readings, count_failures, metrics
from autoscaler.recommendation import Size
from autoscaler.spec import ScalingSpec
from autoscaler.state import Decision, HpaState, Observation, State

#: Reasons that say nothing about why a size stayed as it is.
_UNREMARKABLE = frozenset({"DesiredWithinRange", "ScalingDisabled"})
_ABOUT_SHRINKING = frozenset({"ScaleDownStabilized", "ScaleDownLimit", "TooFewReplicas"})


def decide(spec: ScalingSpec, state: State, observation: Observation, now: float) -> Decision:
    """Return the next state, the size to have, and why. ``now`` is seconds on the clock of ``state``."""
    if spec.annotations.is_paused:
        return _paused(spec, state, observation)
    executed = _poll(spec, state, observation, now)
    synced = _sync(spec, executed, observation, now)
    reason = _reason(spec, observation.replicas, executed, synced)
    return Decision(synced.state, synced.replicas, reason)


def _paused(spec: ScalingSpec, state: State, observation: Observation) -> Decision:
    """A paused object's loop stops and its HPA is deleted, memory included (``handlePause``)."""
    wanted = spec.annotations.paused_replicas
    replicas = observation.replicas if wanted is None else wanted
    return Decision(replace(state, hpa=HpaState()), replicas, "ScaledObjectPaused")


def _poll(spec: ScalingSpec, state: State, observation: Observation, now: float) -> Decision:
    if not observation.keda_due:
        return Decision(state, observation.replicas, "")
    return keda.poll(spec, state, observation, now)


def _sync(spec: ScalingSpec, executed: Decision, observation: Observation, now: float) -> Decision:
    """Run the HPA on the size the executor left."""
    if not observation.hpa_due:
        return Decision(executed.state, executed.replicas, "")
    state, values = executed.state, observation.values
    failures = count_failures(spec, state.failures, values, from_cache=True)
    readings = Readings(spec, values, failures)
    size = _size(observation, executed.replicas)
    generated = hpa.HpaSpec(spec.hpa_min_replicas, spec.max_replica_count, spec.hpa_behavior)
    synced = hpa.sync(generated, state.hpa, metrics(readings, size.replicas, size.ready), size, now)
    reason = "Fallback" if readings.any_fallen and synced.reason == "DesiredWithinRange" else synced.reason
    return Decision(replace(state, failures=failures, hpa=synced.state), synced.replicas, reason)


def _size(observation: Observation, replicas: int) -> Size:
    status = replicas if observation.status is None else observation.status
    return Size(replicas, status, replicas if observation.ready is None else observation.ready)


def _reason(spec: ScalingSpec, before: int, executed: Decision, synced: Decision) -> str:
    """Name the loop that changed the size; if none did, what held it back."""
    if synced.replicas != executed.replicas or not executed.reason:
        return synced.reason
    if executed.replicas != before or _is_unremarkable(spec, synced):
        return executed.reason
    return synced.reason or executed.reason


def _is_unremarkable(spec: ScalingSpec, synced: Decision) -> bool:
    """Whether the HPA held nothing back: at its minimum it never goes down, whatever it says."""
    if synced.replicas <= spec.hpa_min_replicas and synced.reason in _ABOUT_SHRINKING:
        return True
    return synced.reason in _UNREMARKABLE
