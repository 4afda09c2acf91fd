"""Reads ``scalingModifiers.formula``, because a formula from a file must do arithmetic and nothing else.

The grammar is the part of KEDA's expr-lang that sums up queues: trigger names, numbers, ``+ - * / ??``,
``min``, ``max`` and parentheses, with expr-lang's own precedence (``??`` binds tightest and may not be
followed by another operator without parentheses). Anything else is refused when the file is read. See
``pkg/scaling/modifiers/formula.go``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

#: Longest formula read, in characters.
MAX_LENGTH = 500
#: Parts that may stand inside of one another; keeps the recursive reader far from Python's recursion limit.
MAX_DEPTH = 250

_TOKEN = re.compile(r"\s*(?:(\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+)|([A-Za-z_]\w*)|(\?\?|[-+*/(),]))", re.ASCII)
#: Binding strength of each operator, as in expr-lang's parser/operator table.
_PRECEDENCE = {"+": 30, "-": 30, "*": 60, "/": 60, "??": 500}
_UNARY_PRECEDENCE = 90
_ALLOWED = "trigger names, numbers, + - * / ??, min(), max() and parentheses"

#: A computed part of a formula: from the triggers' values to a number, or None where a trigger has no value.
Node = Callable[[Mapping[str, "float | None"]], "float | None"]


class FormulaError(ValueError):
    """A formula cannot be read, or met a trigger without a value outside ``??``."""


@dataclass(frozen=True)
class Formula:
    """A checked formula. Two formulas are equal when their text is."""

    text: str
    names: frozenset[str]
    node: Node = field(compare=False, repr=False)

    def evaluate(self, values: Mapping[str, float | None]) -> float | None:
        """Compute the composite metric; None if the whole formula is nil.

        Raises FormulaError if arithmetic meets a trigger that has no value.
        """
        return self.node(values)


def parse_formula(text: str) -> Formula:
    """Read a formula; raises FormulaError naming the first part that is not allowed."""
    if len(text) > MAX_LENGTH:
        raise FormulaError(f"formula has {len(text)} characters; shorten it to {MAX_LENGTH} or fewer")
    reader = _Reader(list(_tokens(text)))
    node = reader.expression(0)
    if reader.current != "":
        raise FormulaError(f"unexpected {reader.current!r} in formula {text!r}; remove it or add an operator")
    return Formula(text, frozenset(reader.names), node)


def _tokens(text: str) -> Iterator[str]:
    position, end = 0, len(text.rstrip())
    while position < end:
        match = _TOKEN.match(text, position)
        if match is None:
            rest = text[position:].strip()
            raise FormulaError(f"{rest[:20]!r} is not allowed in a formula; use only {_ALLOWED}")
        yield match[match.lastindex or 0]
        position = match.end()


class _Reader:
    """Precedence climbing over the tokens, step for step as expr-lang's ``parseExpression``."""

    def __init__(self, tokens: Sequence[str]) -> None:
        self._tokens = [*tokens, ""]
        self._position = self._depth = 0
        self.names: set[str] = set()

    @property
    def current(self) -> str:
        return self._tokens[self._position]

    def _take(self) -> str:
        token = self.current
        self._position += 1
        return token

    def _expect(self, token: str) -> None:
        if self.current != token:
            raise FormulaError(f"expected {token!r} but found {self.current or 'the end'!r} in the formula")
        self._position += 1

    def expression(self, precedence: int) -> Node:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise FormulaError(f"the formula is nested more than {MAX_DEPTH} deep; simplify it")
        left = self._primary()
        previous = ""
        while _PRECEDENCE.get(self.current, -1) >= precedence:
            operator = self._take()
            if previous == "??" and operator != "??":
                raise FormulaError(f"{operator!r} directly after ?? is ambiguous; put the ?? part in parentheses")
            left = _binary(operator, left, self.expression(_PRECEDENCE[operator] + 1))
            previous = operator
        self._depth -= 1
        return left

    def _primary(self) -> Node:
        first = self._take() if self.current else ""
        if first in ("+", "-"):
            return _negated(first, self.expression(_UNARY_PRECEDENCE))
        if first == "(":
            inner = self.expression(0)
            self._expect(")")
            return inner
        if first[:1].isdigit() or first[:1] == ".":
            return _number(float(first))
        if first[:1].isalpha() or first[:1] == "_":
            return self._call(first) if self.current == "(" else self._name(first)
        raise FormulaError(f"expected a trigger name or a number but found {first or 'the end'!r} in the formula")

    def _name(self, name: str) -> Node:
        self.names.add(name)
        return lambda values: values[name]

    def _call(self, function: str) -> Node:
        if function not in ("min", "max"):
            raise FormulaError(f"function {function}() is not allowed in a formula; use only {_ALLOWED}")
        self._expect("(")
        arguments = [self.expression(0)]
        while self.current == ",":
            self._expect(",")
            arguments.append(self.expression(0))
        self._expect(")")
        return _extreme(min if function == "min" else max, function, arguments)


def _number(value: float) -> Node:
    return lambda _values: value


def _negated(sign: str, operand: Node) -> Node:
    factor = -1.0 if sign == "-" else 1.0
    return lambda values: factor * _given(operand(values), f"unary {sign}")


def _binary(operator: str, left: Node, right: Node) -> Node:
    if operator == "??":
        return lambda values: right(values) if (value := left(values)) is None else value
    compute = _ARITHMETIC[operator]
    return lambda values: compute(_given(left(values), operator), _given(right(values), operator))


def _extreme(choose: Callable[[Iterator[float]], float], name: str, arguments: Sequence[Node]) -> Node:
    return lambda values: choose(_given(argument(values), f"{name}()") for argument in arguments)


def _given(value: float | None, where: str) -> float:
    if value is None:
        raise FormulaError(f"a trigger without a value reached {where}; give it a substitute with ??")
    return value


def _divide(dividend: float, divisor: float) -> float:
    """IEEE 754 division as in Go: x / 0 is infinite and 0 / 0 is NaN, never an exception."""
    if divisor != 0:
        return dividend / divisor
    if dividend == 0 or math.isnan(dividend):
        return math.nan
    return math.copysign(math.inf, dividend) * math.copysign(1.0, divisor)


_ARITHMETIC: dict[str, Callable[[float, float], float]] = {
    "+": lambda left, right: left + right,
    "-": lambda left, right: left - right,
    "*": lambda left, right: left * right,
    "/": _divide,
}
