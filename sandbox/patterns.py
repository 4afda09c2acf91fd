"""Strings that match a regular expression, for JSON Schema's `pattern`."""

from __future__ import annotations

import re

# Python has no public reading of a pattern; `matching` checks what comes of this one.
import re._constants as sre  # type: ignore[import-not-found]
import re._parser as sre_parser  # type: ignore[import-not-found]
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, TypeAlias

#: `choose(n)` picks a number from 0 to n - 1.
Choose: TypeAlias = Callable[[int], int]
Writer: TypeAlias = Callable[[Choose], str]

#: The characters to choose from where a pattern leaves the choice open.
ALPHABET = "abcdefghjkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ0123456789 -_.,:;/@#+()"
#: Upper end of `*` and `+`, in repetitions above their minimum.
REPEATS = 3

_CATEGORIES = {
    sre.CATEGORY_DIGIT: r"\d",
    sre.CATEGORY_NOT_DIGIT: r"\D",
    sre.CATEGORY_SPACE: r"\s",
    sre.CATEGORY_NOT_SPACE: r"\S",
    sre.CATEGORY_WORD: r"\w",
    sre.CATEGORY_NOT_WORD: r"\W",
}


def matching(pattern: str, choose: Choose) -> str | None:
    """A string that the pattern finds itself in, or None when this module cannot write one."""
    writer = _writer_of(pattern)
    text = writer(choose) if writer else ""
    return text if writer and re.search(pattern, text) else None


@lru_cache(maxsize=512)
def _writer_of(pattern: str) -> Writer | None:
    try:
        return _sequence(sre_parser.parse(pattern))
    except re.error:
        return None


def _sequence(tokens: Iterable[Any]) -> Writer:
    writers = [_token(operation, argument) for operation, argument in tokens]
    return lambda choose: "".join([write(choose) for write in writers])


def _token(operation: Any, argument: Any) -> Writer:
    if operation is sre.LITERAL:
        return lambda choose: chr(argument)
    if operation in (sre.ANY, sre.NOT_LITERAL, sre.IN):
        letters = _letters(operation, argument)
        return lambda choose: letters[choose(len(letters))]
    if operation in (sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT):
        return _repetition(argument[0], int(argument[1]), _sequence(argument[2]))
    if operation is sre.SUBPATTERN:
        return _sequence(argument[-1])
    if operation is sre.ATOMIC_GROUP:
        return _sequence(argument)
    if operation is sre.BRANCH:
        branches = [_sequence(branch) for branch in argument[1]]
        return lambda choose: branches[choose(len(branches))](choose)
    return lambda choose: ""  # Anchors and look-arounds write nothing; `matching` checks the whole.


def _repetition(low: int, high: int, write: Writer) -> Writer:
    extra = min(high - low, REPEATS) + 1
    return lambda choose: "".join([write(choose) for _ in range(low + choose(extra))])


def _letters(operation: Any, argument: Any) -> list[str]:
    """The characters that one position of a pattern may hold; never none."""
    if operation is sre.ANY:
        return list(ALPHABET)
    if operation is sre.NOT_LITERAL:
        return [letter for letter in ALPHABET if ord(letter) != argument]
    if argument[0][0] is sre.NEGATE:
        return [letter for letter in ALPHABET if not _in_class(letter, argument[1:])] or [""]
    return [letter for letter in ALPHABET if _in_class(letter, argument)] or [_first(argument)]


def _in_class(letter: str, members: Iterable[Any]) -> bool:
    for kind, member in members:
        if kind is sre.LITERAL and ord(letter) == member:
            return True
        if kind is sre.RANGE and member[0] <= ord(letter) <= member[1]:
            return True
        if kind is sre.CATEGORY and re.match(_CATEGORIES[member], letter):
            return True
    return False


def _first(members: Iterable[Any]) -> str:
    """A member of a class that the alphabet has no letter of."""
    for kind, member in members:
        if kind is sre.LITERAL:
            return chr(member)
        if kind is sre.RANGE:
            return chr(member[0])
    return ""
