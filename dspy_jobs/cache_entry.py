"""An answer as the cache stores it: bytes that tell whether they are whole, unchanged and of the key they lie under.

Layout: `DJ`, format version, flags, 8 bytes of digest, 20 bytes of key, body. The digest is over everything but
itself. The body is the entry as JSON, compressed by zlib where the flag says so. Whoever may write to the cache's Redis
can forge an entry: the digest guards against accidents, and the bound of what is decompressed against a small entry
that would fill the memory.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import orjson

_MAGIC = b"DJ\x01"
_PLAIN, _COMPRESSED = b"\x00", b"\x01"
_DIGEST_BYTES, _KEY_BYTES = 8, 20
_DIGEST_AT = len(_MAGIC) + len(_PLAIN)
_KEY_AT = _DIGEST_AT + _DIGEST_BYTES
_BODY_AT = _KEY_AT + _KEY_BYTES

#: Bytes that an entry's JSON may have beyond those of its output.
ENVELOPE_BYTES = 1024


class CorruptEntry(Exception):
    """Stored bytes are not an entry of the key they were found under."""


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """A parsed, validated output and what it cost."""

    output: dict[str, Any]
    created_at: int
    """When the run that made it ended, ms since 1970."""
    cost_nanos: int | None
    """Nano-dollars that run cost; None if unknown."""
    program_version: str


def encode(key: str, entry: CacheEntry, compress_above: int) -> bytes:
    """The bytes to store under the key (40 hex digits); JSON of more than `compress_above` bytes is compressed.

    Raises:
        TypeError: the output holds something JSON cannot express.
    """
    body, flags = orjson.dumps(entry), _PLAIN
    if len(body) > compress_above:
        body, flags = zlib.compress(body, 1), _COMPRESSED
    bound = bytes.fromhex(key)
    return _MAGIC + flags + _digest(flags, bound, body) + bound + body


def decode(key: str, raw: bytes, largest: int) -> CacheEntry:
    """The entry stored under the key; `largest` is the most bytes of JSON its output may have.

    Raises:
        CorruptEntry: the bytes are cut, changed, of another key or format, or hold more than that.
    """
    flags, digest, bound = raw[len(_MAGIC) : _DIGEST_AT], raw[_DIGEST_AT:_KEY_AT], raw[_KEY_AT:_BODY_AT]
    body = raw[_BODY_AT:]
    if not raw.startswith(_MAGIC) or len(raw) < _BODY_AT:
        raise CorruptEntry("it is no cache entry of this format")
    if bound != bytes.fromhex(key):
        raise CorruptEntry("it is the entry of another key")
    if digest != _digest(flags, bound, body):
        raise CorruptEntry("its bytes have changed")
    return _entry(_inflated(flags, body, largest + ENVELOPE_BYTES))


def _digest(flags: bytes, bound: bytes, body: bytes) -> bytes:
    return blake2b(_MAGIC + flags + bound + body, digest_size=_DIGEST_BYTES).digest()


def _inflated(flags: bytes, body: bytes, largest: int) -> bytes:
    """The JSON, of which never more than `largest` bytes are made."""
    if flags == _COMPRESSED:
        reader = zlib.decompressobj()
        try:
            body = reader.decompress(body, largest + 1)
        except zlib.error as error:
            raise CorruptEntry(f"it cannot be decompressed: {error}") from None
        if len(body) <= largest and (not reader.eof or reader.unused_data):
            raise CorruptEntry("its compressed part does not end where it should")
    elif flags != _PLAIN:
        raise CorruptEntry("it is written in an unknown way")
    if len(body) > largest:
        raise CorruptEntry(f"it holds more than {largest} bytes")
    return body


def _entry(body: bytes) -> CacheEntry:
    try:
        found = orjson.loads(body)
        entry = CacheEntry(**found)
    except (orjson.JSONDecodeError, TypeError) as error:
        raise CorruptEntry(f"it does not hold an output: {error}") from None
    if not _is_sound(entry):
        raise CorruptEntry("a part of it has the wrong type")
    return entry


def _is_sound(entry: CacheEntry) -> bool:
    return (
        type(entry.output) is dict
        and type(entry.created_at) is int
        and (entry.cost_nanos is None or type(entry.cost_nanos) is int)
        and type(entry.program_version) is str
    )
