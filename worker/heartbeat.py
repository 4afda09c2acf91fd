"""The file in which a worker says that it lives, for whoever supervises it without asking Redis.

The housekeeping thread writes it every round, whether Redis answers or not: a restart mends a worker whose
housekeeping hangs and so renews no lease, but never a Redis that is away. `python -m worker.probe` reads it, in a
process of its own that must stay light; so nothing but the standard library is imported here.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Literal

#: What a worker is up to: not consuming yet, consuming, or ending what it runs.
Phase = Literal["starting", "ready", "draining"]

#: Leases that may run out without a sign of life before the worker counts as dead.
_LEASES = 3
#: Seconds without a question for messages, which a consumer asks every second, from which a worker does not consume.
DEAF_SECONDS = 10.0
#: Twice the time after which the watchdog ends such a worker: from then on it needs somebody else to do it.
HOPELESS_SECONDS = 120.0


class Heartbeat:
    """Says that this worker lives, and what it is up to. Without a path it says nothing."""

    def __init__(self, path: Path | None, lease_seconds: float) -> None:
        self._path = path
        self._good_for = _LEASES * lease_seconds
        self._beat_at = time.monotonic()
        self.phase: Phase = "starting"

    def age(self) -> float:
        """Seconds since the last beat; before the first, since the worker was made."""
        return time.monotonic() - self._beat_at

    @property
    def is_overdue(self) -> bool:
        """Whether the last beat is no longer good."""
        return self.age() > self._good_for

    def beat(self, silent_seconds: float = 0.0) -> None:
        """Write the file anew, in one step, so that nobody reads half of it.

        Args:
            silent_seconds: how long the consumer has not asked for a message.

        Raises:
            OSError: the file cannot be written.
        """
        self._beat_at = time.monotonic()
        if self._path is None:
            return
        unfinished = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        now = time.time()
        beat = {"phase": self.phase, "good_until": now + self._good_for, "asked_at": now - silent_seconds}
        unfinished.write_text(json.dumps(beat))
        unfinished.replace(self._path)

    def end(self) -> None:
        """Remove the file: this worker has stopped."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)


def complaint_about(path: Path, must_be_ready: bool, now: float) -> str | None:
    """What is wrong with the worker that writes this file at `now` (seconds since the epoch), or None."""
    try:
        beat = json.loads(path.read_text())
    except OSError as error:
        return f"{path}: {error.strerror}: the worker has not started yet, or has no worker.heartbeat_file"
    if now > beat["good_until"]:
        return f"no sign of life for {now - beat['good_until']:.0f} seconds more than its leases allow"
    if must_be_ready and beat["phase"] != "ready":
        return f"the worker is {beat['phase']}"
    silent = now - beat["asked_at"]
    if beat["phase"] == "ready" and silent > (DEAF_SECONDS if must_be_ready else HOPELESS_SECONDS):
        return f"its consumer has not asked for messages for {silent:.0f} seconds"
    return None
