"""Ids that sort by the time they were made: a prefix and a ULID (48 bits of milliseconds, 80 of chance).

Source: the ULID specification; written in lower case. Ids made by one process are strictly increasing.
"""

from __future__ import annotations

import re
import secrets
import threading
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS = [a + b for a in _ALPHABET for b in _ALPHABET]
_PATTERN = re.compile(r"(job|batch)_[0-7][0-9a-hjkmnp-tv-z]{25}\Z")


class _Clock:
    """The last number given out, so that two ids of one millisecond still sort in order."""

    def __init__(self) -> None:
        self._last = 0
        self._lock = threading.Lock()

    def next(self) -> int:
        with self._lock:
            fresh = (time.time_ns() // 1_000_000) << 80
            # Within one millisecond count upwards; the chance of a new one keeps other processes apart.
            self._last = self._last + 1 if self._last >= fresh else fresh | secrets.randbits(79)
            return self._last


_clock = _Clock()


def _encode(number: int) -> str:
    return "".join(_PAIRS[(number >> shift) & 1023] for shift in range(120, -1, -10))


def new_job_id() -> str:
    """A new job's id, `job_` and a ULID."""
    return "job_" + _encode(_clock.next())


def new_batch_id() -> str:
    """A new batch's id, `batch_` and a ULID."""
    return "batch_" + _encode(_clock.next())


def first_job_id(ms: int) -> str:
    """The smallest id a job made at that time (ms since 1970) can have."""
    return "job_" + _encode(ms << 80)


def first_batch_id(ms: int) -> str:
    """The smallest id a batch made at that time (ms since 1970) can have."""
    return "batch_" + _encode(ms << 80)


def is_job_id(text: str) -> bool:
    """Whether the text could be a job's id; says nothing about whether the job exists."""
    return text.startswith("job_") and _PATTERN.match(text) is not None


def is_batch_id(text: str) -> bool:
    """Whether the text could be a batch's id; says nothing about whether the batch exists."""
    return text.startswith("batch_") and _PATTERN.match(text) is not None


def made_at(job_id: str) -> int | None:
    """When a job's id was made, in milliseconds since 1970; None if it is no job's id."""
    if not is_job_id(job_id):
        return None
    number = 0
    for letter in job_id[4:14]:
        number = number << 5 | _ALPHABET.index(letter)
    return number
