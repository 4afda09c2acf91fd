"""What nobody may read who only runs the service: keys and passwords, in settings and in free text."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dspy_jobs.settings import Settings

REDACTED = "[redacted]"

#: What looks like a key or token wherever it stands.
_KEY = re.compile(r"\b(sk|pk|key|gsk|xai|AIza|Bearer)[-_ ]?[A-Za-z0-9_\-*.]{8,}")
_PASSWORD = re.compile(r"(?P<before>://[^/?#\s]*?:)[^/?#\s]*(?=@)")
_SECRET_PARAMETER = re.compile(
    r"(?P<before>[?&][\w.-]*(?:key|token|secret|password|signature)[\w.-]*=)[^&#\s]*", re.IGNORECASE
)
#: What looks like a key or token.
_KEY = re.compile(r"\b(sk|pk|key|gsk|xai|AIza|Bearer)[-_ ]?[A-Za-z0-9_\-*.]{8,}")
_SECRET_NAME = re.compile(r"(?:key|secret|passw|credential|authorization|(?:^|_)(?:auth|token)(?:$|_))", re.IGNORECASE)

#: Names that match but hold no secret: they say where one is found.
_HARMLESS = ("api_key_env",)

#: Shorter values may be ordinary words; taking them out would say more about them than leaving them in.
_SHORTEST_SECRET = 8

#: The secrets this process was given, whatever they look like.
_given: list[str] = []


def is_secret_name(name: str) -> bool:
    """Whether a setting or variable of that name holds a secret."""
    return name not in _HARMLESS and _SECRET_NAME.search(name) is not None


def keep_secret(values: Iterable[str]) -> None:
    """From now on take these values out of every free text, whatever they look like."""
    _given.extend(value for value in values if len(value) >= _SHORTEST_SECRET and value not in _given)


def redacted(settings: Settings) -> dict[str, Any]:
    """All settings as plain data that may be shown to anyone who may see the service at all."""
    return {name: _shown(name, value) for name, value in settings.model_dump(mode="json").items()}


def _shown(name: str, value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _shown(key, item) for key, item in value.items()}
    if isinstance(value, list):
        return [_shown(name, item) for item in value]
    if value is not None and is_secret_name(name):
        return REDACTED
    return _without_parts(value) if isinstance(value, str) else value


def without_secrets(text: str) -> str:
    """A free text, such as a provider's message, without secrets given to this process and what looks like one."""
    for secret in _given:
        text = text.replace(secret, REDACTED)
    return _KEY.sub(REDACTED, _without_parts(text))


def _without_parts(text: str) -> str:
    """Without the passwords and secret parameters of addresses."""
    text = _PASSWORD.sub(rf"\g<before>{REDACTED}", text)
    return _SECRET_PARAMETER.sub(rf"\g<before>{REDACTED}", text)
