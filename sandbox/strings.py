"""Strings for JSON Schemas: found in the inputs where they fit, else written to format, pattern or name."""

from __future__ import annotations

import ipaddress
import math
import re
import uuid
from collections.abc import Callable
from datetime import date, timedelta

from sandbox import patterns, texts
from sandbox.python_types import Schema
from sandbox.source import Place

#: How often to write a string for a pattern before its length is let be.
PATTERN_TRIES = 8


def string(schema: Schema, at: Place) -> str:
    """A text that fits the schema's format, pattern and lengths."""
    if schema.get("format") in FORMATS:
        return FORMATS[schema["format"]](at)
    low, high = schema.get("minLength", 0), schema.get("maxLength", math.inf)
    found = at.found()
    if found is not None and low <= len(found) <= high and re.search(schema.get("pattern", ""), found):
        return found
    if "pattern" in schema:
        return _patterned(schema["pattern"], low, high, at)
    return _fitted(
        texts.sentence(at.name, at.source.quote, at.tag(), nested=at.depth > 0),
        low,
        high,
    )


def _patterned(pattern: str, low: int, high: float, at: Place) -> str:
    """A string that matches and fits the lengths; of several tries the first that does."""
    nearest = ""
    for attempt in range(PATTERN_TRIES):
        text = patterns.matching(pattern, _chooser(at, attempt))
        if text is not None and low <= len(text) <= high:
            return text
        nearest = nearest or text or ""
    return nearest


def _chooser(at: Place, attempt: int) -> Callable[[int], int]:
    calls = iter(range(10**6))
    return lambda count: at.draw(f"{attempt}.{next(calls)}") % count


def _fitted(text: str, low: int, high: float) -> str:
    if len(text) > high:
        text = text[: int(high)].rstrip().ljust(int(min(low, high)), ".")
    return text.ljust(low, ".")


def _date(at: Place) -> str:
    found = at.found() or ""
    if re.fullmatch(r"\d{4}-\d{2}-\d{2}", found):
        return found
    return (date(2025, 1, 1) + timedelta(days=at.draw() % 365)).isoformat()


def _email(at: Place) -> str:
    found = at.found()
    return found if found and "@" in found else f"someone-{at.draw() % 10**6}@example.com"


def _url(at: Place) -> str:
    found = at.found()
    return found if found and "://" in found else f"https://example.com/{at.draw() % 10**6}"


#: JSON Schema's string formats.
FORMATS: dict[str, Callable[[Place], str]] = {
    "date": _date,
    "date-time": lambda at: f"{_date(at)}T09:30:00Z",
    "time": lambda at: f"{at.draw() % 24:02}:30:00Z",
    "duration": lambda at: f"PT{1 + at.draw() % 59}M",
    "email": _email,
    "uri": _url,
    "uuid": lambda at: str(uuid.UUID(int=at.draw() << 64 | at.draw("low"), version=4)),
    "ipv4": lambda at: str(ipaddress.IPv4Address("192.0.2.0") + at.draw() % 256),
    "ipv6": lambda at: str(ipaddress.IPv6Address("2001:db8::") + at.draw() % 65536),
}
