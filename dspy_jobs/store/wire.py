"""How arguments are given to the scripts, and their answers read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def time_of(now_ms: int | None) -> str:
    """A time as the scripts take it; None lets Redis's own clock count."""
    return "" if now_ms is None else str(now_ms)


def text(value: bytes) -> str:
    """A text of an answer."""
    return value.decode()


def texts(values: Iterable[bytes]) -> list[str]:
    """Texts of an answer."""
    return [value.decode() for value in values]


def flat(fields: dict[str, Any]) -> list[Any]:
    """Fields and values of a hash, one after the other."""
    return [part for pair in fields.items() for part in pair]
