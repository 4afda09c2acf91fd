"""Settings and texts without their secrets: passwords in addresses, keys, and what its name says is secret."""

from __future__ import annotations

import re
from typing import Any

from dspy_jobs.settings import Settings

REDACTED = "[redacted]"

_PASSWORD = re.compile(r"(?P<before>://[^/?#\s]*?:)[^/?#\s]*(?=@)")
_SECRET_PARAMETER = re.compile(
    r"(?P<before>[?&][\w.-]*(?:key|token|secret|password|signature)[\w.-]*=)[^&#\s]*", re.IGNORECASE
)
#: What looks like a key or token.
_KEY = re.compile(r"\b(sk|pk|key|gsk|xai|AIza|Bearer)[-_ ]?[A-Za-z0-9_\-*.]{8,}")
_SECRET_NAME = re.compile(r"(?:key|secret|passw|credential|authorization|(?:^|_)(?:auth|token)(?:$|_))", re.IGNORECASE)

#: Names that match but hold no secret: they say where one is found.
_HARMLESS = ("api_key_env",)


def redacted(settings: Settings) -> dict[str, Any]:
    """All settings as plain data that may be shown to anyone who may see the service at all."""
    return {name: _shown(name, value) for name, value in settings.model_dump(mode="json").items()}


def _shown(name: str, value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _shown(key, item) for key, item in value.items()}
    if isinstance(value, list):
        return [_shown(name, item) for item in value]
    if value is not None and name not in _HARMLESS and _SECRET_NAME.search(name):
        return REDACTED
    return _without_passwords(value) if isinstance(value, str) else value


def without_secrets(text: str) -> str:
    """A text that somebody else wrote, such as an error's, without what looks like a password, key or token."""
    return _KEY.sub(REDACTED, _without_passwords(text))


def _without_passwords(text: str) -> str:
    text = _PASSWORD.sub(rf"\g<before>{REDACTED}", text)
    return _SECRET_PARAMETER.sub(rf"\g<before>{REDACTED}", text)
