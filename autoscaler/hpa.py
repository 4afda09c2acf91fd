"""The HPA's loop: between one and the maximum, with stabilisation windows and rate policies.

Follows Kubernetes' ``pkg/controller/podautoscaler/horizontal.go``. Without ``behavior`` the older rules
apply, whose window can also push replicas up; with it, even empty, the newer ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from autoscaler.metric import Metric
from autoscaler.recommendation import Size, recommend_all, tolerances_of
from autoscaler.spec import Behavior, Policy, ScalingRules
from autoscaler.state import HpaState, Recommendation, ScaleEvent

#: ``--horizontal-pod-autoscaler-downscale-stabilization``, in seconds, used where ``behavior`` is absent.
DOWNSCALE_STABILIZATION = 300

#: No window or period may be longer, in seconds; older memories can never matter.
_LONGEST_WINDOW = 3600
_LONGEST_PERIOD = 1800


@dataclass(frozen=True)
class HpaSpec:
    """The generated HPA: its bounds and its behavior, None for the older rules."""

    min_replicas: int
    max_replicas: int
    behavior: Behavior | None


class Limited(NamedTuple):
    """A size, and the HPA's condition reason for it."""

    replicas: int
    reason: str


class Synced(NamedTuple):
    """What one HPA sync leaves behind."""

    state: HpaState
    replicas: int
    reason: str


def sync(spec: HpaSpec, state: HpaState, metrics: Sequence[Metric], size: Size, now: float) -> Synced:
    """Run the HPA once (``reconcileAutoscaler``)."""
    state = _first_sight(state, size.replicas, now)
    if size.replicas == 0 and spec.min_replicas > 0:
        return Synced(state, 0, "ScalingDisabled")
    # Outside the bounds the size is corrected at once, past windows and policies.
    if size.replicas > spec.max_replicas:
        return _rescaled(spec, state, size.replicas, Limited(spec.max_replicas, "TooManyReplicas"), now)
    if size.replicas < spec.min_replicas:
        return _rescaled(spec, state, size.replicas, Limited(spec.min_replicas, "TooFewReplicas"), now)
    return _follow_metrics(spec, state, metrics, size, now)


def _first_sight(state: HpaState, replicas: int, now: float) -> HpaState:
    """``recordInitialRecommendation``: the size found counts as a recommendation, even 0."""
    if state.recommendations is not None:
        return state
    return replace(state, recommendations=(Recommendation(now, replicas),))


def _follow_metrics(spec: HpaSpec, state: HpaState, metrics: Sequence[Metric], size: Size, now: float) -> Synced:
    raw = recommend_all(metrics, size, tolerances_of(spec.behavior))
    if raw is None:
        return Synced(state, size.replicas, "FailedGetExternalMetric")
    stable, limited = _normalize(spec, state, raw, size.replicas, now)
    reason = _reason(limited, stable, raw, size.replicas)
    return _rescaled(spec, _recorded(state, raw, now), size.replicas, Limited(limited.replicas, reason), now)


def _normalize(spec: HpaSpec, state: HpaState, raw: int, current: int, now: float) -> tuple[int, Limited]:
    past = state.recommendations or ()
    if spec.behavior is None:
        stable = stabilize_legacy(past, raw, now)
        return stable, limit_legacy(spec, current, stable)
    stable = stabilize(spec.behavior, past, current, raw, now)
    return stable, limit_rate(spec, state, current, stable, now)


def _reason(limited: Limited, stable: int, raw: int, current: int) -> str:
    """Prefer what limited the size over what stabilised it: the limit was applied last."""
    if limited.reason != "DesiredWithinRange" or stable == raw:
        return limited.reason
    return "ScaleUpStabilized" if raw >= current and stable < raw else "ScaleDownStabilized"


def _recorded(state: HpaState, raw: int, now: float) -> HpaState:
    past = tuple(rec for rec in state.recommendations or () if rec.time >= now - _LONGEST_WINDOW)
    return replace(state, recommendations=(*past, Recommendation(now, raw)))


def _rescaled(spec: HpaSpec, state: HpaState, current: int, desired: Limited, now: float) -> Synced:
    """``storeScaleEvent``: only the HPA's own changes count against policies, and only with a behavior."""
    if spec.behavior is not None:
        state = replace(
            state,
            scale_ups=_with_event(state.scale_ups, desired.replicas - current, now),
            scale_downs=_with_event(state.scale_downs, current - desired.replicas, now),
        )
    return Synced(state, desired.replicas, desired.reason)


def _with_event(events: tuple[ScaleEvent, ...], change: int, now: float) -> tuple[ScaleEvent, ...]:
    recent = tuple(event for event in events if event.time > now - _LONGEST_PERIOD)
    return (*recent, ScaleEvent(now, change)) if change > 0 else recent


def stabilize_legacy(
    past: Sequence[Recommendation], raw: int, now: float, window: float = DOWNSCALE_STABILIZATION
) -> int:
    """``stabilizeRecommendation``: the largest of the window, edge inclusive; a stale high pushes up."""
    return max([raw, *(rec.replicas for rec in past if rec.time >= now - window)])


def stabilize(behavior: Behavior, past: Sequence[Recommendation], current: int, raw: int, now: float) -> int:
    """``stabilizeRecommendationWithBehaviors``: windows are strict; a stale high never raises the size."""
    up = min([raw, *_newer(past, now - behavior.scale_up.stabilization_window_seconds)])
    down = max([raw, *_newer(past, now - behavior.scale_down.stabilization_window_seconds)])
    return min(max(current, up), down)


def _newer(past: Sequence[Recommendation], cutoff: float) -> list[int]:
    return [rec.replicas for rec in past if rec.time > cutoff]


def limit_legacy(spec: HpaSpec, current: int, desired: int) -> Limited:
    """``convertDesiredReplicasWithRules``: at most doubling, but 4 may always be reached."""
    ceiling = max(2 * current, 4)
    limit = Limited(ceiling, "ScaleUpLimit")
    if spec.max_replicas <= ceiling:
        limit = Limited(spec.max_replicas, "TooManyReplicas")
    if desired < spec.min_replicas:
        return Limited(spec.min_replicas, "TooFewReplicas")
    return limit if desired > limit.replicas else Limited(desired, "DesiredWithinRange")


def limit_rate(spec: HpaSpec, state: HpaState, current: int, desired: int, now: float) -> Limited:
    """``convertDesiredReplicasWithBehaviorRate``: policies, then bounds; never against the direction."""
    behavior = spec.behavior or Behavior()
    if desired > current:
        limit = _up_limit(spec, scale_up_limit(behavior.scale_up, state, current, now))
        if desired > limit.replicas:
            return limit
    if desired < current:
        limit = _down_limit(spec, scale_down_limit(behavior.scale_down, state, current, now))
        if desired < limit.replicas:
            return limit
    return Limited(desired, "DesiredWithinRange")


def _up_limit(spec: HpaSpec, allowed: int) -> Limited:
    if spec.max_replicas > allowed:
        return Limited(allowed, "ScaleUpLimit")
    return Limited(spec.max_replicas, "TooManyReplicas")


def _down_limit(spec: HpaSpec, allowed: int) -> Limited:
    if spec.min_replicas < allowed:
        return Limited(allowed, "ScaleDownLimit")
    return Limited(spec.min_replicas, "TooFewReplicas")


def scale_up_limit(rules: ScalingRules, state: HpaState, current: int, now: float) -> int:
    """``calculateScaleUpLimitWithScalingRules``: the most the policies allow, never below ``current``."""
    if rules.select_policy == "Disabled":
        return current
    choose = min if rules.select_policy == "Min" else max
    return max(current, choose(_grown(policy, _start(policy, state, current, now)) for policy in rules.policies))


def scale_down_limit(rules: ScalingRules, state: HpaState, current: int, now: float) -> int:
    """``calculateScaleDownLimitWithBehaviors``: the least the policies allow, never above ``current``."""
    if rules.select_policy == "Disabled":
        return current
    choose = max if rules.select_policy == "Min" else min
    return min(current, choose(_shrunk(policy, _start(policy, state, current, now)) for policy in rules.policies))


def _start(policy: Policy, state: HpaState, current: int, now: float) -> int:
    """The size when the policy's period began, as far as the HPA itself changed it since (strictly newer)."""
    cutoff = now - policy.period_seconds
    added = sum(event.change for event in state.scale_ups if event.time > cutoff)
    removed = sum(event.change for event in state.scale_downs if event.time > cutoff)
    return current - added + removed


def _grown(policy: Policy, start: int) -> int:
    if policy.type == "Pods":
        return start + policy.value
    # float64 on purpose: upstream lets 100 grow by 10 % to 111, because 100 * 1.1 is a hair above 110.
    return math.ceil(float(start) * (1 + float(policy.value) / 100))


def _shrunk(policy: Policy, start: int) -> int:
    if policy.type == "Pods":
        return start - policy.value
    return int(float(start) * (1 - float(policy.value) / 100))
