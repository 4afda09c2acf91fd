"""Runs operations from threads: the worker, the command line, tests."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import redis
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, ResponseError
from redis.retry import Retry

from dspy_jobs.store.script import Operation, Plan, all_scripts, error_of

T = TypeVar("T")


def connect(url: str, timeout_seconds: float = 5.0) -> redis.Redis:
    """A Redis client that answers or raises within about `timeout_seconds`; it does not retry behind our back."""
    return redis.Redis.from_url(
        url,
        socket_timeout=timeout_seconds,
        socket_connect_timeout=min(2.0, timeout_seconds),
        retry=Retry(NoBackoff(), 0),
        health_check_interval=0,
    )


class SyncStore:
    """The store as threads use it. `redis` is open for plain commands on keys of `dspy_jobs.names`."""

    def __init__(self, client: redis.Redis, observe: Callable[[float], None] = lambda _: None) -> None:
        """`observe` is told the seconds of every round trip, also of one that fails."""
        self.redis = client
        self._observe = observe

    def run(self, operation: Operation[T]) -> T:
        """Run one operation.

        Raises:
            redis.exceptions.RedisError: Redis is unreachable, full or refuses.
        """
        return operation.read(self._replies([operation])[0])

    def run_all(self, operations: Sequence[Operation[Any]]) -> list[Any]:
        """Run operations in order in one round trip. Each is atomic by itself; together they are not."""
        replies = self._replies(operations)
        return [operation.read(reply) for operation, reply in zip(operations, replies, strict=True)]

    def follow(self, plan: Plan[T]) -> T:
        """Run a plan's operations one after the other and answer what the plan returns."""
        try:
            operation = next(plan)
            while True:
                operation = plan.send(self.run(operation))
        except StopIteration as end:
            result: T = end.value
            return result

    def load_scripts(self) -> None:
        """Make every script known to Redis, as after its restart."""
        with self.redis.pipeline(transaction=False) as pipe:
            for script in all_scripts():
                pipe.script_load(script.text)
            pipe.execute()

    def _replies(self, operations: Sequence[Operation[Any]]) -> list[Any]:
        replies = self._send(operations)
        # All scripts are loaded together, so after a restart of Redis the first one is missing, and nothing ran.
        if isinstance(replies[0], NoScriptError):
            self.load_scripts()
            replies = self._send(operations)
        for reply in replies:
            if error := error_of(reply):
                raise error
        return replies

    def _send(self, operations: Sequence[Operation[Any]]) -> list[Any]:
        """One write, one read an operation: redis-py's own pipeline costs as much again in bookkeeping."""
        commands = [("EVALSHA", operation.script.sha, 0, *operation.args) for operation in operations]
        pool = self.redis.connection_pool
        connection = pool.get_connection()
        began = time.perf_counter()
        try:
            connection.send_packed_command(connection.pack_commands(commands))  # type: ignore[no-untyped-call]
            return [_reply(connection) for _ in commands]
        except BaseException:
            # What is left unread must not be taken for the next command's answer.
            connection.disconnect()  # type: ignore[no-untyped-call]
            raise
        finally:
            self._observe(time.perf_counter() - began)
            pool.release(connection)


def _reply(connection: Any) -> Any:
    try:
        return connection.read_response()
    except ResponseError as error:
        return error
