"""Looks at what may hang, for whoever asks: shared, so that they do not pile up, and waited for only so long."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeout

from api.ending import end_tasks

T = TypeVar("T")

#: Turns of the event loop after the wait in which an answer that lies there already is still taken: with a large upload
#: at work it may be this process that was late.
_GRACES = 20


@dataclass(frozen=True, slots=True)
class Known(Generic[T]):
    """What a look found."""

    value: T
    at: float
    """When, in seconds since 1970."""


@dataclass(frozen=True, slots=True)
class Seen(Generic[T]):
    """What can be said now: all is well unless there is an `error`, or the look under way `hangs`."""

    known: Known[T] | None
    """What was found last, however long ago that is."""
    error: Exception | None = None
    """Why the last look found nothing."""
    hangs: float = 0.0
    """Seconds for which nobody has had an answer, over however many looks; 0 unless one is under way without."""

    @property
    def is_fresh(self) -> bool:
        """Whether `known` is what was found just now."""
        return self.known is not None and self.error is None and not self.hangs


class Look(Generic[T]):
    """One way of looking, such as a command to a server, that any number of requests share.

    Whoever asks while a look is under way waits for its answer, at most until it is `patience` seconds old. So a
    server that hangs is asked once, and once somebody has waited for it the others are told at once.
    """

    def __init__(self, look: Callable[[], Awaitable[T]], patience: float) -> None:
        self._look = look
        self._patience = patience
        self._task: asyncio.Task[None] | None = None
        self._began = 0.0
        self._silent_since: float | None = None
        self._known: Known[T] | None = None
        self._error: Exception | None = None

    async def take(self) -> Seen[T]:
        """Look, or wait for the look under way."""
        if self._task is None or self._task.done():
            self._began = time.monotonic()
            self._silent_since = self._silent_since or self._began
            self._task = asyncio.create_task(self._run())
        task = self._task
        if (left := self._began + self._patience - time.monotonic()) > 0:
            await asyncio.wait({task}, timeout=left)
        for _ in range(_GRACES):
            if task.done():
                break
            await asyncio.sleep(0)
        if not task.done():
            return Seen(self._known, hangs=time.monotonic() - (self._silent_since or self._began))
        task.result()  # what is not foreseen is raised here
        return Seen(self._known, self._error)

    async def end(self) -> None:
        """Give up what is under way."""
        if self._task is not None:
            await end_tasks([self._task])

    async def _run(self) -> None:
        try:
            self._known, self._error = Known(await self._look(), time.time()), None
            self._silent_since = None
        except (RedisError, OSError, TimeoutError) as error:
            self._error = error
            if not isinstance(error, RedisTimeout | TimeoutError):  # a refusal is an answer, too
                self._silent_since = None
