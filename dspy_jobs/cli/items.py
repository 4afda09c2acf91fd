"""Reads the items of a batch from JSONL or CSV and names every bad line before anything is sent."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, NoReturn

from pydantic import ValidationError

from dspy_jobs.cli.failures import InputMistake, first_lines
from dspy_jobs.submissions import BUILT_IN_PROGRAM, BatchItem

_BOM = b"\xef\xbb\xbf"

#: Longest cell of a CSV file, in characters; Python's own limit of 131072 is below one allowed item.
_LONGEST_CELL = 100_000_000


@dataclass(frozen=True)
class Item:
    """One job to submit, with the line of the file it began on."""

    line: int
    program: str
    fields: dict[str, Any]


@dataclass(frozen=True)
class BadLine:
    """A line that is no item, and why."""

    line: int
    reason: str
    program: str | None = None
    """Which it names, if that much is sure."""


def read_items(file: BinaryIO, name: str, program: str | None) -> list[Item]:
    """All items of an open file; `name` tells its format (`….csv`, else JSONL), `program` runs lines without one.

    Raises:
        InputMistake: every bad line, by number, or that there is no item.
    """
    items, wrong = sort_lines(file, name, program)
    if bad := [f"line {entry.line}: {entry.reason}" for entry in wrong]:
        raise InputMistake(f"{name}: {len(bad)} bad line(s), nothing was sent:\n{first_lines(bad)}")
    return items


def sort_lines(file: BinaryIO, name: str, program: str | None) -> tuple[list[Item], list[BadLine]]:
    """The items of an open file, and the lines that are none. `name` and `program` as for `read_items`.

    Raises:
        InputMistake: there is neither, or nothing says which program runs the lines.
    """
    if name.lower().endswith(".csv"):
        if program is None:
            raise InputMistake(f"{name}: a CSV file does not say which program to run; add --program")
        found = list(_csv_items(file, program))
    else:
        found = list(_jsonl_items(file, program))
    if not found:
        raise InputMistake(f"{name}: there are no items in it")
    items = [entry for entry in found if isinstance(entry, Item)]
    wrong = [*(entry for entry in found if isinstance(entry, BadLine)), *_repeated(items)]
    lines = {entry.line for entry in wrong}
    right = [item for item in items if item.line not in lines]
    return right, sorted(wrong, key=lambda entry: entry.line)


def by_program(items: Iterable[Item]) -> dict[str, list[Item]]:
    """The items of each program, both in the file's order."""
    groups: dict[str, list[Item]] = {}
    for item in items:
        groups.setdefault(item.program, []).append(item)
    return groups


def _repeated(items: Iterable[Item]) -> Iterator[BadLine]:
    """Items whose `custom_id` another item of the same batch has."""
    first: dict[tuple[str, str], int] = {}
    for item in items:
        if custom_id := item.fields.get("custom_id"):
            line = first.setdefault((item.program, custom_id), item.line)
            if line != item.line:
                yield BadLine(item.line, f"the custom_id {custom_id!r} is already that of line {line}", item.program)


def _decoded(file: BinaryIO) -> Iterator[tuple[int, str | BadLine]]:
    """The file's lines with their numbers, separated by line feeds alone; a byte order mark is dropped."""
    for number, raw in enumerate(file, 1):
        try:
            yield number, (raw.removeprefix(_BOM) if number == 1 else raw).decode()
        except UnicodeDecodeError as error:
            yield number, BadLine(number, f"is not UTF-8 text (byte {error.start + 1})")


def _jsonl_items(file: BinaryIO, program: str | None) -> Iterator[Item | BadLine]:
    for number, line in _decoded(file):
        if isinstance(line, BadLine):
            yield line
        elif line.strip():
            yield _jsonl_item(number, line, program)


def _jsonl_item(number: int, line: str, program: str | None) -> Item | BadLine:
    try:
        value = json.loads(line, parse_constant=_refuse_constant)
        json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        return BadLine(number, f"is not JSON: {error.msg} (column {error.colno})")
    except UnicodeEncodeError:
        return BadLine(number, "holds half of a surrogate pair, which is no character")
    except (ValueError, RecursionError) as error:
        return BadLine(number, f"is not JSON: {error}")
    if not isinstance(value, dict):
        return BadLine(number, "is not an object: {…}")
    if program is not None and "inputs" not in value:
        return _item(number, program, _flat(value))
    named = value.pop("program", program if "input" not in value else program or BUILT_IN_PROGRAM)
    if not isinstance(named, str) or not named:
        return BadLine(number, 'names no program: add "program", or give --program for all lines')
    return _item(number, named, value)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number JSON knows")


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    """An item whose members are the inputs themselves, beside an optional `custom_id`."""
    label = {"custom_id": values["custom_id"]} if values.get("custom_id") not in (None, "") else {}
    return {"inputs": {name: value for name, value in values.items() if name != "custom_id"}, **label}


def _item(number: int, program: str, fields: dict[str, Any]) -> Item | BadLine:
    """The item if the service would read it."""
    try:
        BatchItem.model_validate(fields)
    except ValidationError as error:
        return BadLine(number, "; ".join(_reason(mistake) for mistake in error.errors()), program)
    return Item(number, program, fields)


def _reason(mistake: Any) -> str:
    place = ".".join(str(part) for part in mistake["loc"])
    if mistake["type"] == "extra_forbidden":
        return f"unknown field `{place}`; an item has program, inputs, custom_id, metadata, variant"
    message = mistake["msg"].removeprefix("Value error, ")
    return f"{place}: {message}" if place else message


def _csv_items(file: BinaryIO, program: str) -> Iterator[Item | BadLine]:
    rows = _csv_rows(file)
    header = next(rows, None)
    if header is None or isinstance(header, BadLine):
        yield from [header] if header else []
        return
    line, names = header
    if "" in names or len(set(names)) < len(names):
        yield BadLine(line, "every column of the header needs a name of its own")
        return
    for row in rows:
        yield row if isinstance(row, BadLine) else _csv_item(*row, names, program)


def _csv_item(line: int, cells: list[str], names: list[str], program: str) -> Item | BadLine:
    if len(cells) != len(names):
        return BadLine(line, f"has {len(cells)} cells, the header has {len(names)}")
    return _item(line, program, _flat(dict(zip(names, cells, strict=True))))


def _csv_rows(file: BinaryIO) -> Iterator[tuple[int, list[str]] | BadLine]:
    """The rows that are not empty, with the line each begins on. Cells are text as they are, never evaluated."""
    undecodable: list[BadLine] = []
    csv.field_size_limit(_LONGEST_CELL)
    rows = csv.reader(_text_lines(file, undecodable), strict=True)
    while True:
        line = rows.line_num + 1
        try:
            row = next(rows)
        except StopIteration:
            break
        except csv.Error as error:
            yield BadLine(line, f"is not CSV: {error}")
            continue
        if row and not undecodable:
            yield line, row
        yield from undecodable
        undecodable.clear()


def _text_lines(file: BinaryIO, undecodable: list[BadLine]) -> Iterator[str]:
    """The file's lines as text; in the place of one that is none stands an empty one."""
    for _, line in _decoded(file):
        if isinstance(line, BadLine):
            undecodable.append(line)
            yield "\n"
        else:
            yield line
