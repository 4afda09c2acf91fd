"""What the cache stores comes back as it was or not at all."""

from __future__ import annotations

import tracemalloc
import zlib
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspy_jobs import cache_entry
from dspy_jobs.cache_entry import ENVELOPE_BYTES, CacheEntry, CorruptEntry, decode, encode

KEY, OTHER_KEY = "0123456789abcdef" * 2 + "01234567", "f" * 40
ENTRY = CacheEntry({"answer": "Paris"}, 1_700_000_000_000, 1200, "0123456789ab")
LARGEST = 100_000

NUMBERS = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abé", max_size=3), inner, max_size=4),
)
ENTRIES = st.builds(
    CacheEntry,
    st.dictionaries(st.text("abé", max_size=3), JSON, max_size=4),
    st.integers(0, 2**53),
    st.none() | st.integers(0, 2**53),
    st.text("0123456789abcdef", max_size=12),
)


def forged(body: bytes, flags: bytes = b"\x00", key: str = KEY) -> bytes:
    """Stored bytes with a digest that fits, whatever the body."""
    bound = bytes.fromhex(key)
    return b"DJ\x01" + flags + cache_entry._digest(flags, bound, body) + bound + body


@given(ENTRIES, st.integers(1, 2000))
def test_what_was_stored_is_found(entry: CacheEntry, compress_above: int) -> None:
    """Compressed or not."""
    assert decode(KEY, encode(KEY, entry, compress_above), LARGEST) == entry


def test_only_large_entries_are_compressed() -> None:
    """Above the size, and then they are smaller."""
    large = CacheEntry({"answer": "long " * 1000}, 0, None, "v")
    size = len(orjson.dumps(large))
    assert len(encode(KEY, large, size)) > size
    assert len(encode(KEY, large, size - 1)) < size / 10


@pytest.mark.parametrize("compress_above", [1, 10_000])
def test_cut_anywhere_it_is_corrupt(compress_above: int) -> None:
    """Also when nothing is left, and when something was appended."""
    raw = encode(KEY, ENTRY, compress_above)
    for length in range(len(raw)):
        with pytest.raises(CorruptEntry):
            decode(KEY, raw[:length], LARGEST)
    with pytest.raises(CorruptEntry):
        decode(KEY, raw + b"\x00", LARGEST)


@pytest.mark.parametrize("compress_above", [1, 10_000])
def test_with_any_byte_changed_it_is_corrupt(compress_above: int) -> None:
    """Every single bit and a whole byte."""
    raw = encode(KEY, ENTRY, compress_above)
    for at in range(len(raw)):
        for change in (1, 2, 4, 8, 16, 32, 64, 128, 255):
            with pytest.raises(CorruptEntry):
                decode(KEY, raw[:at] + bytes([raw[at] ^ change]) + raw[at + 1 :], LARGEST)


def test_the_entry_of_another_key_is_corrupt() -> None:
    """A value copied or renamed in Redis is no answer."""
    with pytest.raises(CorruptEntry, match="another key"):
        decode(OTHER_KEY, encode(KEY, ENTRY, 1024), LARGEST)


@given(st.binary(max_size=200))
def test_whatever_else_lies_there_is_corrupt(raw: bytes) -> None:
    """No bytes break it otherwise, with a digest that fits or without."""
    for value in (raw, b"DJ\x01" + raw, forged(raw), forged(raw, b"\x01"), forged(raw, b"\x02")):
        with pytest.raises(CorruptEntry):
            decode(KEY, value, LARGEST)


@pytest.mark.parametrize(
    "changed",
    [{"output": []}, {"output": None}, {"created_at": 1.5}, {"created_at": "1"}, {"created_at": True},
     {"cost_nanos": 0.1}, {"cost_nanos": False}, {"program_version": 1}, {"more": 1}],
    ids=str,
)  # fmt: skip
def test_an_entry_of_wrong_types_is_corrupt(changed: dict[str, Any]) -> None:
    """A forged digest does not make a record of anything."""
    body = {"output": {}, "created_at": 1, "cost_nanos": None, "program_version": "v"}
    assert decode(KEY, forged(orjson.dumps(body)), LARGEST) == CacheEntry({}, 1, None, "v")
    with pytest.raises(CorruptEntry):
        decode(KEY, forged(orjson.dumps(body | changed)), LARGEST)


def test_a_decompression_bomb_is_corrupt_and_never_unpacked() -> None:
    """A thousand times more than an output may have takes no more memory than an output."""
    bomb = forged(zlib.compress(b'{"output":{"a":"' + b"a" * 100_000_000 + b'"}}', 9), b"\x01")
    tracemalloc.start()
    try:
        with pytest.raises(CorruptEntry, match="more than"):
            decode(KEY, bomb, LARGEST)
        assert tracemalloc.get_traced_memory()[1] < 4 * LARGEST + 2 * len(bomb)
    finally:
        tracemalloc.stop()


def test_the_largest_output_is_no_bomb() -> None:
    """An output of exactly the bytes allowed is found, compressed or not; one that is too large is not."""
    entry = CacheEntry({"a": "x" * (LARGEST - len('{"a":""}'))}, 2**53, 2**53, "0123456789ab")
    for compress_above in (1, 2 * LARGEST):
        raw = encode(KEY, entry, compress_above)
        assert decode(KEY, raw, LARGEST) == entry
        with pytest.raises(CorruptEntry, match="more than"):
            decode(KEY, raw, LARGEST - ENVELOPE_BYTES)
