"""What a worker has measured, on its way into what all workers have.

Only what was added since the last report travels, and each report has a number: one that was sent again, because its
answer was lost, adds nothing. While Redis is away the report waits, and what is measured meanwhile goes with the next
one. A worker that is killed takes along what it has not reported yet, at most that of one round.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from dspy_jobs.store.script import Operation
from dspy_jobs.store.workers import report_measures


@dataclass(frozen=True, slots=True)
class _Report:
    operation: Operation[bool]
    totals: dict[str, int]
    """Everything measured up to and with it."""


class FleetReport:
    """The reports of one worker, one after the other. Thread-safe; holds no lock while Redis is waited for."""

    def __init__(self, worker_id: str, measured: Callable[[], dict[str, int]]) -> None:
        """`measured` answers everything measured since the process started."""
        self._worker_id = worker_id
        self._measured = measured
        self._number = 0
        self._sent: dict[str, int] = {}
        self._pending: _Report | None = None
        self._lock = threading.Lock()

    def operations(self) -> list[Operation[bool]]:
        """What is to be sent, if anything: the report that is under way, until it `arrived`."""
        with self._lock:
            if self._pending is None:
                self._pending = self._next()
            return [self._pending.operation] if self._pending else []

    def arrived(self, sent: list[Operation[bool]]) -> None:
        """Redis has answered to what was sent."""
        with self._lock:
            if self._pending and self._pending.operation in sent:
                self._sent, self._pending = self._pending.totals, None

    def _next(self) -> _Report | None:
        totals = self._measured()
        added = {name: more for name, total in totals.items() if (more := total - self._sent.get(name, 0))}
        if not added:
            return None
        self._number += 1
        return _Report(report_measures(self._worker_id, self._number, added), totals)
