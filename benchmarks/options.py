"""How much is measured: rounds, sizes, and when to stop."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Options:
    """What the command line asked for."""

    rounds: int = 3
    quick: bool = False
    """Sizes divided by ten: to see that everything runs, not to judge it."""
    full: bool = False
    """With the largest sizes, which take minutes each."""
    seconds_limit: float = 3600
    _began: float = field(default_factory=time.monotonic)

    def size(self, number: int) -> int:
        """A number of jobs, smaller if it has to be quick."""
        return max(number // 10, 20) if self.quick else number

    @property
    def time_is_over(self) -> bool:
        """Whether nothing new may begin."""
        return time.monotonic() - self._began >= self.seconds_limit

    def each_round(self) -> Iterator[int]:
        """The rounds, at least one, and no further one once the time is over."""
        for number in range(self.rounds):
            if number and self.time_is_over:
                return
            yield number
