"""What the process holds while it runs, opened at its start and closed at its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request

from api import housekeeping
from api.capacity import Capacity
from api.catalogue import Catalogue
from api.ending import end_tasks
from api.health_checks import HealthChecks
from api.job_reader import JobReader
from api.own_metrics import OwnMetrics
from api.stored_answers import StoredAnswers
from api.waiting_room import WaitingRoom
from dspy_jobs.redis_url import redis_url
from dspy_jobs.settings import Settings
from dspy_jobs.store import AsyncStore, connect_async


@dataclass(frozen=True, slots=True)
class Resources:
    """Everything a handler needs."""

    settings: Settings
    store: AsyncStore
    catalogue: Catalogue
    capacity: Capacity
    jobs: JobReader
    room: WaitingRoom
    answers: StoredAnswers
    own_metrics: OwnMetrics
    health: HealthChecks
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)

    def start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Do something beside requests; it is not lost when its request is."""
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task


@asynccontextmanager
async def open_resources(settings: Settings, own_metrics: OwnMetrics) -> AsyncIterator[Resources]:
    """Connect to Redis (it need not be there yet) and start what runs beside requests."""
    url = redis_url(settings)
    store = AsyncStore(connect_async(url), own_metrics.redis_durations.observe)
    catalogue = Catalogue(store)
    room = WaitingRoom(connect_async(url), catalogue.expire)
    capacity, jobs, answers = Capacity(store), JobReader(store), StoredAnswers(settings)
    checks = HealthChecks(settings, catalogue)
    resources = Resources(settings, store, catalogue, capacity, jobs, room, answers, own_metrics, checks)
    resources.start(room.listen())
    resources.start(checks.watch_failures())
    resources.start(housekeeping.keep_house(store, settings))
    try:
        yield resources
    finally:
        room.close()
        await end_tasks(resources.tasks)
        await checks.close()
        await store.close()
        await resources.answers.close()
        await room.disconnect()


def resources_of(request: Request) -> Resources:
    """The resources of the application a request came to."""
    resources = request.app.state.resources
    assert isinstance(resources, Resources)
    return resources
