"""Formulas compute what expr-lang computes, and nothing but arithmetic is accepted."""

from __future__ import annotations

import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autoscaler.formula import FormulaError, parse_formula

#: A busy machine must not fail a property.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

VALUES: dict[str, float | None] = {"a": 8.0, "b": 3.0, "c": 2.0, "none": None, "_x1": 1.5, "min": 4.0}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a", 8.0),
        ("a + b * c", 14.0),
        ("(a + b) * c", 22.0),
        ("a - b - c", 3.0),
        ("a / b / c", 8.0 / 3.0 / 2.0),
        ("7 / 2", 3.5),
        ("-a + b", -5.0),
        ("2 * -b", -6.0),
        ("+a - -b", 11.0),
        (".5 * a + 1e1", 14.0),
        ("max(a, b, c)", 8.0),
        ("min(a + 1, b * c)", 6.0),
        ("max(a)", 8.0),
        ("min + _x1", 5.5),
        ("none ?? a", 8.0),
        ("a ?? b", 8.0),
        ("none ?? none ?? c", 2.0),
        ("b + none ?? c", 5.0),
        ("b * none ?? c + a", 14.0),
        ("-none ?? c", -2.0),
        ("none ?? (b + c)", 5.0),
        ("(none ?? b) + c", 5.0),
        ("none ?? max(b, c)", 3.0),
        ("\n a\t+\n b ", 11.0),
    ],
)
def test_formulas_compute(text: str, expected: float) -> None:
    """A formula gives expr-lang's value, with ``??`` binding tighter than any other operator."""
    assert parse_formula(text).evaluate(VALUES) == expected


def test_a_formula_of_nil_is_nil() -> None:
    """A formula whose every alternative is nil has no value, instead of a made-up one."""
    assert parse_formula("none ?? none").evaluate(VALUES) is None


@pytest.mark.parametrize("text", ["none + 1", "1 - none", "-none", "max(a, none)", "a / none", "none * none"])
def test_nil_in_arithmetic_is_an_error(text: str) -> None:
    """A trigger without a value never counts as 0 inside arithmetic."""
    with pytest.raises(FormulaError, match=r"\?\?"):
        parse_formula(text).evaluate(VALUES)


def test_division_by_zero_is_ieee754() -> None:
    """Dividing by zero gives infinity or NaN as in Go, never an exception in the middle of a decision."""
    assert parse_formula("a / 0").evaluate(VALUES) == math.inf
    assert parse_formula("-a / 0").evaluate(VALUES) == -math.inf
    assert math.isnan(parse_formula("0 / 0").evaluate(VALUES) or 0.0)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("a > b", "'> b'"),
        ("a > b ? 1 : 0", "'> b"),
        ("a ? b : c", "'? b : c'"),
        ("a ** b", "expected a trigger name"),
        ("a % b", "'% b'"),
        ("a ^ b", "'^ b'"),
        ("a.b", "'.b'"),
        ("a[0]", "'[0]'"),
        ("'x'", "\"'x'\""),
        ("a; b", "'; b'"),
        ("float(a)", "function float()"),
        ("len(a)", "function len()"),
        ("__import__(a)", "function __import__()"),
        ("a b", "unexpected 'b'"),
        ("a 1", "unexpected '1'"),
        ("1 a", "unexpected 'a'"),
        ("(a", "expected ')'"),
        ("a)", "unexpected ')'"),
        ("a +", "the end"),
        ("", "the end"),
        ("()", "expected a trigger name"),
        ("max()", "expected a trigger name"),
        ("max(a,)", "expected a trigger name"),
        ("max(a b)", "expected ')'"),
        ("min", None),
        ("a ?? b + c", "put the ?? part in parentheses"),
        ("c + a ?? b * c", "put the ?? part in parentheses"),
        ("a ? ? b", "'? ? b'"),
        ("é", "'é'"),
        ("a" + " + a" * 200, "shorten it"),
        ("(" * 400 + "a" + ")" * 400, "shorten it"),
    ],
)
def test_anything_else_is_refused_at_once(text: str, part: str | None) -> None:
    """What is not arithmetic over triggers is refused when read, and the error names the part."""
    if part is None:
        assert parse_formula(text).names == {"min"}
        return
    with pytest.raises(FormulaError) as refused:
        parse_formula(text)
    assert part in str(refused.value)


def test_deepest_formula_is_read() -> None:
    """The longest formula allowed cannot exhaust the reader's stack."""
    assert parse_formula("(" * 249 + "a" + ")" * 249).evaluate(VALUES) == 8.0


def test_names_are_those_of_triggers() -> None:
    """A formula knows which triggers it needs."""
    assert parse_formula("work ?? max(waiting + unacked, 1)").names == {"work", "waiting", "unacked"}


_LEAVES = st.one_of(
    st.sampled_from(["a", "b", "c"]), st.integers(0, 99).map(str), st.floats(0, 9).map(lambda value: f"{value:.2f}")
)
_EXPRESSIONS = st.recursive(
    _LEAVES,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*"]), inner).map(" ".join),
        inner.map(lambda text: f"({text})"),
        st.tuples(st.sampled_from(["min", "max"]), inner, inner).map(lambda p: f"{p[0]}({p[1]}, {p[2]})"),
    ),
    max_leaves=12,
)


@patient
@given(_EXPRESSIONS)
def test_arithmetic_agrees_with_python(text: str) -> None:
    """Without ``??``, precedence and values agree with Python's own reading of the same text."""
    names = {"a": 8.0, "b": 3.0, "c": 2.0}
    assert parse_formula(text).evaluate(names) == eval(text, {"min": min, "max": max}, dict(names))


@patient
@given(st.text(max_size=40))
def test_no_text_escapes(text: str) -> None:
    """Any text either is a formula over names or is refused with a FormulaError, never another exception."""
    try:
        formula = parse_formula(text)
    except FormulaError:
        return
    assert all(name.isidentifier() for name in formula.names)
