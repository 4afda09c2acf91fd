"""Turns what the triggers read into what the loops use: activity, metrics, and fallback for both.

Follows KEDA's ``pkg/scaling/scale_handler.go``, ``pkg/fallback/fallback.go`` and
``pkg/scaling/modifiers/formula.go``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from autoscaler.formula import FormulaError
from autoscaler.quantity import MAX_MILLI, approximate, milli
from autoscaler.spec import Fallback, MetricType, ScalingModifiers, ScalingSpec, Trigger

#: The same as a float, for sums that leave the range of integers.
_MOST_MILLI = float(MAX_MILLI)


@dataclass(frozen=True)
class Metric:
    """One external metric of the HPA in thousandths; ``usage`` is None if it cannot be had."""

    usage: int | None
    target: int
    metric_type: MetricType


class Activity(NamedTuple):
    """Whether there is work, whether some trigger failed without a fallback, whether one is in fallback."""

    is_active: bool
    is_error: bool
    is_fallback: bool


@dataclass(frozen=True)
class Readings:
    """One loop run's values, sorted into read, failed, and failed long enough for the fallback."""

    spec: ScalingSpec
    values: Mapping[str, float | None]
    failures: Mapping[str, int]

    def is_fallen(self, name: str) -> bool:
        """Whether a trigger has failed more than ``failureThreshold`` reads in a row (strictly more)."""
        fallback = self.spec.active_fallback
        return (
            fallback is not None
            and self.values[name] is None
            and self.failures.get(name, 0) > fallback.failure_threshold
        )

    @property
    def any_fallen(self) -> bool:
        """Whether the fallback applies to some trigger."""
        return any(self.is_fallen(trigger.name) for trigger in self.spec.triggers)

    @property
    def any_failed(self) -> bool:
        """Whether some trigger failed and no fallback applies to it."""
        return any(self.values[t.name] is None and not self.is_fallen(t.name) for t in self.spec.triggers)


def count_failures(
    spec: ScalingSpec, failures: Mapping[str, int], values: Mapping[str, float | None], *, from_cache: bool
) -> Mapping[str, int]:
    """Count one more read of each trigger: a failure adds one, a success clears (``GetMetricsWithFallback``).

    ``from_cache`` is True in the HPA's loop, where ``useCachedMetrics`` saves the second read of a trigger.
    """
    if spec.active_fallback is None:
        return {}
    return {trigger.name: _count(trigger, failures, values[trigger.name], from_cache) for trigger in spec.triggers}


def _count(trigger: Trigger, failures: Mapping[str, int], value: float | None, from_cache: bool) -> int:
    before = failures.get(trigger.name, 0)
    if from_cache and trigger.use_cached_metrics:
        return before
    return before + 1 if value is None else 0


def activity(readings: Readings) -> Activity:
    """Tell whether the object is active (``getScaledObjectState``); a trigger in fallback counts as such."""
    modifiers = readings.spec.scaling_modifiers
    if modifiers is not None:
        return _composite_activity(readings, modifiers)
    is_above = any(_is_above(readings.values[t.name], t.activation) for t in readings.spec.triggers)
    return Activity(is_above or readings.any_fallen, readings.any_failed, readings.any_fallen)


def _is_above(value: float | None, threshold: float) -> bool:
    """Activation is strictly greater (``redis_scaler.go``, ``metrics_api_scaler.go``)."""
    return value is not None and value > threshold


def _composite_activity(readings: Readings, modifiers: ScalingModifiers) -> Activity:
    """With a formula only its result counts, and any failed trigger makes the object inactive."""
    if readings.any_failed:
        return Activity(is_active=False, is_error=True, is_fallback=readings.any_fallen)
    if readings.any_fallen and not _substitutes_nil(readings.spec.active_fallback):
        return Activity(is_active=True, is_error=False, is_fallback=True)
    usage = _formula_usage(readings, modifiers)
    is_above = usage is not None and approximate(usage) > float(modifiers.activation_target)
    return Activity(is_above, usage is None, readings.any_fallen)


def metrics(readings: Readings, replicas: int, ready: int) -> tuple[Metric, ...]:
    """Return what the HPA sees: one metric per trigger, or the one composite metric of a formula."""
    modifiers = readings.spec.scaling_modifiers
    if modifiers is not None:
        return (_composite_metric(readings, modifiers, replicas, ready),)
    return tuple(_trigger_metric(readings, trigger, replicas, ready) for trigger in readings.spec.triggers)


def _trigger_metric(readings: Readings, trigger: Trigger, replicas: int, ready: int) -> Metric:
    value = readings.values[trigger.name]
    usage = None if value is None else milli(value)
    fallback = readings.spec.active_fallback
    if fallback is not None and readings.is_fallen(trigger.name) and not _substitutes_nil(fallback):
        usage = _fallback_usage(fallback, trigger.target, trigger.metric_type, replicas, ready)
    return Metric(usage, milli(trigger.target), trigger.metric_type)


def _composite_metric(readings: Readings, modifiers: ScalingModifiers, replicas: int, ready: int) -> Metric:
    fallback, target = readings.spec.active_fallback, float(modifiers.target)
    if fallback is not None and readings.any_fallen and not _substitutes_nil(fallback):
        usage = _fallback_usage(fallback, target, modifiers.metric_type, replicas, ready)
    else:
        usage = None if readings.any_failed else _formula_usage(readings, modifiers)
    return Metric(usage, _cut(target), modifiers.metric_type)


def _substitutes_nil(fallback: Fallback | None) -> bool:
    """Whether failed triggers become nil for ``??`` instead of a fixed size (KEDA 2.20 and later)."""
    return fallback is not None and fallback.behavior == "scalingModifiers"


def _formula_usage(readings: Readings, modifiers: ScalingModifiers) -> int | None:
    """Run the formula over values of three decimals, and cut its result to three (``SetMilli``).

    A formula whose result is nil assumes the fallback's replicas. Nil inside arithmetic is a failed read:
    KEDA logs it and may then scale in on no metric at all, which nobody wants.
    """
    values = {name: None if value is None else approximate(milli(value)) for name, value in readings.values.items()}
    try:
        result = modifiers.formula.evaluate(values)
    except FormulaError:
        return None
    if result is None:
        fallback = readings.spec.active_fallback
        return None if fallback is None else _cut(fallback.replicas * float(modifiers.target))
    return _cut(result)


def _cut(value: float) -> int:
    """Thousandths without what is beyond them, as Go cuts them; 0 for NaN and infinity, of which Go makes anything."""
    if not math.isfinite(value):
        return 0
    return int(max(-_MOST_MILLI, min(value * 1000, _MOST_MILLI)))


def _fallback_usage(
    fallback: Fallback, target: float, metric_type: MetricType, replicas: int, ready: int
) -> int | None:
    """Return the metric that lands on the fallback size (``doFallback``); None without a ready replica."""
    size = float(fallback_replicas(fallback, replicas))
    if metric_type == "Value":
        if ready == 0:
            return None
        size /= ready
    return int(min(target * 1000 * size, _MOST_MILLI))


def fallback_replicas(fallback: Fallback, replicas: int) -> int:
    """Return the size the fallback assumes, given the current one."""
    sizes = {
        "currentReplicas": replicas,
        "currentReplicasIfHigher": max(replicas, fallback.replicas),
        "currentReplicasIfLower": min(replicas, fallback.replicas),
    }
    return sizes.get(fallback.behavior, fallback.replicas)
