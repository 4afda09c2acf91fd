"""Sentences for text fields: they quote the input and carry a tag; nobody takes them for a model's words."""

from __future__ import annotations

import re
from collections.abc import Mapping

#: Longest quotation, in characters.
QUOTE_LENGTH = 90

#: A field's name → its sentence; {quote} is the start of the input, {words} its first words, {tag} a hash.
SENTENCES = (
    (
        r"reason|rationale|explanation|justification|thought|evidence",
        "The input says “{quote}” ({tag})",
    ),
    (r"summary|abstract|tldr|gist", "In short: {quote} ({tag})"),
    (r"title|subject|headline|topic", "{words} ({tag})"),
    (r"query|question|search|prompt|input|text|message", "{quote}"),
    (r"answer|response|reply|output|result|draft", "Sandbox answer {tag} to “{quote}”"),
)
_SENTENCES = [(re.compile(name), sentence) for name, sentence in SENTENCES]


def sentence(name: str, quote: str, tag: str, *, nested: bool) -> str:
    """A text for a field; a nested one, being part of a record, is short."""
    for pattern, form in _SENTENCES:
        if pattern.search(name.lower()):
            return form.format(quote=quote, words=" ".join(quote.split()[:6]), tag=tag)
    label = re.sub(r"[_\W]+", " ", name).strip().capitalize() or "Value"
    return f"{label} {tag}" if nested or not quote else f"{label} {tag} for “{quote}”"


def quotation(inputs: Mapping[str, str]) -> str:
    """The start of the first input that says something, on one line, without characters XML cannot carry."""
    text = next((value for value in inputs.values() if value.strip()), "")
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * QUOTE_LENGTH]).split())
    if len(line) <= QUOTE_LENGTH:
        return line
    return line[:QUOTE_LENGTH].rsplit(" ", 1)[0] + "…"
