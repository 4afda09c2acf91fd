"""Reading the items of a batch from files as people have them."""

from __future__ import annotations

import io
from typing import Any

import pytest

from dspy_jobs.cli.failures import InputMistake
from dspy_jobs.cli.items import Item, by_program, read_items

Q = {"inputs": {"question": "a"}}


def read(content: bytes, name: str = "x.jsonl", program: str | None = None) -> list[tuple[int, str, dict[str, Any]]]:
    """The items in these bytes."""
    return [(item.line, item.program, item.fields) for item in read_items(io.BytesIO(content), name, program)]


@pytest.mark.parametrize(
    ("content", "program", "items"),
    [
        (b'{"program":"qa","inputs":{"question":"a"}}', None, [(1, "qa", Q)]),
        (b'{"inputs":{"question":"a"}}\n', "qa", [(1, "qa", Q)]),
        (b'{"program":"b","inputs":{"question":"a"}}\n', "qa", [(1, "b", Q)]),
        (b'{"question":"a"}\n', "qa", [(1, "qa", Q)]),
        (b'{"question":"a","custom_id":"1"}\n', "qa", [(1, "qa", {**Q, "custom_id": "1"})]),
        (b'{"question":"a","custom_id":null}\n', "qa", [(1, "qa", Q)]),
        (b'\xef\xbb\xbf{"question":"a"}\r\n\r\n  \n{"question":"a"}', "qa", [(1, "qa", Q), (4, "qa", Q)]),
        ('{"question":"ü\u2028ß"}\n'.encode(), "qa", [(1, "qa", {"inputs": {"question": "ü\u2028ß"}})]),
        (
            b'{"n":123456789012345678901234567890}\n',
            "qa",
            [(1, "qa", {"inputs": {"n": 123456789012345678901234567890}})],
        ),
        (b'{"input":"2+2"}\n', None, [(1, "predict", {"input": "2+2"})]),
        (b'{"input":"2+2"}\n', "qa", [(1, "qa", {"inputs": {"input": "2+2"}})]),
        (b'{"question":"=1+1"}', "qa", [(1, "qa", {"inputs": {"question": "=1+1"}})]),
    ],
)
def test_jsonl(content: bytes, program: str | None, items: list[Any]) -> None:
    """Whole items and bare inputs, with byte order mark, CRLF, empty lines and odd line separators."""
    assert read(content, program=program) == items


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "is not JSON"),
        (b'{"a":1} {"a":2}', "Extra data"),
        (b"[1]", "is not an object"),
        (b"7", "is not an object"),
        (b'{"a":NaN}', "NaN is not a number JSON knows"),
        (b'{"a":"\\ud800"}', "surrogate"),
        (b"[" * 100_000, "is not JSON"),
        (b'{"a":"\xff"}', "is not UTF-8 text (byte 7)"),
        (b'{"a":1}', "names no program"),
        (b'{"program":7,"inputs":{}}', "names no program"),
        (b'{"program":"qa"}', "give `inputs`"),
        (b'{"program":"qa","inputs":[1]}', "inputs: Input should be"),
        (b'{"program":"qa","inputs":{},"modle":"x"}', "unknown field `modle`"),
        (b'{"program":"qa","inputs":{},"custom_id":7}', "custom_id: Input should be a valid string"),
        ('{"a":"ü"}'.encode("utf-16"), "is not UTF-8"),
    ],
)
def test_a_bad_line_is_named(line: bytes, reason: str) -> None:
    """The mistake is told with the number of its line."""
    good = b'{"program":"qa","inputs":{"question":"a"}}\n'
    with pytest.raises(InputMistake) as mistake:
        read(good + b"\n" + line + b"\n" + good)
    assert "line 3: " in str(mistake.value)
    assert reason in str(mistake.value)


def test_all_bad_lines_are_counted_and_the_first_are_shown() -> None:
    """A thousand mistakes are one readable message."""
    with pytest.raises(InputMistake) as mistake:
        read(b"{\n" * 1000)
    text = str(mistake.value)
    assert "1000 bad line(s)" in text
    assert [f"line {n}:" in text for n in (1, 20, 21)] == [True, True, False]
    assert "980 more" in text


@pytest.mark.parametrize(
    ("content", "items"),
    [
        (b"question\na\n", [(2, "qa", Q)]),
        (b"\xef\xbb\xbfquestion\r\na\r\n", [(2, "qa", Q)]),
        (b"question,custom_id\na,1\na,\n", [(2, "qa", {**Q, "custom_id": "1"}), (3, "qa", Q)]),
        (b"question\n\na\n\n\na", [(3, "qa", Q), (6, "qa", Q)]),
        (
            b'question\n"a,""b""\r\nc"\n=1+1\n',
            [(2, "qa", {"inputs": {"question": 'a,"b"\r\nc'}}), (4, "qa", {"inputs": {"question": "=1+1"}})],
        ),
        (b"a,b\n,1\n", [(2, "qa", {"inputs": {"a": "", "b": "1"}})]),
        (b"question\n" + b"x" * 200_000 + b"\n", [(2, "qa", {"inputs": {"question": "x" * 200_000}})]),
    ],
)
def test_csv(content: bytes, items: list[Any]) -> None:
    """Cells are text as they stand, with quotes, line breaks, byte order mark, CRLF and empty lines."""
    assert read(content, "x.CSV", "qa") == items


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"question\na,b\n", "line 2: has 2 cells, the header has 1"),
        (b"question,other\n\na\n", "line 3: has 1 cells, the header has 2"),
        (b'question\na\n"b\nc\n', "line 3: is not CSV: unexpected end of data"),
        (b'question\n"a"b\n', "line 2: is not CSV"),
        (b"question\na\n\xff\nb\n", "line 3: is not UTF-8 text (byte 1)"),
        (b"\xffquestion\na\n", "line 1: is not UTF-8 text"),
        (b"question,question\na,b\n", "line 1: every column"),
        (b"question,\na,b\n", "line 1: every column"),
        (b"question\n", "there are no items"),
        (b"", "there are no items"),
    ],
)
def test_a_bad_csv_is_explained(content: bytes, reason: str) -> None:
    """Every mistake has its line; a row is counted from the line it begins on."""
    with pytest.raises(InputMistake) as mistake:
        read(content, "x.csv", "qa")
    assert reason in str(mistake.value)


def test_csv_needs_a_program() -> None:
    """A CSV file without --program is refused with the remedy."""
    with pytest.raises(InputMistake, match="add --program"):
        read(b"question\na\n", "x.csv")


def test_a_custom_id_is_used_once_in_a_batch() -> None:
    """A repetition is named with the line that had it first; another program's batch is another matter."""
    lines = [b'{"program":"%s","custom_id":"x","inputs":{}}\n' % program for program in (b"a", b"b", b"a")]
    with pytest.raises(InputMistake, match=r"1 bad line.*\n  line 3: the custom_id 'x' is already that of line 1"):
        read(b"".join(lines))


def test_items_are_grouped_by_program_in_order() -> None:
    """Each program's items keep the order of the file."""
    items = [Item(line, program, {}) for line, program in enumerate("abacb", 1)]
    groups = {program: [item.line for item in group] for program, group in by_program(items).items()}
    assert list(groups.items()) == [("a", [1, 3]), ("b", [2, 5]), ("c", [4])]
