"""Numbers for JSON Schemas: found in the inputs, else drawn within bounds of schema, description or name."""

from __future__ import annotations

import math
import re
from functools import lru_cache

from sandbox import findings
from sandbox.python_types import Schema
from sandbox.source import Place

#: Usual bounds of numbers by the field's name, for schemas that give none.
USUAL_BOUNDS = (
    (r"urgency|priority|severity|rating|stars|level|grade", 1, 5),
    (r"confidence|probability|likelihood|relevance|similarity", 0, 1),
    (r"score", 0, 10),
    (r"year", 2020, 2030),
    (r"age$", 18, 90),
)


def integer(schema: Schema, at: Place) -> int:
    """A whole number that the schema allows."""
    low, high = _limits(schema)
    found = found_number(at)
    step = int(schema.get("multipleOf", 1)) or 1
    if found is not None and found.is_integer() and low <= found <= high and found % step == 0:
        return int(found)
    start, end = _range(low, high, schema, at)
    first, last = -(-math.ceil(start) // step), math.floor(end) // step
    return (first + at.draw() % (max(last - first, 0) + 1)) * step


def number(schema: Schema, at: Place) -> float:
    """A number that the schema allows."""
    low, high = _limits(schema)
    found = found_number(at)
    start, end = _range(low, high, schema, at)
    if step := schema.get("multipleOf"):
        first, last = math.ceil(start / step), math.floor(end / step)
        return float((first + at.draw() % (max(last - first, 0) + 1)) * step)
    if found is not None and low <= found <= high:
        return found
    exact = start + (end - start) * (0.05 + 0.9 * (at.draw() / 2**64))
    return round(exact, 2) if low <= round(exact, 2) <= high else exact


def found_number(at: Place) -> float | None:
    """The number that the inputs contain for a field of this name."""
    found = at.found()
    return None if found is None else findings.number(found)


def _limits(schema: Schema) -> tuple[float, float]:
    """The smallest and the largest number that the schema allows."""
    integer = schema.get("type") == "integer"
    low, high = schema.get("minimum", -math.inf), schema.get("maximum", math.inf)
    if "exclusiveMinimum" in schema:
        low = max(low, _next(schema["exclusiveMinimum"], math.inf, integer))
    if "exclusiveMaximum" in schema:
        high = min(high, _next(schema["exclusiveMaximum"], -math.inf, integer))
    return low, high


def _range(low: float, high: float, schema: Schema, at: Place) -> tuple[float, float]:
    """Finite ends to draw between: as given, else from the description or the name, else a hundred wide."""
    if math.isinf(low) and math.isinf(high):
        return _usual_bounds(schema.get("description", ""), at.name) or (1, 100)
    if math.isinf(high):
        return low, low + 99
    return (high - 99 if math.isinf(low) else low), high


def _next(bound: float, towards: float, integer: bool) -> float:
    if not integer:
        return math.nextafter(bound, towards)
    return math.floor(bound) + 1 if towards > 0 else math.ceil(bound) - 1


@lru_cache(maxsize=4096)
def _usual_bounds(description: str, name: str) -> tuple[float, float] | None:
    """A range that the description states (`1 to 5`, `between 0 and 1`), else the usual one for the name."""
    if match := re.search(
        r"(?<![\w.])(\d+(?:\.\d+)?) ?(?:-|–|to|and|\.\.) ?(\d+(?:\.\d+)?)(?![\w])",
        description,
    ):
        low, high = float(match[1]), float(match[2])
        return (low, high) if low < high else None
    return next(
        ((low, high) for pattern, low, high in USUAL_BOUNDS if re.search(pattern, name.lower())),
        None,
    )
