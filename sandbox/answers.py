"""Values for JSON Schemas: of the right type, within bounds, and the same for the same inputs.

Where the inputs plainly contain what a field's name asks for, the value is taken from them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from sandbox import findings, numeric, strings
from sandbox.prompts import UNTYPED
from sandbox.python_types import Schema
from sandbox.source import Place, Source

#: Levels of nesting after which optional parts are left out, so that recursive schemas end.
DEPTH = 5

#: What a field of a given name most likely holds, for prompts that do not say (see `prompts.UNTYPED`).
LIKELY_TYPES: tuple[tuple[str, Schema], ...] = (
    (r"date|deadline|due|(_at|_on)$", {"type": "string", "format": "date"}),
    (
        r"(price|amount|total|cost|fee|tax|rate|discount|confidence|probability)$",
        {"type": "number"},
    ),
    (r"^(is|has|can|should|needs)_", {"type": "boolean"}),
    (
        (
            r"name|title|text|description|summary|reason|answer|comment|note|label|topic|tag|email|phone|url"
            r"|address|street|city|country|vendor|supplier|customer|company|product|article|sku|currency"
            r"|reference|message|subject|author"
            r"|(order|invoice|ticket|account)_(number|id|no)|^(item|key|value|question|person|key_point)$"
        ),
        {"type": "string"},
    ),
    (r"meta|attributes|extras?$|properties|options", {"type": "object"}),
)


def answer(name: str, schema: Schema, source: Source) -> Any:
    """The value of one field."""
    return _value(schema, Place(name, name, source, schema))


def _value(schema: Schema | bool, at: Place) -> Any:
    schema = _resolved(schema, at.root)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return _option(schema["enum"], at)
    if choices := schema.get("anyOf") or schema.get("oneOf"):
        return _choice(choices, at)
    if UNTYPED in schema:
        return _untyped(at)
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if isinstance(kind, list):
        return _choice([{**schema, "type": one} for one in kind], at)
    return MAKERS[kind](schema, at)


def _resolved(schema: Schema | bool, root: Schema) -> Schema:
    """The schema with references followed and `allOf` merged."""
    if isinstance(schema, bool):
        return {}
    while "$ref" in schema:
        target: Any = root
        for step in schema["$ref"].lstrip("#/").split("/"):
            target = target[step.replace("~1", "/").replace("~0", "~")]
        schema = {
            **target,
            **{key: value for key, value in schema.items() if key != "$ref"},
        }
    for part in schema.get("allOf", ()):
        schema = {
            **_resolved(part, root),
            **{key: value for key, value in schema.items() if key != "allOf"},
        }
    return schema


def _option(options: list[Any], at: Place) -> Any:
    """The option that the inputs mention, else any."""
    for option in options:
        if isinstance(option, str) and _mentioned(option).search(at.source.text):
            return option
    return options[at.draw() % len(options)]


@lru_cache(maxsize=4096)
def _mentioned(option: str) -> re.Pattern[str]:
    words = re.escape(option).replace("_", r"[_ -]").replace(r"\-", "[_ -]")
    return re.compile(rf"(?<!\w){words}(?!\w)" if option.strip() else r"(?!)", re.IGNORECASE)


def _choice(choices: list[Schema], at: Place) -> Any:
    """The first choice; null, where allowed, if the inputs lack what the name asks for or nesting is deep."""
    substance = [choice for choice in choices if choice.get("type") != "null"]
    missing = findings.findable(at.name) and at.found() is None and all(map(_is_scalar, substance))
    if len(substance) < len(choices) and (not substance or missing or at.depth > DEPTH):
        return None
    scalars = [choice for choice in substance if _is_scalar(choice)]
    return _value(scalars[0] if at.depth > DEPTH and scalars else substance[0], at)


def _is_scalar(schema: Schema) -> bool:
    return schema.get("type") in ("string", "integer", "number", "boolean", "null") or "enum" in schema


def _untyped(at: Place) -> Any:
    """A value of the type that the name makes likely, else a number: most types can be read from one."""
    for pattern, schema in LIKELY_TYPES:
        if re.search(pattern, at.name.lower()):
            return _value(schema, at)
    number = numeric.found_number(at)
    return int(number) if number is not None and number.is_integer() else 1


def _object(schema: Schema, at: Place) -> dict[str, Any]:
    properties = schema.get("properties", {})
    required = schema.get("required", ())
    wanted = [name for name in properties if name in required or at.depth <= DEPTH]
    record = {name: _value(properties[name], at.inside(name, name, at.index)) for name in wanted}
    if not properties:
        record = _mapping(schema, at)
    return record


def _mapping(schema: Schema, at: Place) -> dict[str, Any]:
    """An open mapping; its keys are words of the inputs, so that it reads like something."""
    values = schema.get("additionalProperties", False)
    if values is False:
        return {}
    count = min(max(schema.get("minProperties", 0), 2), schema.get("maxProperties", math.inf))
    keys = schema.get("propertyNames", {}).get("enum") or list(
        dict.fromkeys(re.findall(r"\b[a-z]{4,12}\b", at.source.text))
    )
    keys = [str(key) for key in keys[:count]]
    if "propertyNames" not in schema:
        keys += [f"key_{number}" for number in range(len(keys) + 1, count + 1)]
    return {key: _value(values, at.inside(at.name, key, number)) for number, key in enumerate(keys)}


def _array(schema: Schema, at: Place) -> list[Any]:
    first = schema.get("prefixItems", [])
    items = schema.get("items", {} if "items" not in schema and not first else False)
    low, high = schema.get("minItems", 0), schema.get("maxItems", math.inf)
    count = len(first)
    if items is not False:
        count = max(low, min(high, _length(schema, items, at)))
    members = [*first, *[items] * (count - len(first))][:count]
    name = at.name.removesuffix("s")
    values = [_value(member, at.inside(name, str(number), number)) for number, member in enumerate(members)]
    return _distinct(values, items, at, low) if schema.get("uniqueItems") else values


def _length(schema: Schema, items: Schema | bool, at: Place) -> int:
    """As many as the inputs list of what the items hold, else one to three."""
    if at.depth > DEPTH:
        return 0
    names = _resolved(items, at.root).get("properties", {at.name.removesuffix("s"): {}})
    listed = max(
        (len(findings.find(name, at.source.text)) for name in names if name in ITEM_NAMES),
        default=0,
    )
    return min(listed, 50) or 1 + at.draw("length") % 3


#: Fields that occur once for every line of a list in the inputs.
ITEM_NAMES = frozenset({"quantity", "qty", "unit_price", "email", "sku", "url", "phone"})


def _distinct(values: list[Any], items: Schema | bool, at: Place, low: int) -> list[Any]:
    """The values without repetition; drawn again, a bounded number of times, while there are too few."""
    distinct: list[Any] = []
    options = _resolved(items, at.root).get("enum", ())
    retries = (_value(items, at.inside(at.name, f"again{n}", n)) for n in range(20 if len(values) < 20 else 0))
    for source in (values, options, retries):
        for value in source:
            if len(distinct) >= (len(values) if source is values else low):
                break
            if value not in distinct:
                distinct.append(value)
    return distinct


def _boolean(schema: Schema, at: Place) -> bool:
    return at.draw() % 2 == 0


def _null(schema: Schema, at: Place) -> None:
    return None


MAKERS: dict[str, Callable[[Schema, Place], Any]] = {
    "object": _object,
    "array": _array,
    "string": strings.string,
    "integer": numeric.integer,
    "number": numeric.number,
    "boolean": _boolean,
    "null": _null,
}
