"""What the loop asks of whoever reads the metrics: one value for each trigger, and no invented ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True)
class Reading:
    """One look at the metrics.

    ``values`` has one entry for each trigger; None is a read that failed, for a failure is never 0. ``problems`` says
    why, ``seconds`` how long each read took. ``details`` are the numbers behind the metric (jobs waiting and the
    like), None where they are unknown.
    """

    values: Mapping[str, float | None]
    problems: Mapping[str, str] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    details: Mapping[str, float | None] = field(default_factory=dict)


class Observer(Protocol):
    """Reads every trigger of one ScaledObject."""

    def observe(self) -> Reading:
        """Read all triggers now. Failures are in the answer; nothing is raised for them."""
        ...

    def close(self) -> None:
        """Read no more."""
        ...
