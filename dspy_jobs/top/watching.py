"""Reads the service again and again, through its absences, and hands what is to be shown to whoever draws."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from dspy_jobs.client import ApiError, Client, ServiceUnreachable
from dspy_jobs.top.frame import Frame, History, Reading
from dspy_jobs.top.samples import Samples
from dspy_jobs.top.screen import Lost, present

#: Seconds rates are made over: few enough to see a change, enough not to flicker.
WINDOW_SECONDS = 60.0


def read(client: Client) -> Reading:
    """The service as it is now.

    Raises:
        ServiceUnreachable: it does not answer.
        ApiError: what answers is no dspy-jobs.
    """
    health = client.health()
    return Reading(
        time.monotonic(), health, _samples(client) if health.components.redis.status != "unhealthy" else None
    )


def _samples(client: Client) -> Samples | None:
    """The numbers; None where a scrape cannot be answered whole or in time, of which health says why."""
    try:
        samples = Samples(client.metrics())
        return None if samples.total("dspy_redis_up") == 0 else samples
    except (ApiError, ServiceUnreachable, ValueError):
        return None


@dataclass
class Watch:
    """What is known of a service that is looked at now and then."""

    client: Client
    clock: Callable[[], datetime] = present
    frame: Frame | None = None
    """The last one."""
    lost: Lost | None = None
    """Since when it has not answered, if it does not."""
    _history: History = field(default_factory=lambda: History(WINDOW_SECONDS))

    def look(self) -> None:
        """Look once. What is wrong with the way there is kept, not raised."""
        try:
            reading = read(self.client)
        except (ServiceUnreachable, ApiError) as error:
            reason = str(error.__cause__ or error) if isinstance(error, ServiceUnreachable) else str(error)
            self.lost = Lost(self.lost.since if self.lost else self.clock(), reason)
            # Rates over the time of its absence would be told as those of the present.
            self._history = History(WINDOW_SECONDS)
        else:
            self.frame, self.lost = self._history.add(reading), None
