"""From metrics to the size they ask for, before any window or policy.

Follows Kubernetes' ``pkg/controller/podautoscaler/replica_calculator.go`` (1.33 and later: a tolerance per
direction).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from autoscaler.metric import Metric
from autoscaler.spec import DEFAULT_TOLERANCE, Behavior

_MAX_REPLICAS = 2**31 - 1


@dataclass(frozen=True)
class Size:
    """The target's size: asked for (``scale.spec``), existing (``scale.status``), and ready."""

    replicas: int
    status: int
    ready: int


@dataclass(frozen=True)
class Tolerances:
    """Shares by which usage may leave its target before the size changes; both edges are inside."""

    scale_up: float = DEFAULT_TOLERANCE
    scale_down: float = DEFAULT_TOLERANCE

    def is_within(self, ratio: float) -> bool:
        """``Tolerances.isWithin``; not ``abs(1 - ratio)``, which differs in float64 at a ratio of 1.1."""
        return (1.0 - self.scale_down) <= ratio <= (1.0 + self.scale_up)


def tolerances_of(behavior: Behavior | None) -> Tolerances:
    """Return the tolerances a behavior sets, or the cluster's default."""
    if behavior is None:
        return Tolerances()
    return Tolerances(behavior.scale_up.tolerance, behavior.scale_down.tolerance)


def recommend(usage: int, metric: Metric, size: Size, tolerances: Tolerances) -> int:
    """Return the replicas one metric asks for; ``usage`` and the metric's target are thousandths."""
    calculate = _per_pod_replicas if metric.metric_type == "AverageValue" else _value_replicas
    return calculate(usage, metric.target, size, tolerances)


def _per_pod_replicas(usage: int, target: int, size: Size, tolerances: Tolerances) -> int:
    """``GetExternalPerPodMetricReplicas``: ignores ready pods; inside the band it returns the status."""
    if size.status > 0 and tolerances.is_within(float(usage) / (float(target) * float(size.status))):
        return size.status
    return _ceil(float(usage) / float(target))


def _value_replicas(usage: int, target: int, size: Size, tolerances: Tolerances) -> int:
    """``GetExternalMetricReplicas``: multiplies by the ready pods, so it compounds on the current size."""
    ratio = float(usage) / float(target)
    if size.replicas == 0:
        return _ceil(ratio)
    return size.replicas if tolerances.is_within(ratio) else _ceil(ratio * float(size.ready))


def _ceil(replicas: float) -> int:
    return min(math.ceil(replicas), _MAX_REPLICAS)


def recommend_all(metrics: Sequence[Metric], size: Size, tolerances: Tolerances) -> int | None:
    """Return the largest recommendation (``computeReplicasForMetrics``).

    None, meaning that nothing may change, if every metric failed, or if one failed and the rest would scale
    down.
    """
    proposals = [recommend(m.usage, m, size, tolerances) for m in metrics if m.usage is not None]
    if not proposals or (len(proposals) < len(metrics) and max(proposals) < size.replicas):
        return None
    return max(proposals)
