"""How long to wait before a worker that died is started again."""

from __future__ import annotations

from dataclasses import dataclass

#: Kubernetes waits 10 s and then ever longer up to 300; a laptop's user would rather not wait the first ten.
FIRST_PAUSE_SECONDS, LAST_PAUSE_SECONDS = 1.0, 300.0
#: A worker that lived this long was well: its next death is a first one again.
WELL_SECONDS = 60.0


@dataclass
class CrashLoop:
    """One replica's deaths in a row. Times are seconds on one clock."""

    deaths: int = 0
    not_before: float = float("-inf")

    def died(self, now: float, lived_seconds: float) -> float:
        """Note a death and return how many seconds to wait before the next start."""
        self.deaths = 1 if lived_seconds >= WELL_SECONDS else self.deaths + 1
        pause = min(FIRST_PAUSE_SECONDS * 2.0 ** min(self.deaths - 1, 30), LAST_PAUSE_SECONDS)
        self.not_before = now + pause
        return pause

    def may_start(self, now: float) -> bool:
        """Whether it may be started again."""
        return now >= self.not_before
