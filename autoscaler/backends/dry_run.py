"""Says what it would do, and does nothing."""

from __future__ import annotations

from autoscaler.fleet import Fleet, Unattended


class DryRun(Unattended):
    """An imagined fleet that always has the size asked for last; the loop's own log lines tell of each change."""

    #: It has no workers, so it takes none from anybody who has.
    place = ""

    def __init__(self, replicas: int = 0) -> None:
        """``replicas`` is the size to begin with."""
        self._replicas = replicas

    def fleet(self) -> Fleet:
        """The imagined workers, all ready."""
        return Fleet(self._replicas, self._replicas)

    def scale(self, replicas: int) -> None:
        """Imagine this size."""
        print(f"would scale from {self._replicas} to {replicas} workers", flush=True)
        self._replicas = replicas
