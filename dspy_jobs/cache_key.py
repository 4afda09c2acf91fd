"""The name of an answer: equal questions have equal keys, and whatever could change the answer changes the key.

The key is blake2b with 160 bits, in hex, over the canonical JSON of exactly this, in this order: the key's own format,
program version, variant, model's alias, provider's model id, address, namespace, sampling parameters, inputs.

Canonical JSON sorts the members of objects, has no spaces, brings every string and member's name to Unicode's NFC, and
writes numbers of one value in one way: `1`, `1.0` and `1e0` are one number, `-0` and `0` another, and integers are
exact whatever their size. `true` is no number and `"1"` is a text. Where two names of an object have the same NFC,
these keep the spelling they have, for an object is not to lose a member. Compatibility forms (a full-width letter) are
different texts.

Two spellings of one question are made one before that: an input that has its default is filled in (`filled`), and a
parameter that is `null` is one that was not given.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from hashlib import blake2b
from typing import Any
from unicodedata import is_normalized, normalize

import orjson

from dspy_jobs.settings import ModelSettings

#: Changes whenever the same question gets another key than before.
_FORMAT = 1

#: Objects and lists inside one another, at most. Python's own stack bounds it: four frames a level.
DEEPEST = 100

#: orjson's integers; larger ones are written by Python.
_SMALLEST, _LARGEST = -(2**63), 2**64 - 1

_DIGEST_BYTES = 20


@dataclass(frozen=True)
class KeySubject:
    """Everything but the inputs that decides an answer. Jobs that share one should share the object: it remembers."""

    program_version: str
    """Of the arm that runs: its code, signatures, state and adapter."""
    model: str
    """The model's short name."""
    model_id: str
    """The provider's name of it."""
    base_url: str | None = None
    variant: str = ""
    namespace: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """Sampling parameters of its calls, as they apply in the end."""

    @cached_property
    def written(self) -> bytes:
        """The canonical JSON up to where the inputs follow.

        Raises:
            ValueError: the parameters cannot be written as JSON.
        """
        given = {name: value for name, value in self.parameters.items() if value is not None}
        parts = (self.program_version, self.variant, self.model, self.model_id, self.base_url, self.namespace, given)
        return canonical([_FORMAT, *parts])[:-1] + b","


def subject_of(
    model: str, settings: ModelSettings, version: str, variant: str, namespace: str, *parameters: Mapping[str, Any]
) -> KeySubject:
    """The subject of jobs of an arm on a model; `parameters` go over the model's, later ones over earlier ones."""
    merged: dict[str, Any] = dict(settings.parameters)
    for layer in parameters:
        merged |= layer
    return KeySubject(version, model, settings.model, settings.base_url, variant, namespace, merged)


def cache_key(subject: KeySubject, inputs: Mapping[str, Any], input_schema: Mapping[str, Any]) -> str:
    """The key, 40 hex digits, of a program's answer to inputs that fit its schema.

    Raises:
        ValueError: the inputs or parameters are no JSON that can be written (see `canonical`).
    """
    written = canonical(filled(inputs, input_schema))
    return blake2b(subject.written + written + b"]", digest_size=_DIGEST_BYTES).hexdigest()


def canonical(value: Any) -> bytes:
    """The one way to write a JSON value.

    Raises:
        ValueError: it is not JSON (not finite, a lone surrogate, another type), is deeper than `DEEPEST`, or has an
            integer of more digits than Python writes.
    """
    plain = value if _is_flat(value) else _plain(value, 0)
    try:
        return orjson.dumps(plain, option=orjson.OPT_SORT_KEYS)
    except TypeError as error:
        raise ValueError(f"cannot be written as JSON: {error}") from None


def _is_flat(value: Any) -> bool:
    """Whether orjson writes it canonically as it is: an object of plain ASCII texts, as most inputs are."""
    if type(value) is not dict:
        return False
    for name, text in value.items():
        if type(text) is not str or type(name) is not str or not (text.isascii() and name.isascii()):
            return False
    return True


def _plain(value: Any, depth: int) -> Any:
    """The value as orjson has to get it."""
    if isinstance(value, str):
        return _text(value)
    if value is None or value is True or value is False:
        return value
    if isinstance(value, int):
        return _integer(int(value))
    if isinstance(value, float):
        return _number(value)
    if depth == DEEPEST:
        raise ValueError(f"more than {DEEPEST} objects and lists inside one another")
    if isinstance(value, list):
        return [_plain(item, depth + 1) for item in value]
    if isinstance(value, Mapping):
        return _object(value, depth)
    raise ValueError(f"{type(value).__name__} is no JSON type")


def _text(value: str) -> str:
    return value if value.isascii() or is_normalized("NFC", value) else normalize("NFC", value)


def _integer(value: int) -> Any:
    return value if _SMALLEST <= value <= _LARGEST else orjson.Fragment(str(value))


def _number(value: float) -> Any:
    if not math.isfinite(value):
        raise ValueError("NaN and infinity are not JSON numbers")
    return _integer(int(value)) if value.is_integer() else value


def _object(value: Mapping[str, Any], depth: int) -> dict[str, Any]:
    if not all(isinstance(name, str) for name in value):
        raise ValueError("a member's name is no text")
    names = {name: _text(name) for name in value}
    if len(times := Counter(names.values())) < len(names):
        names = {name: nfc if times[nfc] == 1 else name for name, nfc in names.items()}
    return {names[name]: _plain(item, depth + 1) for name, item in value.items()}


def filled(value: Any, schema: Mapping[str, Any]) -> Any:
    """The value with the defaults its JSON Schema gives to members that are absent; the value itself stays as it was.

    Defaults are looked for in `properties`, and below them and through `$ref`, `allOf`, `items`, `prefixItems` and
    `additionalProperties`. What stands in `anyOf` and its like is not filled in: which of it applies is not certain.
    Where a default leads to itself it is taken once, as it stands.
    """
    return _Filling(schema).fill(value, schema, 0) if _has_defaults(_Same(schema)) else value


class _Same:
    """A schema as one object: equal only to itself, so that it can be remembered without being read."""

    __slots__ = ("schema",)

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self.schema = schema

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.schema is self.schema

    def __hash__(self) -> int:
        return id(self.schema)


@lru_cache(maxsize=512)
def _has_defaults(same: _Same) -> bool:
    """Whether `default` occurs in the schema at all, as a keyword or otherwise."""
    left: list[Any] = [same.schema]
    while left:
        node = left.pop()
        if isinstance(node, Mapping):
            if "default" in node:
                return True
            left.extend(node.values())
        elif isinstance(node, list):
            left.extend(node)
    return False


class _Filling:
    """One walk through a value with its schema."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._taken: set[int] = set()
        """Properties whose default is being filled in itself."""

    def fill(self, value: Any, node: Any, depth: int, above: frozenset[int] = frozenset()) -> Any:
        """The value with what this node of the schema and those below it add; `above` led here with the same value."""
        if depth > DEEPEST or not isinstance(node, Mapping) or id(node) in above:
            return value
        for part in self._also(node):
            value = self.fill(value, part, depth, above | {id(node)})
        if isinstance(value, Mapping):
            return self._object(value, node, depth)
        return self._list(value, node, depth) if isinstance(value, list) else value

    def _also(self, node: Mapping[str, Any]) -> list[Any]:
        """The other nodes that hold for the same value."""
        reference = node.get("$ref")
        return [*([self._referred(reference)] if isinstance(reference, str) else ()), *node.get("allOf", ())]

    def _object(self, value: Mapping[str, Any], node: Mapping[str, Any], depth: int) -> dict[str, Any]:
        properties = node.get("properties", {})
        others = node.get("additionalProperties")
        result = {name: self.fill(item, properties.get(name, others), depth + 1) for name, item in value.items()}
        for name, inner in properties.items():
            if name not in result and isinstance(inner, Mapping) and "default" in inner:
                result[name] = self._default(inner, depth)
        return result

    def _default(self, node: Mapping[str, Any], depth: int) -> Any:
        if id(node) in self._taken:
            return node["default"]
        self._taken.add(id(node))
        try:
            return self.fill(node["default"], node, depth + 1)
        finally:
            self._taken.remove(id(node))

    def _list(self, value: list[Any], node: Mapping[str, Any], depth: int) -> list[Any]:
        first, rest = node.get("prefixItems", []), node.get("items")
        nodes = [*first, *[rest] * (len(value) - len(first))]
        return [self.fill(item, inner, depth + 1) for item, inner in zip(value, nodes, strict=False)]

    def _referred(self, reference: str) -> Any:
        """What a reference within the schema points to; None for any other."""
        node: Any = self._root
        for step in reference.removeprefix("#").split("/")[1:]:
            node = node.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(node, Mapping) else None
        return node if reference.startswith("#") else None
