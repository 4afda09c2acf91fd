"""The trigger types we read and their metadata, because KEDA ignores a misspelt field in silence.

Field names and defaults are those of ``pkg/scalers/redis_scaler.go``, ``metrics_api_scaler.go`` and
``prometheus_scaler.go``. All values are strings.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

#: Says what is wrong with a field's text, or None if nothing is.
Check = Callable[[str], "str | None"]


def _text(value: str) -> str | None:
    return None if value.strip() else "is empty; fill it in or remove it"


def _integer(value: str) -> str | None:
    return None if re.fullmatch(r"\d{1,18}", value, re.ASCII) else f'{value!r} is not a count; write one such as "8"'


def _number(value: str) -> str | None:
    is_number = re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", value, re.ASCII) is not None
    is_finite = is_number and math.isfinite(float(value))
    return None if is_finite else f'{value!r} is not a number; write one such as "8" or "6.4"'


def _boolean(value: str) -> str | None:
    return None if value in ("true", "false") else f'{value!r} is not a boolean; write "true" or "false"'


def _duration(value: str) -> str | None:
    is_duration = re.fullmatch(r"\d+|(\d+(\.\d+)?(ms|s|m|h))+", value, re.ASCII) is not None
    return None if is_duration else f'{value!r} is not a timeout; write milliseconds such as "3000", or "3s"'


def _one_of(*choices: str) -> Check:
    return lambda value: None if value in choices else f"{value!r} is unknown; use one of {', '.join(choices)}"


@dataclass(frozen=True)
class TriggerType:
    """What one trigger type may and must say. ``default_target`` is None where the target must be given."""

    fields: Mapping[str, Check]
    required: tuple[str, ...]
    target: str
    activation: str
    default_target: float | None = None


#: Each of these may also be named ``...FromEnv`` and then names a variable of the scaled container.
_CONNECTION = ("address", "host", "port", "username", "password")

_REDIS = TriggerType(
    fields={
        "listName": _text,
        "listLength": _integer,
        "activationListLength": _integer,
        "databaseIndex": _integer,
        "enableTLS": _boolean,
        "unsafeSsl": _boolean,
        **dict.fromkeys(_CONNECTION, _text),
        **{f"{name}FromEnv": _text for name in _CONNECTION},
    },
    required=("listName",),
    target="listLength",
    activation="activationListLength",
    default_target=5.0,
)

_METRICS_API = TriggerType(
    fields={
        "url": _text,
        "valueLocation": _text,
        "targetValue": _number,
        "activationTargetValue": _number,
        "format": _one_of("json", "xml", "yaml", "prometheus"),
        "timeout": _duration,
        "unsafeSsl": _boolean,
        "aggregateFromKubeServiceEndpoints": _boolean,
        "aggregationType": _one_of("average", "sum", "max", "min"),
        "authMode": _text,
        "method": _one_of("header", "query"),
        "keyParamName": _text,
    },
    required=("url", "valueLocation"),
    target="targetValue",
    activation="activationTargetValue",
)

_PROMETHEUS = TriggerType(
    fields={
        "serverAddress": _text,
        "query": _text,
        "queryParameters": _text,
        "threshold": _number,
        "activationThreshold": _number,
        "namespace": _text,
        "customHeaders": _text,
        "ignoreNullValues": _boolean,
        "unsafeSsl": _boolean,
        "awsRegion": _text,
        "timeout": _duration,
        "identityOwner": _text,
        "authModes": _text,
    },
    required=("serverAddress", "query"),
    target="threshold",
    activation="activationThreshold",
)

TRIGGER_TYPES: Mapping[str, TriggerType] = {
    "redis": _REDIS,
    "metrics-api": _METRICS_API,
    "prometheus": _PROMETHEUS,
}


def metadata_problems(
    kind: str, metadata: Mapping[str, str], *, has_authentication: bool, needs_target: bool
) -> Iterator[tuple[str, str]]:
    """Yield (field, what is wrong and what to do) for a trigger's metadata.

    ``needs_target`` is False under a formula, which brings its own target.
    """
    known = TRIGGER_TYPES[kind]
    for name, value in metadata.items():
        problem = known.fields[name](value) if name in known.fields else _unknown(name, known)
        if problem is not None:
            yield name, problem
    for name in known.required:
        if name not in metadata:
            yield name, f"is missing; a {kind} trigger needs it"
    yield from _target_problems(kind, metadata, needs_target=needs_target)
    if kind == "redis" and not has_authentication and not _has_address(metadata):
        yield "address", "is missing; give address, or host and port, or an authenticationRef that holds them"


def _unknown(name: str, known: TriggerType) -> str:
    close = get_close_matches(name, known.fields, n=1)
    return f"unknown field; did you mean {close[0]}?" if close else f"unknown field; use {', '.join(known.fields)}"


def _target_problems(kind: str, metadata: Mapping[str, str], *, needs_target: bool) -> Iterator[tuple[str, str]]:
    known = TRIGGER_TYPES[kind]
    text = metadata.get(known.target)
    if text is None:
        if needs_target and known.default_target is None:
            yield known.target, f"is missing; a {kind} trigger needs it"
    elif _number(text) is None and float(text) < 0.001:
        yield known.target, f'"{text}" must be 0.001 or more: it is the load one replica carries'


def _has_address(metadata: Mapping[str, str]) -> bool:
    def given(name: str) -> bool:
        return name in metadata or f"{name}FromEnv" in metadata

    return given("address") or (given("host") and given("port"))


def read_target(kind: str, metadata: Mapping[str, str]) -> float:
    """Return the load one replica carries; 1 where only a formula uses the trigger."""
    known = TRIGGER_TYPES[kind]
    return float(metadata.get(known.target, known.default_target or 1.0))


def read_activation(kind: str, metadata: Mapping[str, str]) -> float:
    """Return the value that must be exceeded for the trigger to be active."""
    return float(metadata.get(TRIGGER_TYPES[kind].activation, "0"))
