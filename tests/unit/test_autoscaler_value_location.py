"""A location finds in an answer what KEDA's GJSON would, and never guesses."""

from __future__ import annotations

from typing import Any

import pytest

from autoscaler.value_location import LocationError, number_at, parse_location

DOCUMENT: dict[str, Any] = {
    "work": 18.5,
    "text": "1500m",
    "word": "many",
    "flag": True,
    "nothing": None,
    "a.b": {"c": 1},
    "list": [{"x": 1}, {"x": 2, "inner": {"name": "q", "n": 3}}],
    "queues": [{"name": "dspy.a", "work": 4}, {"name": "dspy.b", "work": 5}],
}


@pytest.mark.parametrize(
    ("location", "value"),
    [
        ("work", 18.5),
        ("text", 1.5),
        (r"a\.b.c", 1),
        ("list.1.x", 2),
        ("list.#", 2),
        ('queues.#(name=="dspy.b").work', 5),
        ("list.#(x>1).x", 2),
        ("list.#(x!=1).x", 2),
        ("list.#(inner.n>=3).x", 2),
    ],
)
def test_what_is_there_is_found(location: str, value: float) -> None:
    """Names, escaped dots, positions, counts and first matches lead to numbers or quantities."""
    assert number_at(DOCUMENT, location) == value


@pytest.mark.parametrize(
    "location",
    ["word", "flag", "nothing", "missing", "list", "list.7.x", "list.x", "work.x", 'queues.#(name=="none").work',
     'list.#(x=="1").x'],
)  # fmt: skip
def test_anything_but_a_number_is_an_error(location: str) -> None:
    """True, null, other texts and missing places are errors, never 0."""
    with pytest.raises(LocationError):
        number_at(DOCUMENT, location)


@pytest.mark.parametrize("location", ["", "a.", ".a", "a..b", "a*", "a|b", "@reverse", "a.#(x)", "a.#(x==1)#"])
def test_what_is_not_understood_is_refused(location: str) -> None:
    """GJSON has more; whatever is not implemented here is an error before anything is read."""
    with pytest.raises(LocationError):
        parse_location(location)
