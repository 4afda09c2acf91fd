"""What a job asks of outputs made before, and of jobs that make the same one now."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dspy_jobs.cache_entry import CacheEntry
from dspy_jobs.store.flights import Flight


@dataclass(frozen=True, slots=True)
class Wish:
    """The output a job is after, as far as it may share one with others."""

    key: str
    """The cache key."""
    mode: str
    """`default`, `refresh` or `only`."""
    oldest_ms: float
    """An output made before this time (milliseconds since 1970) is not wanted."""

    @property
    def may_take(self) -> bool:
        """Whether an output made before will do."""
        return self.mode != "refresh"

    def flight(self) -> Flight:
        """How the job shares its run with others."""
        return Flight(self.key, self.may_take, self.mode != "only", math.ceil(self.oldest_ms))

    def accepts(self, entry: CacheEntry) -> bool:
        """Whether a stored output is new enough."""
        return self.may_take and entry.created_at >= self.oldest_ms
