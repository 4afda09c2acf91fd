"""Annotations as DSPy prints them in prompts (`Union[Literal['a'], NoneType]`), read as JSON Schema."""

from __future__ import annotations

import ast
from typing import Any, TypeAlias

Schema: TypeAlias = dict[str, Any]

#: Classes whose name alone says what a value looks like.
CLASSES: dict[str, Schema] = {
    "str": {"type": "string"},
    "Reasoning": {"type": "string"},
    "Code": {"type": "string"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "Decimal": {"type": "number"},
    "bool": {"type": "boolean"},
    "NoneType": {"type": "null"},
    "None": {"type": "null"},
    "date": {"type": "string", "format": "date"},
    "datetime": {"type": "string", "format": "date-time"},
    "time": {"type": "string", "format": "time"},
    "UUID": {"type": "string", "format": "uuid"},
    "list": {"type": "array"},
    "dict": {"type": "object"},
    "Any": {},
}


def parse(annotation: str, unknown: Schema) -> Schema:
    """The schema of an annotation; `unknown` stands in for classes that the name alone does not explain.

    Raises SyntaxError when the text is not a Python expression.
    """
    return _schema(ast.parse(annotation.strip(), mode="eval").body, unknown)


def _schema(node: ast.expr, unknown: Schema) -> Schema:
    if isinstance(node, ast.Subscript):
        arguments = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        return _generic(_name(node.value), arguments, unknown)
    return CLASSES.get(_name(node), unknown)


def _generic(name: str, arguments: list[ast.expr], unknown: Schema) -> Schema:
    if name == "Literal":
        return {"enum": [_literal(argument) for argument in arguments]}
    if name in ("Union", "Optional"):
        choices = [_schema(argument, unknown) for argument in arguments]
        return {"anyOf": choices + ([{"type": "null"}] if name == "Optional" else [])}
    if name in ("list", "set", "frozenset", "List"):
        items = _schema(arguments[0], unknown.get("items", unknown))
        return {
            "type": "array",
            "items": items,
            **({} if name.lower() == "list" else {"uniqueItems": True}),
        }
    if name in ("dict", "Dict"):
        return _mapping(arguments, unknown)
    if name in ("tuple", "Tuple"):
        return _tuple(arguments, unknown)
    return unknown


def _mapping(arguments: list[ast.expr], unknown: Schema) -> Schema:
    keys, values = (_schema(argument, unknown) for argument in arguments)
    names = {"propertyNames": keys} if "enum" in keys else {}
    return {"type": "object", "additionalProperties": values, **names}


def _tuple(arguments: list[ast.expr], unknown: Schema) -> Schema:
    if isinstance(arguments[-1], ast.Constant) and arguments[-1].value is ...:
        return {"type": "array", "items": _schema(arguments[0], unknown)}
    members = [_schema(argument, unknown) for argument in arguments]
    return {
        "type": "array",
        "prefixItems": members,
        "minItems": len(members),
        "maxItems": len(members),
    }


def _name(node: ast.expr) -> str:
    return ast.unparse(node).rsplit(".", 1)[-1]


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        return ast.unparse(node)
