"""Runs operations from the API's event loop, many requests in one round trip.

Operations asked for while a round trip is under way travel together in the next one. Under load this saves most of
the client's cost for each; a lone request waits for nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, ResponseError

from dspy_jobs.store.script import Operation, Plan, all_scripts, error_of

T = TypeVar("T")

#: Operations in one round trip at most: larger ones make the first wait for the last.
LARGEST_FLIGHT = 128
#: Round trips under way at once. One would let a slow script hold up everybody; many would defeat the gathering.
MOST_FLIGHTS = 2
#: Connections of a process: the flights' and those of plain commands.
MOST_CONNECTIONS = 20


def connect_async(url: str, timeout_seconds: float = 5.0) -> redis.asyncio.Redis:
    """A Redis client that answers or raises within about `timeout_seconds`; it does not retry behind our back."""
    # Whoever finds every connection busy waits its turn instead of being refused.
    pool = redis.asyncio.BlockingConnectionPool.from_url(
        url,
        max_connections=MOST_CONNECTIONS,
        timeout=timeout_seconds,
        socket_timeout=timeout_seconds,
        socket_connect_timeout=min(2.0, timeout_seconds),
        retry=Retry(NoBackoff(), 0),
        health_check_interval=0,
    )
    return redis.asyncio.Redis.from_pool(pool)


class AsyncStore:
    """The store as the event loop uses it. `redis` is open for plain commands on keys of `dspy_jobs.names`."""

    def __init__(self, client: redis.asyncio.Redis, observe: Callable[[float], None] = lambda _: None) -> None:
        """`observe` is told the seconds of every round trip, also of one that fails."""
        self.redis = client
        self._observe = observe
        self._waiting: deque[tuple[Operation[Any], asyncio.Future[Any]]] = deque()
        self._flights: set[asyncio.Task[None] | None] = set()

    async def run(self, operation: Operation[T]) -> T:
        """Run one operation.

        Raises:
            redis.exceptions.RedisError: Redis is unreachable, full or refuses.
        """
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((operation, future))
        if len(self._flights) < MOST_FLIGHTS:
            self._flights.add(asyncio.create_task(self._fly()))
        return operation.read(await future)

    async def follow(self, plan: Plan[T]) -> T:
        """Run a plan's operations one after the other and answer what the plan returns."""
        try:
            operation = next(plan)
            while True:
                operation = plan.send(await self.run(operation))
        except StopIteration as end:
            result: T = end.value
            return result

    async def close(self) -> None:
        """Wait for what is under way and close the connections."""
        await asyncio.gather(*filter(None, self._flights), return_exceptions=True)
        await self.redis.aclose()

    async def _fly(self) -> None:
        while self._waiting:
            passengers = [self._waiting.popleft() for _ in range(min(len(self._waiting), LARGEST_FLIGHT))]
            try:
                replies = await self._replies([operation for operation, _ in passengers])
            except Exception as error:  # noqa: BLE001  # whatever went wrong is each passenger's to hear, or it would wait for ever
                replies = [error] * len(passengers)
            for (_, future), reply in zip(passengers, replies, strict=True):
                _settle(future, reply)
        # Here and not in a callback, which would come later: whoever asked in between would wait for nobody.
        self._flights.discard(asyncio.current_task())

    async def _replies(self, operations: Sequence[Operation[Any]]) -> list[Any]:
        replies = await self._send(operations)
        missing = [i for i, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if missing:
            await self.load_scripts()
            again = await self._send([operations[i] for i in missing])
            for i, reply in zip(missing, again, strict=True):
                replies[i] = reply
        return replies

    async def load_scripts(self) -> None:
        """Make every script known to Redis, as after its restart."""
        async with self.redis.pipeline(transaction=False) as pipe:
            for script in all_scripts():
                pipe.script_load(script.text)
            await pipe.execute()

    async def _send(self, operations: Sequence[Operation[Any]]) -> list[Any]:
        """One write, one read an operation: redis-py's own pipeline costs as much again in bookkeeping."""
        commands = [("EVALSHA", operation.script.sha, 0, *operation.args) for operation in operations]
        pool = self.redis.connection_pool
        connection: Any = await pool.get_connection()  # type: ignore[no-untyped-call]
        began = time.perf_counter()
        try:
            await connection.send_packed_command(connection.pack_commands(commands))
            return [await _reply(connection) for _ in commands]
        except BaseException:
            # What is left unread must not be taken for the next command's answer.
            await connection.disconnect(nowait=True)
            raise
        finally:
            self._observe(time.perf_counter() - began)
            await pool.release(connection)


async def _reply(connection: Any) -> Any:
    try:
        return await connection.read_response()
    except ResponseError as error:
        return error


def _settle(future: asyncio.Future[Any], reply: Any) -> None:
    if future.done():  # its request was abandoned meanwhile
        return
    if error := error_of(reply):
        future.set_exception(error)
    else:
        future.set_result(reply)
