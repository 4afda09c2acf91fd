"""Turns validation errors into lines that name the place in the file and the remedy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ValidationError


def describe(error: ValidationError, model: type[BaseModel], prefix: Sequence[int | str] = ()) -> list[str]:
    """Return one line per mistake: ``spec.minReplicas: unknown field; did you mean minReplicaCount?``."""
    known = sorted(_aliases(model, set()))
    details: list[dict[str, Any]] = [dict(detail) for detail in error.errors(include_url=False)]
    return [
        f"{path((*prefix, *detail['loc']))}: {_sentence(detail, known)}"
        for detail in details
        if not _is_consequence(detail, details)
    ]


def path(parts: Iterable[int | str]) -> str:
    """Write a location as in ``spec.triggers[0].metadata``."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
    return text.removeprefix(".") or "document"


def _is_consequence(detail: Mapping[str, Any], details: Sequence[Mapping[str, Any]]) -> bool:
    """A list is also reported as too short when one of its entries is wrong; the entry says it all."""
    place = detail["loc"]
    return detail["type"] == "too_short" and any(
        len(other["loc"]) > len(place) and other["loc"][: len(place)] == place for other in details
    )


def _sentence(detail: Mapping[str, Any], known: Sequence[str]) -> str:
    if detail["type"] == "extra_forbidden":
        close = get_close_matches(str(detail["loc"][-1]), known, n=1)
        return f"unknown field; did you mean {close[0]}?" if close else "unknown field; remove it"
    if detail["type"] == "missing":
        return "is missing; add it"
    if detail["type"] == "value_error":
        return str(detail["ctx"]["error"])
    if detail["type"] == "too_short":
        return "is empty; add at least one entry"
    message = detail["msg"].removeprefix("Input ")
    return f"{message[:1].lower()}{message[1:]}, but it is {_shown(detail['input'])}"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _aliases(model: type[BaseModel], seen: set[type[BaseModel]]) -> set[str]:
    """Collect the field names of a model and of every model inside it."""
    seen.add(model)
    names = {field.alias or name for name, field in model.model_fields.items()}
    for field in model.model_fields.values():
        for inner in _models(field.annotation):
            names |= _aliases(inner, seen) if inner not in seen else set()
    return names


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in getattr(annotation, "__args__", ()) for model in _models(argument)]
