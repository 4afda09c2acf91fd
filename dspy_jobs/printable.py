"""Texts of others as a terminal may be given them: what would move its cursor or speak to it is escaped."""

from __future__ import annotations

import json


def printable(text: str) -> str:
    """The text with whatever is not printable, such as control characters and marks of direction, as in JSON."""
    return text if text.isprintable() else "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)
