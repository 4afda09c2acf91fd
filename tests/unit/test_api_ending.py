"""How an API process ends whose tasks do not hear that they are to."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import wraps
from typing import Any, Self

from redis.exceptions import ConnectionError

from api.ending import end_tasks
from api.looks import Look
from api.waiting_room import WaitingRoom


def in_loop(test: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    """Runs a test in an event loop, not for ever."""

    async def bounded() -> None:
        async with asyncio.timeout(20):
            await test()

    return wraps(test)(lambda: asyncio.run(bounded()))


class _Deaf:
    """A client of Redis that takes a cancellation for a connection that failed, as redis-py does in places."""

    def __init__(self, deaf_times: int) -> None:
        self.asked = asyncio.Event()
        self._left = deaf_times

    def pubsub(self) -> Self:
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def subscribe(self, *_: str) -> None:
        self.asked.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self._left -= 1
            if self._left < 0:
                raise
            raise ConnectionError("canceled") from None


@in_loop
async def test_a_task_that_does_not_hear_is_told_again() -> None:
    """Three times deaf, while it connects each time anew."""
    client: Any = _Deaf(3)

    async def connect_for_ever() -> None:
        while True:
            with suppress(ConnectionError):
                await client.subscribe()

    task = asyncio.create_task(connect_for_ever())
    await client.asked.wait()
    await end_tasks([task])
    assert task.cancelled()


@in_loop
async def test_a_subscription_ends_with_its_room() -> None:
    """However often it does not hear."""
    client: Any = _Deaf(1_000_000)
    room = WaitingRoom(client, lambda: None)
    listening = asyncio.create_task(room.listen())
    await client.asked.wait()
    room.close()
    await end_tasks([listening])
    assert listening.done()


@in_loop
async def test_a_look_ends_that_does_not_hear_at_once() -> None:
    """It is told as other tasks are."""
    client: Any = _Deaf(1)

    async def ask() -> None:
        while not client.asked.is_set() or client._left >= 0:
            with suppress(ConnectionError):
                await client.subscribe()

    look = Look(ask, patience=0.01)
    assert (await look.take()).hangs
    await asyncio.wait_for(look.end(), 5)
