"""Bodies are split into lines as they arrive."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from api.lines import LineSplitter

LONGEST = 8


def split(chunks: list[bytes]) -> list[tuple[int, bytes | None]]:
    """All lines of a body that arrives in these chunks."""
    splitter = LineSplitter(LONGEST)
    found = [line for chunk in chunks for line in splitter.feed(chunk)]
    return found + list(splitter.finish())


@given(st.lists(st.text("ab \r", max_size=12).map(str.encode)), st.lists(st.integers(0, 60)))
def test_how_a_body_is_cut_makes_no_difference(lines: list[bytes], cuts: list[int]) -> None:
    """Every line comes once with its number, blank ones left out, long ones without their text."""
    body = b"\n".join(lines)
    places = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    chunks = [body[start:end] for start, end in pairwise(places)]
    expected = [
        (number, line if len(line) <= LONGEST else None)
        for number, line in enumerate(lines, 1)
        if len(line) > LONGEST or line.strip()
    ]
    assert split(chunks) == expected


def test_a_long_line_is_never_held() -> None:
    """A line beyond the limit keeps no memory, however long it grows."""
    splitter = LineSplitter(LONGEST)
    for _ in range(1000):
        assert list(splitter.feed(b"x" * 100)) == []
        assert splitter._parts == []
    assert list(splitter.feed(b"\nok\n")) == [(1, None), (2, b"ok")]


def test_a_byte_order_mark_is_no_part_of_the_first_line() -> None:
    """UTF-8 with a BOM is read like UTF-8 without."""
    assert split([b"\xef\xbb", b"\xbf{}\n{}"]) == [(1, b"{}"), (2, b"{}")]
