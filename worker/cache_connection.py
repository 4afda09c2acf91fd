"""The cache's Redis as a job may use it: everything one use costs, connecting included, ends after one timeout.

redis-py bounds each step by itself, so a server that takes its time at every step of a handshake, or sends its answer
in drops, could hold a thread much longer. Here every wait on the socket gets what is left of the use's time; and where
nothing is left, what lies there already is still taken, for with many threads at work it may be this one that was late.
Only the system's name lookup cannot be bounded.
"""

from __future__ import annotations

import socket
import threading
import time
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.connection import AbstractConnection, BlockingConnectionPool, Connection, parse_url
from redis.retry import Retry

#: Connections shared by all threads of a process. A use is short, and each open socket counts against the 1024 that
#: `select` can watch.
_CONNECTIONS = 32

#: Waits on the socket that may still find something after the time is over, and for how long, in seconds.
_GRACES, _GRACE_SECONDS = 16, 0.001


#: A command and its arguments.
Command = tuple[str | bytes | int, ...]


class _Until(threading.local):
    """When the use under way in this thread has to be over, by the monotonic clock."""

    at: float = 0.0
    graces: int = 0

    def begin(self, seconds: float) -> None:
        """A use begins that may take so long."""
        self.at, self.graces = time.monotonic() + seconds, _GRACES

    def left(self) -> float:
        """Seconds that are left for the next wait.

        Raises:
            TimeoutError: none are.
        """
        if (seconds := self.at - time.monotonic()) > 0:
            return seconds
        if self.graces == 0:
            raise TimeoutError("the time for this use of the cache is over")
        self.graces -= 1
        return _GRACE_SECONDS


_until = _Until()


class _BoundedSocket:
    """A socket that waits no longer than the use under way may take."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)

    def recv_into(self, buffer: bytearray) -> int:
        """Receive some bytes."""
        self._socket.settimeout(_until.left())
        return self._socket.recv_into(buffer)

    def sendall(self, data: bytes) -> None:
        """Send all bytes."""
        self._socket.settimeout(_until.left())
        self._socket.sendall(data)


def _bounded(kind: type[AbstractConnection]) -> type[AbstractConnection]:
    """A kind of connection (TCP, TLS, Unix socket) over bounded sockets."""

    class Bounded(kind):  # type: ignore[misc,valid-type]  # the kind is known when it runs
        def _connect(self) -> Any:
            self.socket_connect_timeout = self.socket_timeout = _until.left()
            return _BoundedSocket(super()._connect())

        def _wrap_socket_with_ssl(self, sock: socket.socket) -> Any:
            sock.settimeout(_until.left())
            return super()._wrap_socket_with_ssl(sock)

    return Bounded


class CacheConnection:
    """A few connections to the cache's Redis for all threads."""

    def __init__(self, url: str, timeout_seconds: float) -> None:
        """Connects to nothing yet.

        Raises:
            ValueError: this is not the address of a Redis.
        """
        self._timeout_seconds = timeout_seconds
        options: dict[str, Any] = parse_url(url)  # type: ignore[no-untyped-call]
        kind = _bounded(options.pop("connection_class", Connection))
        self._pool = BlockingConnectionPool(  # type: ignore[no-untyped-call]
            max_connections=_CONNECTIONS,
            timeout=timeout_seconds,
            connection_class=kind,
            retry=Retry(NoBackoff(), 0),
            health_check_interval=0,
            **options,
        )

    def run(self, *commands: Command) -> Any:
        """Redis's answer to the last of the commands, all of them in one round trip within the timeout.

        Raises:
            redis.exceptions.RedisError: it is unreachable, too slow, full or refuses one of them.
        """
        _until.begin(self._timeout_seconds)
        connection: Any = self._pool.get_connection()  # type: ignore[no-untyped-call]
        try:
            # Directly: the bookkeeping of redis-py's client costs as much again as the command.
            connection.send_packed_command(connection.pack_commands(commands))
            replies = [_reply(connection) for _ in commands]
        except BaseException:
            # What is left unread must not be taken for the next command's answer.
            connection.disconnect()
            raise
        finally:
            self._pool.release(connection)  # type: ignore[no-untyped-call]
        for reply in replies:
            if isinstance(reply, redis.ResponseError):
                raise reply
        return replies[-1]

    def close(self) -> None:
        """Close the connections."""
        self._pool.disconnect()


def _reply(connection: Any) -> Any:
    try:
        return connection.read_response()
    except redis.ResponseError as error:
        return error
