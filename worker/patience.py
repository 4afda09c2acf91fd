"""Leaving a failed server alone for a while, and finding out that it is back with one try instead of everybody's."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Patience:
    """Whether a server may be used: after a failure nobody for a while, then one at a time until it has answered.

    Thread-safe, and holds no lock while the server is used.
    """

    def __init__(self, seconds: float, now: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._now = now
        self._lock = threading.Lock()
        self._until: float | None = None
        """When it may be tried again; None while all is well."""
        self._is_tried = False

    def ask(self) -> bool | None:
        """None: leave it alone. Else use it and hand this to `answered` or say `failed`: whether this is the try."""
        with self._lock:
            if self._until is None:
                return False
            if self._is_tried or self._now() < self._until:
                return None
            self._is_tried = True
            return True

    def answered(self, is_try: bool) -> None:
        """It answered: after a try, everybody may use it again. Who had begun before the failure proves nothing."""
        if is_try:
            with self._lock:
                self._until, self._is_tried = None, False

    def failed(self) -> None:
        """It failed."""
        with self._lock:
            self._until, self._is_tried = self._now() + self._seconds, False
