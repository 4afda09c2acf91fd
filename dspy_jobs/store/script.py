"""The Lua scripts: read once from their files, each with what they share before it."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import cache
from hashlib import sha1
from importlib.resources import files
from typing import Any, Generic, TypeVar

from redis.exceptions import OutOfMemoryError, ReadOnlyError

from dspy_jobs.messages import MESSAGE_TEMPLATE

T = TypeVar("T")

_WORD = re.compile(r"(?<![\w.])[A-Za-z_]\w*")
_NO_WORDS = re.compile(r"'(?:[^'\\\n]|\\.)*'|--.*")
_DEFINITION = re.compile(r"^(?:local function |local )?(?!end\b)([a-zA-Z_][\w, ]*?)(?:\(| =|$| --)", re.MULTILINE)


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
    own = (folder / f"{name}.lua").read_text()
    text = "\n\n".join([*_needed(own), own])
    return Script(name, text, sha1(text.encode(), usedforsecurity=False).hexdigest())


@cache
def _shared() -> tuple[str, ...]:
    """What scripts share, in order: top-level statements, each from the start of a line to the next empty line."""
    folder = files("dspy_jobs.store") / "scripts"
    text = "\n\n".join((folder / f"{part}.lua").read_text() for part in _PRELUDE)
    return (f"local TEMPLATE = [==[{MESSAGE_TEMPLATE}]==]", *re.split(r"\n\n+", text))


def _needed(own: str) -> list[str]:
    """The shared statements a script uses, itself or through others; to make the rest would cost each run of it."""
    words, needed = _words(own), dict[int, str]()
    while True:
        more = {i: part for i, part in enumerate(_shared()) if i not in needed and words & _defined(part)}
        if not more:
            return [part for _, part in sorted(needed.items())]
        needed |= more
        words |= {word for part in more.values() for word in _words(part)}


def _words(text: str) -> set[str]:
    """The names that occur in a piece of Lua, outside of its texts and comments."""
    return set(_WORD.findall(_NO_WORDS.sub("", text)))


def _defined(statement: str) -> set[str]:
    """The names a top-level statement gives a meaning to."""
    return {name for found in _DEFINITION.findall(statement) for name in found.split(", ")}


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
