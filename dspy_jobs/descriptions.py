"""What a worker says of a program it runs, so that the API can check inputs without ever importing dspy."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class VariantDescription(BaseModel):
    """One arm of a program's A/B split."""

    model_config = ConfigDict(frozen=True)

    weight: float
    """Share of the jobs, relative to the other variants' weights."""
    model: str
    """Model used when the caller names none."""
    version: str
    """As the program's, of what this variant runs."""
    version_name: str | None = None
    """The configuration's name of that version, if it has one."""


class ProgramDescription(BaseModel):
    """A program as published in Redis and shown by `GET /v1/programs`."""

    model_config = ConfigDict(frozen=True)

    name: str
    version: str
    """Changes whenever the program, its instructions, its state or its types change."""
    version_name: str | None = None
    """The configuration's name of that version, if it has one."""
    model: str
    """Model used when the caller names none."""
    description: str | None = None
    versions: dict[str, str] = {}
    """Compiled versions that are loaded: the configuration's name and what `version` is for it."""
    variants: dict[str, VariantDescription] = {}
    input_schema: dict[str, Any]
    output_schema: dict[str, Any]
