"""Answers as text, in the form that DSPy's Chat, JSON and XML adapters read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import orjson

from sandbox.prompts import Format, OutputField

Fields = tuple[OutputField, ...]


def chat(fields: Fields, values: Mapping[str, Any]) -> str:
    """Sections under `[[ ## field ## ]]`. A null is left out: DSPy then fills in the field's own default."""
    sections = [
        f"[[ ## {field.name} ## ]]\n{_plain(values[field.name], field.bare)}"
        for field in fields
        if values[field.name] is not None
    ]
    return "\n\n".join([*sections, "[[ ## completed ## ]]"])


def json(fields: Fields, values: Mapping[str, Any]) -> str:
    """One JSON object."""
    return orjson.dumps({field.name: values[field.name] for field in fields}, option=orjson.OPT_INDENT_2).decode()


def xml(fields: Fields, values: Mapping[str, Any]) -> str:
    """One element a field, nested for lists and objects. A null is left out."""
    return "\n\n".join(_element(field.name, values[field.name]) for field in fields if values[field.name] is not None)


RENDERERS: dict[Format, Callable[[Fields, Mapping[str, Any]], str]] = {
    "chat": chat,
    "json": json,
    "xml": xml,
}


def _plain(value: Any, bare: bool) -> str:
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, str) and bare:
        return value
    return orjson.dumps(value).decode()


def _element(tag: str, value: Any, key: str | None = None) -> str:
    opening = tag if key is None else f"{tag} key={quoteattr(key)}"
    return f"<{opening}>{_content(value)}</{tag}>"


def _content(value: Any) -> str:
    if isinstance(value, dict):
        return "".join(_element(k, v) if k.isidentifier() else _element("entry", v, k) for k, v in value.items())
    if isinstance(value, list):
        return "".join(_element("item", item) for item in value)
    return "" if value is None else escape(str(value))
