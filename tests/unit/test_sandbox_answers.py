"""Values that the sandbox makes for JSON Schemas and field names."""

from __future__ import annotations

import re
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox import answers, findings, patterns
from sandbox.source import Source

INVOICE = """From: Acme Tools GmbH
Invoice INV-2041, 12 March 2025, due 2025-04-12.
3 x Claw hammer @ 12.50
10 x Nails @ 0.99
Total: EUR 1,047.40. Questions: billing@acme.example, +49 30 1234567.
Regards, Ada Lovelace"""

NAMES = st.sampled_from(["answer", "email", "due_date", "quantity", "order_number", "items", "score", "vendor", "x"])


def _bounded(kind: str, numbers: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    ends = st.tuples(numbers, numbers).map(sorted)
    both = ends.map(lambda pair: {"type": kind, "minimum": pair[0], "maximum": pair[1]})
    open_above = numbers.map(lambda low: {"type": kind, "exclusiveMinimum": low})
    open_below = numbers.map(lambda high: {"type": kind, "exclusiveMaximum": high})
    return st.just({"type": kind}) | both | open_above | open_below


def _lengths(kind: str, low: str, high: str) -> st.SearchStrategy[dict[str, Any]]:
    pair = st.tuples(st.integers(0, 60), st.integers(0, 60))
    return pair.map(lambda ends: {"type": kind, low: ends[0], high: ends[0] + ends[1]})


SCALARS = (
    _bounded("integer", st.integers(-1000, 1000))
    | _bounded("number", st.floats(-1000, 1000, allow_nan=False))
    | st.integers(2, 9).map(lambda step: {"type": "integer", "multipleOf": step})
    | _lengths("string", "minLength", "maxLength")
    | st.sampled_from(["date", "date-time", "time", "email", "uri", "uuid", "ipv4", "ipv6", "duration"]).map(
        lambda name: {"type": "string", "format": name}
    )
    | st.sampled_from([r"^[A-Z]{2}-\d{4}$", r"^\+?[0-9]{7,12}$", r"^(yes|no)$", r"^[^@ ]+@[a-z]+\.com$"]).map(
        lambda pattern: {"type": "string", "pattern": pattern}
    )
    | st.lists(st.text(max_size=5) | st.integers(), min_size=1, max_size=4).map(lambda options: {"enum": options})
    | st.sampled_from([{"type": "boolean"}, {"type": "null"}, {"const": "fixed"}, {}])
)


def _record(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _composed(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return (
        st.dictionaries(NAMES, inner, min_size=1, max_size=4).map(_record)
        | inner.map(lambda values: {"type": "object", "additionalProperties": values, "minProperties": 3})
        | inner.map(lambda items: {"type": "array", "items": items, "minItems": 2, "maxItems": 4})
        | st.lists(inner, min_size=1, max_size=3).map(
            lambda members: {
                "type": "array",
                "prefixItems": members,
                "minItems": len(members),
                "maxItems": len(members),
            }
        )
        | inner.map(lambda choice: {"anyOf": [choice, {"type": "null"}]})
        | inner.map(lambda target: {"allOf": [target]})
    )


SCHEMAS = st.recursive(SCALARS, _composed, max_leaves=8)


@given(schema=SCHEMAS, name=NAMES, text=st.text(max_size=40) | st.just(INVOICE))
@settings(max_examples=400, deadline=None)
def test_a_value_satisfies_its_schema(schema: dict[str, Any], name: str, text: str) -> None:
    """Whatever the schema, the name and the input: the value validates."""
    value = answers.answer(name, schema, Source.of({"text": text}))
    validator = jsonschema.Draft202012Validator
    validator(schema, format_checker=validator.FORMAT_CHECKER).validate(value)


@given(schema=SCHEMAS, text=st.text(max_size=20))
@settings(max_examples=50, deadline=None)
def test_the_same_input_gives_the_same_value(schema: dict[str, Any], text: str) -> None:
    """A value is a function of the inputs and the field alone."""
    assert answers.answer("x", schema, Source.of({"t": text})) == answers.answer("x", schema, Source.of({"t": text}))


def test_other_inputs_give_other_values() -> None:
    """Answers to different inputs differ, also when the inputs begin alike."""
    start = "The same beginning, longer than any quotation, " * 5
    texts = {answers.answer("answer", {"type": "string"}, Source.of({"q": f"{start}{n}"})) for n in range(100)}
    assert len(texts) == 100


def test_a_recursive_schema_ends() -> None:
    """A tree whose nodes hold trees yields a finite value that validates."""
    node = {
        "type": "object",
        "properties": {
            "label": {"type": "string"},
            "children": {"type": "array", "items": {"$ref": "#/$defs/Node"}},
            "parent": {"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}]},
        },
        "required": ["label", "children", "parent"],
    }
    schema = {"$defs": {"Node": node}, "$ref": "#/$defs/Node"}
    jsonschema.validate(answers.answer("tree", schema, Source.of({"text": "x"})), schema)


def test_unique_items_are_unique() -> None:
    """A set of options never repeats one, and holds as many as it must."""
    schema = {"type": "array", "items": {"enum": ["a", "b", "c"]}, "uniqueItems": True, "minItems": 3}
    for number in range(20):
        assert sorted(answers.answer("tags", schema, Source.of({"text": str(number)}))) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("email", "billing@acme.example"),
        ("contact_email", "billing@acme.example"),
        ("phone", "+49 30 1234567"),
        ("invoice_number", "INV-2041"),
        ("invoice_date", "2025-03-12"),
        ("due_date", "2025-04-12"),
        ("vendor", "Acme Tools GmbH"),
        ("currency", "EUR"),
        ("total", "1,047.40"),
        ("author", "Acme Tools GmbH"),
    ],
)
def test_what_the_input_says_is_picked_up(name: str, found: str) -> None:
    """Fields with a telling name take their value from the input."""
    assert findings.find(name, INVOICE)[0] == found


def test_line_items_are_read_from_the_input() -> None:
    """A list of records has one record for each line of the input, in its order."""
    item = _record(
        {"description": {"type": "string"}, "quantity": {"type": "integer"}, "unit_price": {"type": "number"}}
    )
    assert answers.answer("line_items", {"type": "array", "items": item}, Source.of({"text": INVOICE})) == [
        {"description": "Claw hammer", "quantity": 3, "unit_price": 12.5},
        {"description": "Nails", "quantity": 10, "unit_price": 0.99},
    ]


def test_a_missing_optional_is_null() -> None:
    """A nullable field whose value the input does not contain is null; one it contains is not."""
    schema = {"anyOf": [{"type": "string"}, {"type": "null"}]}
    assert answers.answer("email", schema, Source.of({"text": "nothing here"})) is None
    assert answers.answer("email", schema, Source.of({"text": "write to a@b.example"})) == "a@b.example"


def test_an_option_that_the_input_mentions_is_chosen() -> None:
    """Of several options the one that stands in the input wins, whatever its case."""
    schema = {"enum": ["billing", "technical", "cancel_account"]}
    for text, option in (("A Technical matter", "technical"), ("please cancel account", "cancel_account")):
        assert answers.answer("category", schema, Source.of({"text": text})) == option


@pytest.mark.parametrize(("written", "value"), [("1,234.50", 1234.5), ("1.234,50", 1234.5), ("12", 12.0), ("x", None)])
def test_numbers_are_read_in_both_notations(written: str, value: float | None) -> None:
    """Thousands and decimals are told apart in English and continental notation."""
    assert findings.number(written) == value


@pytest.mark.parametrize(
    "pattern",
    [r"^[A-Z]{3}\d+$", r"a|b|c{2,4}", r"^(?:x-)?[^a-z]{3}$", r"\w+\s\d", r"^é+$", r"^.{5}$", r"^\S+@\S+$"],
)
def test_a_pattern_is_matched(pattern: str) -> None:
    """A string written for a pattern is found by it, for any choice."""
    for seed in range(50):
        text = patterns.matching(pattern, lambda count, seed=seed: (seed * 7919) % count)  # type: ignore[misc]
        assert re.search(pattern, text or "")


def test_an_unreadable_pattern_is_given_up() -> None:
    """A pattern that Python cannot read yields nothing instead of a wrong string."""
    assert patterns.matching(r"\p{Lu}(", lambda count: 0) is None
