"""The Lua scripts: read once from their files, each with what they share before it."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import cache
from hashlib import sha1
from importlib.resources import files
from typing import Any, Generic, TypeVar

from redis.exceptions import OutOfMemoryError, ReadOnlyError

from dspy_jobs.messages import MESSAGE_TEMPLATE

T = TypeVar("T")


#: What stands before every script, in this order.
_PRELUDE = ("_books", "_schema", "_flights")


@dataclass(frozen=True, slots=True)
class Script:
    """A script's text and the SHA-1 by which Redis knows it."""

    name: str
    text: str
    sha: str


@cache
def script(name: str) -> Script:
    """The script of `scripts/{name}.lua`."""
    folder = files("dspy_jobs.store") / "scripts"
    parts = [(folder / f"{part}.lua").read_text() for part in (*_PRELUDE, name)]
    text = "\n".join([f"local TEMPLATE = [==[{MESSAGE_TEMPLATE}]==]", *parts])
    return Script(name, text, sha1(text.encode(), usedforsecurity=False).hexdigest())


@cache
def all_scripts() -> tuple[Script, ...]:
    """Every script there is; loaded together, so that a pipeline finds either all of them or none."""
    found = (files("dspy_jobs.store") / "scripts").iterdir()
    return tuple(script(f.name[:-4]) for f in found if f.name.endswith(".lua") and not f.name.startswith("_"))


@dataclass(frozen=True, slots=True)
class Operation(Generic[T]):
    """One Redis round trip, built once and run by the async API and the sync worker alike."""

    script: Script
    args: tuple[Any, ...]
    read: Callable[[Any], T]


#: A piece of work of several operations: yields each, is sent its answer.
Plan = Generator[Operation[Any], Any, T]


def error_of(reply: Any) -> Exception | None:
    """The error a reply is, if it is one, as redis-py names it; inside a script Redis hides it in the text."""
    if not isinstance(reply, Exception):
        return None
    for word, kind in (("-OOM ", OutOfMemoryError), ("-READONLY ", ReadOnlyError)):
        if word in str(reply):
            return kind(str(reply))
    return reply
