"""Which programs exist and what inputs they take, as workers say in Redis: so that the API never imports dspy."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

import jsonschema_rs
import structlog
from pydantic import ValidationError

from dspy_jobs import names
from dspy_jobs.descriptions import ProgramDescription
from dspy_jobs.store import AsyncStore

#: Seconds after which descriptions are read again even if no worker announced a change.
REFRESH_SECONDS = 30.0
#: Seconds between two looks for a program that nobody has described.
_MISS_SECONDS = 1.0
#: Mistakes named for one job's inputs.
_MOST_MISTAKES = 20
#: Characters of a mistake's text; a schema error quotes the value, which may be large.
_LONGEST_DETAIL = 300

_log = structlog.get_logger("api")

Mistake = dict[str, Any]


#: What can be read as JSON but neither checked nor stored.
TOO_DEEP: Mistake = {"param": "inputs", "code": "invalid_input", "detail": "nested more than 250 levels deep"}


@dataclass(frozen=True, slots=True)
class Program:
    """A described program and its compiled input schema."""

    description: ProgramDescription
    validator: Any

    def mistakes(self, inputs: dict[str, Any]) -> list[Mistake]:
        """What is wrong with inputs: `{param, code, detail}` each."""
        if self.validator.is_valid(inputs):
            return []
        try:
            found = self.validator.iter_errors(inputs)
            return [self._mistake(error) for error, _ in zip(found, range(_MOST_MISTAKES), strict=False)]
        except ValueError:  # the validator, like the writer of JSON, goes 255 levels deep
            return [TOO_DEEP]

    def _mistake(self, error: Any) -> Mistake:
        path = "inputs" + "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in error.instance_path)
        detail = error.message[:_LONGEST_DETAIL]
        if error.kind.name == "required":
            path += f".{error.kind.property}"
        elif error.kind.name == "additionalProperties":
            if not error.instance_path:
                inputs = ", ".join(self.description.input_schema.get("properties", {}))
                detail = f"{self.description.name} has no such input; its inputs are: {inputs}"
            path += f".{error.kind.unexpected[0]}"
        return {"param": path, "code": "invalid_input", "detail": detail}


class Catalogue:
    """The programs described so far, kept fresh."""

    def __init__(self, store: AsyncStore) -> None:
        self._store = store
        self._programs: dict[str, Program] = {}
        self._raw: dict[bytes, bytes] = {}
        self._read_at = float("-inf")
        self._reading: asyncio.Future[None] | None = None

    async def find(self, name: str) -> Program | None:
        """A program by its name, or None where no worker has described it."""
        age = time.monotonic() - self._read_at
        if age > REFRESH_SECONDS or (name not in self._programs and age > _MISS_SECONDS):
            await self.refresh()
        return self._programs.get(name)

    async def all(self) -> list[Program]:
        """Every described program, by name."""
        if time.monotonic() - self._read_at > _MISS_SECONDS:
            await self.refresh()
        return [self._programs[name] for name in sorted(self._programs)]

    @property
    def names(self) -> Iterable[str]:
        """Names of the described programs."""
        return self._programs.keys()

    def expire(self) -> None:
        """Read again at the next use: a worker announced a change."""
        self._read_at = float("-inf")

    async def refresh(self) -> None:
        """Read every description; compile what changed. Whoever asks meanwhile waits for the same answer."""
        if self._reading is None or self._reading.done():
            self._reading = asyncio.ensure_future(self._read())
        await asyncio.shield(self._reading)

    async def _read(self) -> None:
        asked_at = time.monotonic()
        raw = cast("dict[bytes, bytes]", await self._store.redis.hgetall(names.PROGRAMS))
        if raw != self._raw:
            compiled = (_compiled(text) for text in raw.values())
            self._programs = {p.description.name: p for p in compiled if p is not None}
            self._raw = raw
        self._read_at = asked_at


def _compiled(raw: bytes) -> Program | None:
    try:
        description = ProgramDescription.model_validate_json(raw)
        return Program(description, jsonschema_rs.validator_for(description.input_schema))
    except (ValidationError, ValueError) as error:
        _log.error("program_description_unreadable", error=str(error)[:_LONGEST_DETAIL])
        return None
