"""A batch's own fields as query parameters, as an NDJSON upload gives them: nested ones lie flat beside the others."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from dspy_jobs.submissions import BatchLimits, BatchSubmission, CacheOptions

#: Where the parameters of nested fields belong.
NESTED = {
    "cache": ("cache", "mode"),
    "cache_max_age_seconds": ("cache", "max_age_seconds"),
    "cache_namespace": ("cache", "namespace"),
    "max_cost_usd": ("limits", "max_cost_usd"),
    "max_error_rate": ("limits", "max_error_rate"),
    "min_items": ("limits", "min_items"),
}
_NESTS: dict[str, type[BaseModel]] = {"cache": CacheOptions, "limits": BatchLimits}


def _descriptions() -> dict[str, str]:
    plain = {name: field for name, field in BatchSubmission.model_fields.items() if name not in _NESTS}
    inner = {name: _NESTS[nest].model_fields[field] for name, (nest, field) in NESTED.items()}
    return {name: field.description or "" for name, field in (plain | inner).items()}


#: Every parameter and what it means.
PARAMETERS = _descriptions()


def nested(given: dict[str, Any]) -> dict[str, Any]:
    """The fields as a JSON submission has them."""
    content: dict[str, Any] = {}
    for name, value in given.items():
        if name in NESTED:
            nest, field = NESTED[name]
            content.setdefault(nest, {})[field] = value
        else:
            content[name] = value
    return content
