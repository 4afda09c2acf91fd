"""Finds a number in a JSON answer by the part of GJSON's path language that metrics-api triggers use.

``a.b.c``, ``list.0.x``, ``list.#`` (how many), ``list.#(name=="x").y`` (the first that matches), and ``\\.`` for a dot
inside a name. Anything else of GJSON is refused, so that a location never silently means something else here.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from autoscaler.quantity import parse_quantity

_PART = re.compile(r"(#\((?:[^()\"]|\"[^\"]*\")*\)|(?:\\.|[^.\\])+)(?:\.|$)")
_QUERY = re.compile(r"#\(\s*([\w-]+(?:\.[\w-]+)*)\s*(==|!=|<=|>=|<|>)\s*(\"[^\"]*\"|[^\s\"]+)\s*\)")
_UNSUPPORTED = re.compile(r"[*?|@!{}\[\]]")

_COMPARISONS: Mapping[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


class LocationError(ValueError):
    """The location cannot be read, or there is no number at it; the message says which and where."""


def number_at(document: Any, location: str) -> float:
    """The number at a location of a JSON document: a JSON number, or a Kubernetes quantity in a string.

    Raises:
        LocationError: there is nothing, or something else, such as true or null.
    """
    value = document
    for part in parse_location(location):
        value = _step(value, part, location)
    return _number(value, location)


def parse_location(location: str) -> list[str]:
    """The parts of a location; raises LocationError for what is not understood."""
    parts, at = list[str](), 0
    while at < len(location):
        found = _PART.match(location, at)
        if found is None:
            raise LocationError(f"valueLocation {location!r} cannot be read from {location[at:]!r} on")
        parts.append(_checked(found[1], location))
        at = found.end()
    if not parts or (location.endswith(".") and not location.endswith("\\.")):
        raise LocationError(f"valueLocation {location!r} ends in nothing")
    return parts


def _checked(part: str, location: str) -> str:
    is_query = part.startswith("#(")
    if is_query and _QUERY.fullmatch(part) is None:
        raise LocationError(f'valueLocation {location!r}: {part} is no query; write one such as #(name=="x")')
    if not is_query and _UNSUPPORTED.search(re.sub(r"\\.", "", part)):
        raise LocationError(f"valueLocation {location!r}: {part!r} is not supported here; name each step")
    return part


def _step(value: Any, part: str, location: str) -> Any:
    try:
        if isinstance(value, list):
            return _of_list(value, part)
        if isinstance(value, dict):
            return value[re.sub(r"\\(.)", r"\1", part)]
    except (KeyError, IndexError, ValueError, StopIteration):
        pass
    raise LocationError(f"the answer has nothing at {location!r}: no {part!r}")


def _of_list(value: list[Any], part: str) -> Any:
    if part == "#":
        return len(value)
    if query := _QUERY.fullmatch(part):
        return next(entry for entry in value if _matches(entry, *query.groups()))
    if not re.fullmatch(r"\d+", part, re.ASCII):
        raise ValueError(part)
    return value[int(part)]


def _matches(entry: Any, path: str, sign: str, literal: str) -> bool:
    for name in path.split("."):
        if not isinstance(entry, dict) or name not in entry:
            return False
        entry = entry[name]
    found, wanted = _comparable(entry), _comparable(_literal(literal))
    # Different kinds are never equal and have no order, as in GJSON.
    return type(found) is type(wanted) and _COMPARISONS[sign](found, wanted)


def _literal(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


def _comparable(value: Any) -> Any:
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _number(value: Any, location: str) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, str):
        try:
            return parse_quantity(value)
        except ValueError as error:
            raise LocationError(f"at {location!r}: {error}") from None
    raise LocationError(f"at {location!r} is no number but {value!r}")
