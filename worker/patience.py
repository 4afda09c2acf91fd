"""Leaving a failed server alone for a while, and finding out that it is back with one try instead of everybody's."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

#: Failures beside answers, within the time of one wait, after which it is the server all the same.
_MOST_FORGIVEN = 5


class Use(NamedTuple):
    """A use of the server that is under way."""

    is_try: bool
    """Whether it is the one that finds out if the server is back."""
    began: float


class Patience:
    """Whether a server may be used: after a failure nobody for a while, then one at a time until it has answered.

    A use that failed while others were answered says that this process is slow, not the server. Thread-safe, and holds
    no lock while the server is used.
    """

    def __init__(self, seconds: float, now: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._now = now
        self._lock = threading.Lock()
        self._until: float | None = None
        """When it may be tried again; None while all is well."""
        self._is_tried = False
        self._answered_at = float("-inf")
        self._forgiven: deque[float] = deque(maxlen=_MOST_FORGIVEN)
        """When failures were last taken for our own."""

    def ask(self) -> Use | None:
        """None: leave it alone. Else use it, and hand this to `answered` or `failed`."""
        with self._lock:
            now = self._now()
            if self._until is None:
                return Use(False, now)
            if self._is_tried or now < self._until:
                return None
            self._is_tried = True
            return Use(True, now)

    def answered(self, use: Use) -> None:
        """It answered: after a try, everybody may use it again. Who had begun before the failure proves nothing."""
        with self._lock:
            if use.is_try:
                self._until, self._is_tried = None, False
            if self._until is None:
                self._answered_at = self._now()

    def failed(self, use: Use | None = None) -> None:
        """It failed. Where that is certain no use is named: what others were answered then does not count."""
        with self._lock:
            if use and not use.is_try and self._answered_at > use.began and self._is_forgiven():
                return
            self._until, self._is_tried = self._now() + self._seconds, False

    def _is_forgiven(self) -> bool:
        """Whether this failure is one of few."""
        now = self._now()
        is_one_of_many = len(self._forgiven) == _MOST_FORGIVEN and now - self._forgiven[0] < self._seconds
        self._forgiven.append(now)
        return not is_one_of_many
