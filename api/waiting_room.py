"""Where requests wait for a job or a batch to end: one Redis subscription wakes all of them.

A wake-up is a hint. A waiter takes its seat first and reads then, so an end between the two is not missed; it reads
again whenever the subscription was new, and every few seconds in any case.
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

import structlog
from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

from dspy_jobs import names

T = TypeVar("T")

#: Seconds after which a waiter looks for itself, give or take a half so that thousands do not look at once.
_LOOK_SECONDS = 6.0
#: Seconds without a message after which the subscription's connection is tried.
_SILENCE_SECONDS = 5.0
#: Seconds between two tries to subscribe.
_RECONNECT_SECONDS = 0.5

_log = structlog.get_logger("api")


class WaitingRoom:
    """Wakes those who wait for an id, and whoever wants to know of changed programs."""

    def __init__(self, client: Redis, on_programs_changed: Callable[[], None]) -> None:
        self._client = client
        self._on_programs_changed = on_programs_changed
        self._seats: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self._closed = False

    async def wait(
        self,
        name: str,
        seconds: float,
        read: Callable[[], Awaitable[T]],
        finished: Callable[[T], bool],
        last: T,
    ) -> T:
        """Read until it is finished or `seconds` are over; answers what was read last, `last` if nothing could be."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        seat = asyncio.Event()
        self._seats[name].add(seat)
        try:
            while True:
                seat.clear()
                with suppress(RedisError):  # it may be back before the wait is over
                    last = await read()
                left = deadline - loop.time()
                if finished(last) or left <= 0 or self._closed:
                    return last
                await _woken(seat, min(left, _LOOK_SECONDS * random.uniform(0.5, 1.5)))  # noqa: S311
        finally:
            self._leave(name, seat)

    def _leave(self, name: str, seat: asyncio.Event) -> None:
        seats = self._seats[name]
        seats.discard(seat)
        if not seats:
            del self._seats[name]

    def close(self) -> None:
        """Let everybody answer with what there is: the process stops."""
        self._closed = True
        self._wake_all()

    async def disconnect(self) -> None:
        """Close the subscription's connection."""
        await self._client.aclose()

    def _wake_all(self) -> None:
        for seats in self._seats.values():
            for seat in seats:
                seat.set()

    async def listen(self) -> None:
        """Receive announcements until closed or cancelled; subscribes again whenever Redis was away."""
        while not self._closed:
            try:
                async with self._client.pubsub() as subscription:
                    await subscription.subscribe(names.DONE_CHANNEL, names.PROGRAMS_CHANNEL)
                    await self._receive(subscription)
            except (RedisError, OSError) as error:
                _log.warning("subscription_lost", error=type(error).__name__)
            await asyncio.sleep(_RECONNECT_SECONDS)

    async def _receive(self, subscription: PubSub) -> None:
        silent = False
        while not self._closed:
            message = await subscription.get_message(timeout=_SILENCE_SECONDS)
            if message is None:
                if silent:
                    raise ConnectionResetError("no answer to a ping")
                silent = True
                await subscription.ping()
                continue
            silent = False
            if message["type"] == "subscribe":
                self._on_programs_changed()
                self._wake_all()
            elif message["type"] == "message":
                self._announce(message["channel"].decode(), message["data"].decode())

    def _announce(self, channel: str, name: str) -> None:
        if channel == names.PROGRAMS_CHANNEL:
            self._on_programs_changed()
        elif name in self._seats:
            for seat in self._seats[name]:
                seat.set()


async def _woken(seat: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await seat.wait()
    except TimeoutError:
        pass
