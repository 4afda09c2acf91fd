"""Answers given before: in this process's memory, then in the cache's Redis. Nothing here fails a job or holds it long.

Memory keeps what Redis stores, byte for byte: so its size is known, and nobody can change an output that others get.
A Redis that failed is left alone for `cache.skip_seconds`; then one thread tries it again while the others go on
without.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import structlog
from cachetools import TTLCache
from redis.exceptions import BusyLoadingError, ResponseError

from dspy_jobs import names
from dspy_jobs.cache_entry import CacheEntry, CorruptEntry, decode, encode
from dspy_jobs.redis_url import cache_url
from dspy_jobs.settings import Settings
from worker.cache_connection import CacheConnection, Command
from worker.patience import Patience, Use

log = structlog.get_logger("worker")

#: What an entry costs in memory beyond its bytes: key, link, shares of the cache's tables. Measured with tracemalloc as
#: at most 554 bytes, where entries come and go and the tables have just grown.
ENTRY_OVERHEAD_BYTES = 600

Level = Literal["memory", "redis"]


@dataclass(frozen=True, slots=True)
class Found:
    """An entry and where it was."""

    entry: CacheEntry
    level: Level


class Stored(NamedTuple):
    """An output as Redis is to keep it."""

    key: str
    raw: bytes
    lifetime_ms: int


@dataclass
class CacheCounts:
    """What happened since the process started. A key asked for is a hit or a miss."""

    hits_memory: int = 0
    hits_redis: int = 0
    misses: int = 0
    unanswered: int = 0
    """Of these, keys that Redis could not be asked for."""
    stored_memory: int = 0
    """Outputs put into memory: own ones, and those found in Redis."""
    stored_redis: int = 0
    errors: int = 0
    """Uses of Redis that failed."""
    corrupt: int = 0
    """Stored values that were no entry; each was a miss, too, and was deleted."""
    skipped: int = 0
    """Uses of Redis left out because it had failed shortly before."""

    def operations(self) -> dict[tuple[Level, str], int]:
        """How often each level was used in each way. What memory lacks Redis is asked for."""
        return {
            ("memory", "hit"): self.hits_memory,
            ("memory", "miss"): self.hits_redis + self.misses,
            ("memory", "store"): self.stored_memory,
            ("redis", "hit"): self.hits_redis,
            ("redis", "miss"): self.misses - self.unanswered,
            ("redis", "store"): self.stored_redis,
            ("redis", "error"): self.errors,
            ("redis", "corrupt"): self.corrupt,
            ("redis", "skip"): self.skipped,
        }


class ResponseCache:
    """Both levels of the cache. Thread-safe."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        """Connects to nothing yet.

        Raises:
            ValueError: `cache.url` is not the address of a Redis.
        """
        self._settings = settings.cache
        self._largest = settings.limits.result_bytes
        self._clock = clock
        self._redis = CacheConnection(cache_url(settings), settings.cache.timeout_seconds)
        self._reads = Patience(settings.cache.skip_seconds)
        self._writes = Patience(settings.cache.skip_seconds)
        self._lock = threading.Lock()
        self._memory: TTLCache[str, bytes] = TTLCache(
            settings.cache.memory_bytes, settings.cache.memory_seconds, getsizeof=_memory_bytes
        )
        self.counts = CacheCounts()

    def get(self, keys: Sequence[str]) -> dict[str, Found]:
        """The entries there are; asks Redis once for all that memory lacks."""
        if not self._settings.enabled:
            return {}
        wanted = dict.fromkeys(keys)
        found = self._from_memory(wanted)
        if missing := [key for key in wanted if key not in found]:
            found |= self._from_redis(missing)
        self._count(misses=len(wanted) - len(found))
        return found

    def peek(self, key: str) -> Found | None:
        """The entry if memory has it. Never waits for Redis; not finding it is not counted."""
        return self._from_memory([key]).get(key) if self._settings.enabled else None

    def put(self, key: str, entry: CacheEntry) -> None:
        """Keep an output: in memory at once, then in Redis, which may take as long as the cache's timeout.

        Raises:
            TypeError: the output holds something JSON cannot express.
        """
        if stored := self.keep(key, entry):
            self.store([stored])

    def keep(self, key: str, entry: CacheEntry) -> Stored | None:
        """Keep an output in memory. Answers what `store` is to write; None where nothing is.

        Raises:
            TypeError: the output holds something JSON cannot express.
        """
        lifetime_ms = self._lifetime_ms(entry)
        if not self._settings.enabled or lifetime_ms <= 0:
            return None
        raw = encode(key, entry, self._settings.compress_bytes)
        self._remember(key, raw)
        return Stored(key, raw, lifetime_ms)

    def store(self, outputs: Sequence[Stored]) -> None:
        """Write outputs to Redis in one round trip, which may take as long as the cache's timeout."""
        commands = (("SET", names.cache_entry(s.key), s.raw, "PX", s.lifetime_ms) for s in outputs)
        if self._use(self._writes, *commands) is not None:
            self._count(stored_redis=len(outputs))

    def discard(self, key: str) -> None:
        """Forget an entry, in Redis as far as it can be reached."""
        self._discard([key])

    def close(self) -> None:
        """Close the connections to Redis."""
        self._redis.close()

    def _discard(self, keys: list[str]) -> None:
        with self._lock:
            for key in keys:
                self._memory.pop(key, None)
        if self._settings.enabled:
            self._use(self._writes, ("DEL", *map(names.cache_entry, keys)))

    def _from_memory(self, keys: Iterable[str]) -> dict[str, Found]:
        stored = {}
        with self._lock:
            for key in keys:
                with suppress(KeyError):  # `get` looks it up twice
                    stored[key] = self._memory[key]
        found = self._read(stored, "memory")
        self._count(hits_memory=len(found))
        return found

    def _from_redis(self, keys: list[str]) -> dict[str, Found]:
        replies = self._use(self._reads, ("MGET", *map(names.cache_entry, keys)))
        if replies is None:
            self._count(unanswered=len(keys))
        stored = {key: raw for key, raw in zip(keys, replies or (), strict=False) if raw is not None}
        found = self._read(stored, "redis")
        for key in found:
            self._remember(key, stored[key])
        self._count(hits_redis=len(found))
        return found

    def _read(self, stored: dict[str, bytes], level: Level) -> dict[str, Found]:
        """The entries that are whole and still live; what is no entry is deleted."""
        found, corrupt = {}, []
        for key, raw in stored.items():
            try:
                entry = decode(key, raw, self._largest)
            except CorruptEntry as error:
                log.warning("cache_entry_corrupt", key=key, error=str(error))
                corrupt.append(key)
            else:
                if self._lifetime_ms(entry) > 0:
                    found[key] = Found(entry, level)
        if corrupt:
            self._count(corrupt=len(corrupt))
            self._discard(corrupt)
        return found

    def _remember(self, key: str, raw: bytes) -> None:
        if _memory_bytes(raw) <= self._settings.memory_bytes:
            with self._lock:
                self._memory[key] = raw
                self.counts.stored_memory += 1

    def _lifetime_ms(self, entry: CacheEntry) -> int:
        """What is left of an entry's life; one from the future, by another clock, gets no more than a whole life."""
        age = max(0, int(self._clock() * 1000) - entry.created_at)
        return int(self._settings.redis_seconds * 1000) - age

    def _use(self, patience: Patience, *commands: Command) -> Any:
        """Redis's answer to the last command; None if one fails or Redis is left alone."""
        if (use := patience.ask()) is None:
            self._count(skipped=1)
            return None
        try:
            reply = self._redis.run(*commands)
        except Exception as error:  # noqa: BLE001  # whatever it is, an answer that is not found fails no job
            self._failed(patience, use, error)
            return None
        patience.answered(use)
        return reply

    def _failed(self, patience: Patience, use: Use, error: Exception) -> None:
        """Leave Redis alone for a while; one that answers but refuses, as when it is full, only for this purpose."""
        log.warning("cache_unavailable", error=str(error))
        self._count(errors=1)
        is_refusal = isinstance(error, ResponseError) and not isinstance(error, BusyLoadingError)
        if is_refusal:
            patience.failed()
            return
        for concerned in (self._reads, self._writes):
            concerned.failed(use)

    def _count(self, **more: int) -> None:
        with self._lock:
            for name, number in more.items():
                setattr(self.counts, name, getattr(self.counts, name) + number)


def _memory_bytes(raw: bytes) -> int:
    return len(raw) + ENTRY_OVERHEAD_BYTES
