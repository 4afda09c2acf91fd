"""What a decision remembers and what it sees: plain frozen data, so that equal input gives equal output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple


class Recommendation(NamedTuple):
    """A size the metrics asked for at a time (seconds), before windows and policies."""

    time: float
    replicas: int


class ScaleEvent(NamedTuple):
    """A change of size the HPA made at a time (seconds); ``change`` is positive in either direction."""

    time: float
    change: int


@dataclass(frozen=True)
class HpaState:
    """The HPA's memory of one target; ``recommendations`` is None until the target is first seen."""

    recommendations: tuple[Recommendation, ...] | None = None
    scale_ups: tuple[ScaleEvent, ...] = ()
    scale_downs: tuple[ScaleEvent, ...] = ()


@dataclass(frozen=True)
class State:
    """Everything carried from one decision to the next. Times are seconds on one clock.

    ``failures`` counts failed reads in a row by trigger, kept only while a fallback applies.
    """

    created: float
    last_active: float | None = None
    failures: Mapping[str, int] = field(default_factory=dict)
    hpa: HpaState = HpaState()


@dataclass(frozen=True)
class Observation:
    """One look at the world: a value per trigger name (None: the read failed) and the current size.

    ``status`` is the number of replicas that exist, ``ready`` of those that work; both default to the size
    asked for. ``keda_due`` and ``hpa_due`` say which of the two loops runs now, the executor before the HPA.
    """

    values: Mapping[str, float | None]
    replicas: int
    status: int | None = None
    ready: int | None = None
    keda_due: bool = True
    hpa_due: bool = True


class Decision(NamedTuple):
    """The next state, the size to have, and why, in KEDA's and the HPA's words."""

    state: State
    replicas: int
    reason: str
