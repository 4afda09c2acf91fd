"""Says what it would do, and does nothing."""

from __future__ import annotations

from autoscaler.fleet import Fleet, Unattended
from autoscaler.loop import Look
from autoscaler.reading import Reading


class DryRun(Unattended):
    """An imagined fleet that always has the size asked for last. ``tell`` prints what would be done, and why."""

    def __init__(self, replicas: int = 0) -> None:
        """``replicas`` is the size to begin with."""
        self._replicas = replicas
        self._said = ""

    def fleet(self) -> Fleet:
        """The imagined workers, all ready."""
        return Fleet(self._replicas, self._replicas)

    def scale(self, replicas: int) -> None:
        """Imagine this size."""
        self._replicas = replicas

    def tell(self, look: Look) -> None:
        """Print one line for a decision, unless it is the same as the last one."""
        line = f"would {_deed(look)}: {look.decision.reason}, {_metric(look.reading)}"
        if line != self._said:
            print(line, flush=True)
        self._said = line


def _deed(look: Look) -> str:
    before, after = look.fleet.replicas, look.decision.replicas
    workers = "worker" if after == 1 else "workers"
    return f"keep {after} {workers}" if after == before else f"scale from {before} to {after} {workers}"


def _metric(reading: Reading) -> str:
    """The metric that the service gives, or else what each trigger said."""
    work = reading.details.get("work")
    values = reading.values if work is None else {"work": work}
    return ", ".join(f"{name} {'unknown' if value is None else f'{value:g}'}" for name, value in values.items())
