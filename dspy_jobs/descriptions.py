"""What a worker says of a program it runs, so that the API can check inputs without ever importing dspy."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class ProgramDescription(BaseModel):
    """A program as published in Redis and shown by `GET /v1/programs`."""

    model_config = ConfigDict(frozen=True)

    name: str
    version: str
    """Changes whenever the program, its instructions, its state or its types change."""
    model: str
    """Model used when the caller names none."""
    description: str | None = None
    variants: dict[str, float] = {}
    input_schema: dict[str, Any]
    output_schema: dict[str, Any]
