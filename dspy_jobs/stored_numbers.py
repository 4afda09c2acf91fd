"""Counts as hashes in Redis hold them, read so that one wrong value does not take all the others with it."""

from __future__ import annotations

from collections.abc import Mapping

import structlog

log = structlog.get_logger("jobs")

#: Hashes of which it was told that something in them cannot be read; told once, for they are read all the time.
_told: set[str] = set()


def integers(key: str, found: Mapping[bytes, bytes]) -> dict[str, int]:
    """The fields of the hash `key` whose names are text and whose values are integers; others are passed over."""
    numbers = {}
    for name, value in found.items():
        try:
            numbers[name.decode()] = int(value)
        except ValueError:
            if key not in _told:
                _told.add(key)
                log.warning("unreadable_number", key=key, field=name.decode(errors="replace")[:100])
    return numbers
