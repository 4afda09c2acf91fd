"""What workers of this host say of themselves in Redis."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Any, Protocol

import orjson
import redis
from redis.exceptions import RedisError

from dspy_jobs import names


@dataclass(frozen=True)
class Registered:
    """A worker that takes jobs, or did until it was told to stop; ``running`` is how many it has."""

    running: int = 0
    is_draining: bool = False


class Registry(Protocol):
    """Knows which workers have come up."""

    def workers(self) -> dict[int, Registered] | None:
        """Live workers of this host by process number; None if that cannot be known now."""
        ...


class RedisRegistry:
    """The leases and descriptions workers renew all the time."""

    def __init__(self, client: redis.Redis, host: str | None = None) -> None:
        self._client: Any = client  # redis-py's types are those of a client that may decode its answers
        self._host = host or socket.gethostname()

    def workers(self) -> dict[int, Registered] | None:
        """Live workers of this host by process number; None if Redis cannot be asked."""
        try:
            described = [orjson.loads(raw) for raw in self._descriptions() if raw]
        except RedisError:
            return None
        return {
            one["pid"]: Registered(one["running"], one["draining"]) for one in described if one["host"] == self._host
        }

    def _descriptions(self) -> list[bytes | None]:
        ids = [worker.decode() for worker in self._client.zrangebyscore(names.WORKERS, _now_ms(self._client), "+inf")]
        return list(self._client.mget([names.worker(worker) for worker in ids])) if ids else []


def live_workers(client: redis.Redis) -> int:
    """How many workers live on all hosts together; 0 if Redis cannot be asked."""
    try:
        return int(client.zcount(names.WORKERS, _now_ms(client), "+inf"))
    except RedisError:
        return 0


def _now_ms(client: redis.Redis) -> int:
    """Redis's own clock, by which leases end."""
    seconds, microseconds = client.time()
    return seconds * 1000 + microseconds // 1000
