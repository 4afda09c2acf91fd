"""The example inputs are what the documentation and the demo promise of them."""

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
INPUT_FIELDS = {"qa": "question", "classify": "ticket", "extract": "text"}


def input_text(line: dict[str, Any]) -> str:
    """The one input of a line."""
    return str(line["inputs"][INPUT_FIELDS[line["program"]]])


@pytest.fixture(scope="module")
def questions() -> list[dict[str, Any]]:
    """Every line of the questions."""
    text = (EXAMPLES / "questions.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.removesuffix("\n").split("\n")]


@pytest.fixture(scope="module")
def tickets() -> list[dict[str, str]]:
    """Every row of the tickets."""
    with (EXAMPLES / "tickets.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, strict=True))


def test_every_line_is_one_batch_item(questions: list[dict[str, Any]]) -> None:
    """Each line holds a program, a custom_id and exactly the inputs that the program takes."""
    for line in questions:
        assert line.keys() == {"program", "custom_id", "inputs"}, line
        assert line["inputs"].keys() == {INPUT_FIELDS[line["program"]]}, line
        assert all(isinstance(value, str) for value in (line["custom_id"], *line["inputs"].values())), line


def test_custom_ids_are_unique(questions: list[dict[str, Any]]) -> None:
    """Results can be matched to the lines by custom_id alone."""
    assert len({line["custom_id"] for line in questions}) == len(questions)


def test_there_are_enough_of_each_program(questions: list[dict[str, Any]]) -> None:
    """At least 200 inputs in all and 40 for each of the three programs."""
    shares = Counter(line["program"] for line in questions)
    assert len(questions) >= 200
    assert {name for name, share in shares.items() if share >= 40} == set(INPUT_FIELDS)


def test_no_input_repeats_another(questions: list[dict[str, Any]]) -> None:
    """Inputs differ beyond case, spaces and numbers, so no result can come from another's cache entry."""
    worded = Counter("".join(filter(str.isalpha, input_text(line).casefold())) for line in questions)
    assert [text for text, times in worded.items() if times > 1] == []


def test_inputs_have_a_sensible_length(questions: list[dict[str, Any]]) -> None:
    """Every input has between 15 and 4,000 characters."""
    assert [line["custom_id"] for line in questions if not 15 <= len(input_text(line)) <= 4000] == []


def test_csv_has_the_documented_columns(tickets: list[dict[str, str]]) -> None:
    """The CSV file reads as `custom_id,ticket`, every cell filled, ids unique."""
    assert len(tickets) >= 10
    for row in tickets:
        assert list(row) == ["custom_id", "ticket"], row
        assert all(row.values()), row
    assert len({row["custom_id"] for row in tickets}) == len(tickets)


@pytest.mark.parametrize("character", [",", '"', "\n"])
def test_csv_exercises_quoting(tickets: list[dict[str, str]], character: str) -> None:
    """Commas, quotes and line breaks occur inside tickets, where naive splitting would break them."""
    assert any(character in row["ticket"] for row in tickets)
