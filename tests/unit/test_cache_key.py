"""Equal questions have equal keys, and only they."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace
from fractions import Fraction
from typing import Any
from unicodedata import normalize

import orjson
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from pydantic import BaseModel, create_model

from dspy_jobs.cache_key import DEEPEST, KeySubject, cache_key, canonical, filled

SUBJECT = KeySubject("0123456789ab", "small", "openai/gpt-x", "http://here/v1", "", "", {"temperature": 0.5})
QUESTION = {"type": "object", "properties": {"question": {"type": "string"}}}

# Few of each kind, so that two drawn values are often nearly the same: é in both forms, the ligature ﬁ and `fi`.
TEXTS = st.sampled_from(
    ["", "a", "1", "é", "e\u0301", "ﬁ", "fi", "Å", "\u212b", "A\u030a", "null", "true", '","', "\x00"]
)
NUMBERS = st.one_of(
    st.sampled_from(
        [0, 0.0, -0.0, 1, 1.0, -1, 10, 1e1, 2**53, 2**53 + 1, float(2**53), 2**64, 2.0**64, 1e300, 10**300]
    ),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
)
LEAVES = st.one_of(st.none(), st.booleans(), TEXTS, NUMBERS)
JSON = st.recursive(
    LEAVES, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3))
)


def meaning(value: Any) -> Any:
    """What a JSON value says, spelled so that `==` is the same meaning; written apart from the code it judges."""
    if isinstance(value, bool) or value is None:
        return ("constant", value)
    if isinstance(value, (int, float)):
        return ("number", Fraction(value))
    if isinstance(value, str):
        return ("text", normalize("NFC", value))
    if isinstance(value, list):
        return ("list", tuple(map(meaning, value)))
    return ("object", frozenset((normalize("NFC", name), meaning(item)) for name, item in value.items()))


def one_spelling_a_name(value: Any) -> bool:
    """Whether no object has two names that are the same text in two forms."""
    if isinstance(value, list):
        return all(map(one_spelling_a_name, value))
    if not isinstance(value, dict):
        return True
    return len({normalize("NFC", n) for n in value}) == len(value) and all(map(one_spelling_a_name, value.values()))


@st.composite
def respelled(draw: st.DrawFn, value: Any) -> Any:
    """The same value in other words: other order, other forms of texts, other types of numbers."""
    if isinstance(value, str):
        return normalize(draw(st.sampled_from(["NFC", "NFD"])), value)
    if isinstance(value, float) and value.is_integer():
        return draw(st.sampled_from([value, int(value), -0.0 if value == 0 else value]))
    if type(value) is int and abs(value) < 2**1000 and int(float(value)) == value:
        return draw(st.sampled_from([value, float(value)]))
    if isinstance(value, list):
        return [draw(respelled(item)) for item in value]
    if isinstance(value, dict):
        names = draw(st.permutations(list(value)))
        return {draw(respelled(name)): draw(respelled(value[name])) for name in names}
    return value


def key(inputs: dict[str, Any], schema: dict[str, Any] | None = None, **changed: Any) -> str:
    """The key of inputs, with parts of the subject changed."""
    return cache_key(replace(SUBJECT, **changed), inputs, QUESTION if schema is None else schema)


@given(st.data(), JSON)
def test_the_same_value_in_other_words_is_written_alike(data: st.DataObject, value: Any) -> None:
    """Order, Unicode form and the spelling of numbers do not matter, at any depth."""
    assume(one_spelling_a_name(value))
    assert canonical(data.draw(respelled(value))) == canonical(value)


@given(JSON, JSON)
@example({"a": [1]}, {"a": [True]})
@example(["a", "b"], ["a,b"])
@example({"a": None}, {})
def test_values_are_written_alike_only_if_they_mean_the_same(one: Any, other: Any) -> None:
    """Both ways, for any two values."""
    assume(one_spelling_a_name(one) and one_spelling_a_name(other))
    assert (canonical(one) == canonical(other)) == (meaning(one) == meaning(other))


@given(st.dictionaries(TEXTS, LEAVES, max_size=6), st.dictionaries(TEXTS, LEAVES, max_size=6))
@example({"é": 1, "e\u0301": 2}, {"é": 2, "e\u0301": 1})
@example({"é": 1, "e\u0301": 2}, {"é": 1})
def test_no_member_is_lost_when_two_names_are_one_text(one: dict[str, Any], other: dict[str, Any]) -> None:
    """An object with both forms of a name is like no other object; it stays the same in any order."""
    if not (one_spelling_a_name(one) and one_spelling_a_name(other)):
        exactly = {name: meaning(item) for name, item in one.items()} == {n: meaning(i) for n, i in other.items()}
        assert not exactly or canonical(one) == canonical(other)
        assert one_spelling_a_name(one) == one_spelling_a_name(other) or canonical(one) != canonical(other)
    assert canonical(dict(reversed(one.items()))) == canonical(one)


@given(JSON)
def test_what_is_written_is_json_of_the_same_meaning(value: Any) -> None:
    """Canonical JSON is JSON."""
    assume(one_spelling_a_name(value))
    assert meaning(json.loads(canonical(value))) == meaning(value)


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_texts_differ_unless_they_are_the_same_in_nfc(text: str) -> None:
    """NFD is the same text; NFKC, where it differs, is another."""
    assert key({"question": normalize("NFD", text)}) == key({"question": normalize("NFC", text)})
    compatible = normalize("NFKC", text)
    if compatible != normalize("NFC", text):
        assert key({"question": compatible}) != key({"question": text})


@pytest.mark.parametrize(
    ("one", "other"),
    [(1, True), (0, False), ("1", 1), ("", None), ([], {}), ([], None), ([1, 2], [2, 1]), ([1, [2]], [[1], 2]),
     (2**53, 2**53 + 1), (0.1, 0.1 + 2**-56), ("a b", "ab"), ("A", "a"), ("null", None), (" a", "a"), ([[]], [])],
)  # fmt: skip
def test_what_only_looks_alike_has_another_key(one: Any, other: Any) -> None:
    """Types, order, case and spaces matter."""
    assert key({"question": one}) != key({"question": other})
    assert key({"question": {"deep": [one]}}) != key({"question": {"deep": [other]}})


def test_a_key_is_forty_hex_digits_for_ever() -> None:
    """The format does not change by accident: these keys are stored."""
    assert key({"question": "Why?"}) == GOLDEN
    assert len(GOLDEN) == 40


@pytest.mark.parametrize(
    "changed",
    [{"program_version": "0123456789ac"}, {"variant": "b"}, {"model": "large"}, {"model_id": "openai/gpt-y"},
     {"base_url": "http://there/v1"}, {"base_url": None}, {"base_url": ""}, {"namespace": "n"}, {"parameters": {}},
     {"parameters": {"temperature": 0.5, "n": 1}}, {"parameters": {"temperature": 0.6}},
     {"parameters": {"temperature": "0.5"}}, {"parameters": {"temperature": 0.5, "stop": []}}],
    ids=str,
)  # fmt: skip
def test_each_part_of_the_subject_changes_the_key(changed: dict[str, Any]) -> None:
    """One at a time."""
    assert key({"question": "Why?"}, **changed) != key({"question": "Why?"})


SUBJECTS = st.builds(
    KeySubject,
    *[TEXTS] * 3,
    st.none() | TEXTS,
    *[TEXTS] * 2,
    st.dictionaries(TEXTS, LEAVES, max_size=2),
)


@given(SUBJECTS, SUBJECTS, st.dictionaries(TEXTS, JSON, max_size=2), st.dictionaries(TEXTS, JSON, max_size=2))
def test_nothing_in_one_part_reads_like_another(
    one: KeySubject, other: KeySubject, first: dict[str, Any], second: dict[str, Any]
) -> None:
    """Quotes, commas and equal texts in neighboring parts never make two questions one."""
    parts = [
        [s.program_version, s.variant, s.model, s.model_id, s.base_url, s.namespace,
         {n: v for n, v in s.parameters.items() if v is not None}, inputs]
        for s, inputs in ((one, first), (other, second))
    ]  # fmt: skip
    assume(all(map(one_spelling_a_name, parts)))
    equal = cache_key(one, first, {}) == cache_key(other, second, {})
    assert equal == (meaning(parts[0]) == meaning(parts[1]))


@given(st.sets(st.sampled_from(["a", "b", "c"])), st.dictionaries(st.sampled_from(["a", "b", "c"]), NUMBERS))
def test_a_parameter_that_is_null_was_not_given(nulls: set[str], parameters: dict[str, Any]) -> None:
    """Absent and null are one."""
    with_nulls = dict.fromkeys(sorted(nulls)) | parameters
    assert key({}, parameters=with_nulls) == key({}, parameters=parameters)


def test_a_null_below_a_parameter_is_said() -> None:
    """Only a parameter of itself is left out."""
    assert key({}, parameters={"a": {"b": None}}) != key({}, parameters={"a": {}})


# --- defaults ---------------------------------------------------------------------------------------------------


class Leaf(BaseModel):
    """A record with nothing but defaults."""

    size: int = 3
    unit: str = "cm"


class Tree(BaseModel):
    """Defaults in a record, behind a reference, in a list, a tuple and a mapping."""

    name: str
    leaf: Leaf = Leaf()
    leaves: list[Leaf] = []
    pair: tuple[Leaf, int] = (Leaf(), 1)
    by_name: dict[str, Leaf] = {}
    children: list[Tree] = []
    either: Leaf | None = None


Inputs = create_model("Inputs", tree=(Tree, ...), count=(int, 3))
SCHEMA = Inputs.model_json_schema()
LEAF = st.fixed_dictionaries({}, optional={"size": st.integers(0, 4), "unit": st.sampled_from(["cm", "m"])})
TREES = st.deferred(
    lambda: st.fixed_dictionaries(
        {"name": st.sampled_from(["x", "y"])},
        optional={
            "leaf": LEAF,
            "leaves": st.lists(LEAF, max_size=2),
            "pair": st.tuples(LEAF, st.integers(0, 2)).map(list),
            "by_name": st.dictionaries(st.sampled_from(["a", "b"]), LEAF, max_size=2),
            "children": st.lists(TREES, max_size=2),
            "either": st.none(),
        },
    )
)
ALL_INPUTS = st.fixed_dictionaries({"tree": TREES}, optional={"count": st.integers(2, 4)})


@given(ALL_INPUTS, ALL_INPUTS)
def test_a_default_given_and_a_default_left_out_are_one_question(one: dict[str, Any], other: dict[str, Any]) -> None:
    """At every depth: keys are equal exactly where the program would be given equal values."""
    same = Inputs.model_validate(one) == Inputs.model_validate(other)
    assert (key(one, SCHEMA) == key(other, SCHEMA)) == same
    assert key(Inputs.model_validate(one).model_dump(mode="json"), SCHEMA) == key(one, SCHEMA)


@given(ALL_INPUTS)
def test_filling_in_changes_nothing_that_was_there(inputs: dict[str, Any]) -> None:
    """Neither the inputs nor the schema."""
    before, schema = copy.deepcopy(inputs), copy.deepcopy(SCHEMA)
    result = filled(inputs, SCHEMA)
    assert inputs == before
    assert schema == SCHEMA
    assert filled(result, SCHEMA) == result


def test_what_stands_in_any_of_is_not_filled_in() -> None:
    """Which of several types a value has is not guessed."""
    schema = {"properties": {"x": {"anyOf": [{"properties": {"a": {"default": 1}}}, {"type": "null"}]}}}
    assert filled({"x": {}}, schema) == {"x": {}}


def test_all_of_is_filled_in() -> None:
    """Every part of it holds."""
    schema = {"allOf": [{"properties": {"a": {"default": 1}}}, {"$ref": "#/$defs/b~1c"}],
              "$defs": {"b/c": {"properties": {"b": {"default": 2}}}}}  # fmt: skip
    assert filled({}, schema) == {"a": 1, "b": 2}


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#", "default": 1},
        {"allOf": [{"$ref": "#"}, {"$ref": "#"}], "properties": {"a": {"default": {}, "$ref": "#"}}},
        {"properties": {"a": {"$ref": "#", "default": {}}}},
        {"properties": {"a": {"$ref": "#/$defs/b", "default": {}}},
         "$defs": {"b": {"properties": {"c": {"$ref": "#", "default": {}}}}}},
        {"$ref": "#/no/where", "properties": {"a": {"$ref": "elsewhere", "default": 1}}},
        {"properties": {"a": True, "b": {"default": 1}}, "items": False, "additionalProperties": False},
    ],
)  # fmt: skip
def test_a_schema_that_leads_to_itself_ends(schema: dict[str, Any]) -> None:
    """Whatever the schema, the answer is finite and the same again."""
    assert key({"a": {}}, schema) == key({"a": {}}, copy.deepcopy(schema))
    assert key({}, schema) != key({"z": 1}, schema)
    assert filled([], schema) == []


# --- whatever comes ---------------------------------------------------------------------------------------------


def nested(depth: int, kind: str) -> Any:
    """A value of so many objects or lists inside one another."""
    value: Any = {} if kind == "object" else []
    for _ in range(depth - 1):
        value = {"é": value} if kind == "object" else [value]
    return value


@pytest.mark.parametrize("kind", ["object", "list"])
def test_depth_is_bounded(kind: str) -> None:
    """As deep as documented, and refused beyond instead of breaking; defaults make no difference."""
    schema = {"additionalProperties": {"$ref": "#"}, "items": {"$ref": "#"}, "properties": {"d": {"default": 1}}}
    canonical(nested(DEEPEST, kind))
    for depth in (DEEPEST + 1, 254, 255, 1024):
        with pytest.raises(ValueError, match="inside one another"):
            canonical(nested(depth, kind))
        with pytest.raises(ValueError, match="inside one another"):
            key({"a": nested(depth, kind)}, schema)
    assert key({"a": nested(DEEPEST // 2, kind)}, schema) != key({"a": nested(DEEPEST // 2 + 1, kind)}, schema)


def test_both_forms_of_a_name_at_every_level_take_no_longer() -> None:
    """Names that are one text are found without reading what is below them twice."""
    value: Any = {}
    for _ in range(DEEPEST - 1):
        value = {"é": value, "e\u0301": 1}
    assert canonical(value) == canonical(copy.deepcopy(value))


@pytest.mark.parametrize(
    "value",
    ["\ud800", {"\udfff": 1}, {"a": "\ud800"}, math.nan, [math.inf], {1: 2}, {"a": {None: 1}}, b"a", {"a": {1, 2}},
     (1, 2), object(), 10**5000],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_what_is_no_json_is_refused(value: Any) -> None:
    """With the documented error and no other."""
    with pytest.raises(ValueError, match=r"."):
        canonical(value)
    with pytest.raises(ValueError, match=r"."):
        key({"question": value})
    with pytest.raises(ValueError, match=r"."):
        key({}, parameters={"p": value})


@given(st.text(), st.integers(-(10**30), 10**30))
def test_numbers_read_by_another_parser_have_the_same_key(text: str, number: int) -> None:
    """Python keeps large integers, orjson reads them as floats: what is equal stays equal."""
    read = orjson.loads(str(number))
    assert (canonical(read) == canonical(number)) == (read == number)


GOLDEN = "a8f5ad01eda659f64e5e5d435090cd2678d644a9"
