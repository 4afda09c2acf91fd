"""A job's journal: the model calls its attempts had answered, for the next attempt to take instead of paying again.

Calls are found by what was asked. Of equal calls the n-th takes the n-th answer, for a program may ask the same twice
and want two answers; calls with different rollout ids are never equal. An answer that was of no use leaves a mark
without the answer: it was given, and the next call like it is another one.
"""

from __future__ import annotations

import hashlib
import threading
import zlib
from collections import Counter, defaultdict, deque
from collections.abc import Iterable
from functools import cached_property
from typing import Any

import orjson
import structlog
from dspy._vendor.lm15.serde import request_to_dict, response_from_dict, response_to_dict
from dspy.lm15 import Request, Response

log = structlog.get_logger("worker")

#: Answers of more bytes are compressed.
COMPRESS_BYTES = 1024

_DIGEST_BYTES = 16
_CHECKSUM_BYTES = 8
_PLAIN, _COMPRESSED, _USELESS = b"\x01", b"\x02", b"\x03"


def digest_of(model: str, request: Request, rollout_id: Any) -> bytes | None:
    """What a call asks for, and of which configured model, in 16 bytes; None where it cannot be written down."""
    try:
        asked = orjson.dumps([model, rollout_id, request_to_dict(request)], option=orjson.OPT_SORT_KEYS)
    except TypeError:
        return None
    return hashlib.blake2b(asked, digest_size=_DIGEST_BYTES).digest()


def encode(digest: bytes | None, response: Response) -> bytes:
    """A record of the journal; empty where the answer cannot be written down."""
    if digest is None:
        return b""
    try:
        answer = orjson.dumps(response_to_dict(response, include_provider_data=True))
    except TypeError:
        return b""
    is_long = len(answer) > COMPRESS_BYTES
    return _sealed(digest + (_COMPRESSED + zlib.compress(answer, 1) if is_long else _PLAIN + answer))


def mark_useless(digest: bytes | None) -> bytes:
    """A record of an answer that was of no use."""
    return b"" if digest is None else _sealed(digest + _USELESS)


def useless(record: bytes) -> bytes:
    """The same call's record, had its answer been of no use."""
    return mark_useless(record[_CHECKSUM_BYTES:][:_DIGEST_BYTES])


def decode(record: bytes) -> tuple[bytes, Response | None]:
    """What was asked and what was answered; None for an answer of no use.

    Raises:
        ValueError: this is no whole record, or one of another release.
    """
    body = record[_CHECKSUM_BYTES:]
    if record[:_CHECKSUM_BYTES] != _checksum(body):
        raise ValueError("the checksum does not fit")
    digest, form, answer = body[:_DIGEST_BYTES], body[_DIGEST_BYTES:][:1], body[_DIGEST_BYTES + 1 :]
    if form == _USELESS:
        return digest, None
    if form == _COMPRESSED:
        answer = zlib.decompress(answer)
    elif form != _PLAIN:
        raise ValueError(f"unknown form {form!r}")
    try:
        return digest, response_from_dict(orjson.loads(answer))
    except (TypeError, LookupError, AttributeError) as error:
        raise ValueError(f"not an answer of this release: {error}") from error


def _sealed(body: bytes) -> bytes:
    return _checksum(body) + body


def _checksum(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_CHECKSUM_BYTES).digest()


class Question:
    """A model call as the journal knows it."""

    def __init__(self, model: str, request: Request, rollout_id: Any) -> None:
        """`model` tells the configured model from all others, also from one of its name at another address."""
        self._asked = (model, request, rollout_id)

    @cached_property
    def digest(self) -> bytes | None:
        """What it asks for; made when it is first needed, which for most calls is never."""
        return digest_of(*self._asked)

    def record(self, response: Response, is_usable: bool) -> bytes:
        """The record of its answer."""
        return encode(self.digest, response) if is_usable else mark_useless(self.digest)


class Journal:
    """The answers of earlier attempts, each given out once, and the count of answers given. Thread-safe."""

    def __init__(self, records: Iterable[bytes] = ()) -> None:
        """A record that cannot be read is left out: its call is then paid again."""
        self._lock = threading.Lock()
        self._answers: defaultdict[bytes, deque[Response]] = defaultdict(deque)
        self._asked: Counter[bytes] = Counter()
        for record in records:
            try:
                digest, response = decode(record)
            except (ValueError, zlib.error) as error:
                log.warning("journal_record_unreadable", error=type(error).__name__)
                continue
            self._asked[digest] += 1
            if response:
                self._answers[digest].append(response)

    def take(self, digest: bytes | None) -> Response | None:
        """The next answer to an equal call, if one is left."""
        with self._lock:
            answers = self._answers.get(digest) if digest else None
            return answers.popleft() if answers else None

    def ask(self, digest: bytes) -> int:
        """Count a call that is made: how many like it were answered before, or are under way."""
        with self._lock:
            self._asked[digest] += 1
            return self._asked[digest] - 1

    def not_answered(self, digest: bytes) -> None:
        """Take back the count of a call that got no answer."""
        with self._lock:
            self._asked[digest] -= 1

    def __bool__(self) -> bool:
        """Whether there is anything to take."""
        return any(self._answers.values())
