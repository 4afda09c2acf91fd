"""Operations on idempotency keys: which request has a key, what it creates, and what it was answered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from dspy_jobs.store.script import Operation, script
from dspy_jobs.store.wire import time_of


@dataclass(frozen=True, slots=True)
class KeyState:
    """What a request learns of its key."""

    what: Literal["reserved", "made", "answered", "mismatch", "in_flight"]
    id: str
    """What the key's request creates is or will be called so; empty where it creates nothing."""
    fingerprint: str
    """The request the key belongs to; empty while that is not known."""
    answer: bytes


def reserve_key(
    key: str,
    fingerprint: str,
    holder: str,
    lock_seconds: float,
    lifetime_seconds: float,
    new_id: str,
    now_ms: int | None = None,
) -> Operation[KeyState]:
    """Take a key, or learn what became of the request that has it.

    Args:
        key: the Redis key.
        fingerprint: of the whole request; empty while its body still arrives, then it is added by repeating this.
        holder: the caller's own for this request: repeating the operation with it prolongs the lock.
        lock_seconds: time after which a holder that was not heard of has lost the key.
        lifetime_seconds: time the key is kept, from its first use.
        new_id: id of what is to be created, unless an earlier holder has chosen one; empty where nothing is.
        now_ms: the time, for tests.
    """

    def read(raw: list[Any]) -> KeyState:
        what, made, known, answer = raw
        return KeyState(what.decode(), made.decode(), known.decode(), answer)

    lock, lifetime = int(lock_seconds * 1000), int(lifetime_seconds * 1000)
    args = (time_of(now_ms), key, fingerprint, holder, lock, lifetime, new_id)
    return Operation(script("reserve_key"), args, read)


def settle_key(key: str, holder: str, answer: bytes = b"", *, sure: bool = True) -> Operation[int]:
    """Let go of a key. Without an answer it is free again, unless something was created under it.

    `sure`: whether nothing of the request can still be on its way to Redis. Answers 1 if the holder had the key.
    """
    return Operation(script("settle_key"), (key, holder, "1" if sure else "0", answer), int)
