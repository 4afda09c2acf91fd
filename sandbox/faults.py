"""How the sandbox behaves on request: a model name or a path says what goes wrong, this module decides when.

Nothing here waits or counts. The same prompt, attempt and seed always meet the same fate.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

from sandbox.errors import ERRORS

#: Standard deviations between the median and the 99th percentile of a normal distribution.
P99_DEVIATIONS = NormalDist().inv_cdf(0.99)

#: What can happen to a call besides a plain answer, apart from the HTTP errors in `errors.ERRORS`.
MISHAPS = ("hang", "drop", "malformed", "truncated")

NAMED_MODELS = {
    "sandbox": ("", "answers at once"),
    "sandbox-slow": ("latency=0.2", "every answer takes 200 ms"),
    "sandbox-tail": ("latency=lognormal:2:20", "median 2 s, 99th percentile 20 s"),
    "sandbox-flaky": (
        "fail=500:0.025,429:0.025;retry_after=1",
        "5 % of calls fail with 500 or 429",
    ),
    "sandbox-down": ("fail=503:1", "always 503"),
}

MODIFIERS = {
    "latency": "seconds before the answer: 0.2, uniform:a:b or lognormal:median:p99",
    "fail": "error:probability, several joined by commas; an error is a status (500) or a code "
    "(context_length_exceeded); without a probability: always",
    "retry_after": "seconds, sent as Retry-After with 429 and 503",
    "hang": "up to 1: the probability of never answering until the client leaves; more: every call is held "
    "that many seconds, then closed without an answer",
    "drop": "probability of closing the connection without an answer",
    "malformed": "probability of an answer that DSPy cannot parse",
    "truncated": "probability of a cut answer with finish_reason length",
    "usage": "none: answers carry no usage; absurd: more tokens than 64 bits hold; detailed: with cached input tokens "
    "and reasoning tokens",
    "seed": "any text; changes which calls meet a fault and how long calls take",
    "first": "n:what, the first n calls of a prompt fail with an error, hang, drop, malformed or truncated",
}


class ModifierError(ValueError):
    """A model name or path asks for something the sandbox cannot do; the message says what it can."""


class UnknownModelError(ValueError):
    """No such model here."""


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How one model behaves; `faults` pairs an outcome with its probability."""

    latency: tuple[str, float, float] = ("uniform", 0.0, 0.0)
    faults: tuple[tuple[str, float], ...] = ()
    first: tuple[int, str] = (0, "answer")
    hang_seconds: float = math.inf
    retry_after: float | None = None
    usage: str = ""
    seed: str = ""


@dataclass(frozen=True, slots=True)
class Fate:
    """What happens to one call: after `delay` seconds, an answer, a mishap or an error of `errors.ERRORS`."""

    delay: float
    outcome: str


def behaviour_of(model: str, path_modifiers: str = "", *, any_name: bool = False) -> Behaviour:
    """The behaviour that a model name with modifiers asks for; those in the name win over those in the path.

    Raises UnknownModelError for a name the sandbox does not have (`any_name` lets names through that do not
    start with sandbox) and ModifierError for a modifier it does not understand.
    """
    name, _, modifiers = model.partition(";")
    if name not in NAMED_MODELS and (not any_name or name.startswith("sandbox")):
        raise UnknownModelError(name)
    return parse(";".join((NAMED_MODELS.get(name, ("", ""))[0], path_modifiers, modifiers)))


@lru_cache(maxsize=1024)
def parse(modifiers: str) -> Behaviour:
    """Read `key=value;key=value`; of two values for a key the later wins. Raises ModifierError."""
    given = dict(_split(part) for part in modifiers.split(";") if part.strip())
    faults: list[tuple[str, float]] = []
    if "fail" in given:
        faults += [_failure(part) for part in given["fail"].split(",")]
    hang = _number("hang", given.get("hang", "0"))
    faults.append(("hang", min(hang, 1.0)))
    faults += [(mishap, _probability(mishap, given.get(mishap, "0"))) for mishap in MISHAPS if mishap != "hang"]
    if sum(probability for _, probability in faults) > 1 + 1e-9:
        raise ModifierError(f"the fault probabilities of {modifiers!r} add up to more than 1")
    return Behaviour(
        latency=_latency(given.get("latency", "0")),
        faults=tuple((outcome, probability) for outcome, probability in faults if probability),
        first=_first(given["first"]) if "first" in given else (0, "answer"),
        hang_seconds=hang if hang > 1 else math.inf,
        retry_after=_number("retry_after", given["retry_after"]) if "retry_after" in given else None,
        usage=_usage(given.get("usage", "")),
        seed=given.get("seed", ""),
    )


def fate(behaviour: Behaviour, prompt: bytes, attempt: int) -> Fate:
    """What happens to the `attempt`-th call (counted from 1) of the prompt with this digest."""
    outcome = _outcome(behaviour, prompt, attempt)
    if outcome == "hang":
        return Fate(behaviour.hang_seconds, outcome)
    kind, low, high = behaviour.latency
    if not high:
        return Fate(0.0, outcome)
    return Fate(
        LATENCIES[kind](low, high, draw(behaviour.seed, prompt, attempt, "latency")),
        outcome,
    )


def draw(seed: str, prompt: bytes, attempt: int, what: str) -> float:
    """A number in [0, 1) that depends on these four things alone."""
    digest = hashlib.blake2b(b"%s/%d/%s/" % (what.encode(), attempt, seed.encode()) + prompt, digest_size=8)
    return int.from_bytes(digest.digest()) / 2**64


def _outcome(behaviour: Behaviour, prompt: bytes, attempt: int) -> str:
    first, outcome = behaviour.first
    if attempt <= first:
        return outcome
    if behaviour.faults:
        left = draw(behaviour.seed, prompt, attempt, "fault")
        for outcome, probability in behaviour.faults:
            left -= probability
            if left < 0:
                return outcome
    return "answer"


def _lognormal(median: float, p99: float, at: float) -> float:
    spread = math.log(p99 / median) / P99_DEVIATIONS
    return median * math.exp(spread * NormalDist().inv_cdf(min(max(at, 1e-9), 1 - 1e-9)))


def _uniform(low: float, high: float, at: float) -> float:
    return low + (high - low) * at


#: How to turn two parameters and a draw into seconds.
LATENCIES: dict[str, Callable[[float, float, float], float]] = {
    "uniform": _uniform,
    "lognormal": _lognormal,
}


def _split(part: str) -> tuple[str, str]:
    key, equals, value = part.strip().partition("=")
    if key not in MODIFIERS:
        raise ModifierError(f"unknown modifier {key!r}; known: {', '.join(MODIFIERS)}")
    if not equals or not value:
        raise ModifierError(f"modifier {key!r} has no value; write {key}=… ({MODIFIERS[key]})")
    return key, value


def _number(key: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number >= 0):
        raise ModifierError(f"{key}={value!r} is not a number from 0 up ({MODIFIERS[key]})")
    return number


def _probability(key: str, value: str) -> float:
    number = _number(key, value)
    if number > 1:
        raise ModifierError(f"{key}={value!r} is not a probability from 0 to 1 ({MODIFIERS[key]})")
    return number


def _failure(part: str) -> tuple[str, float]:
    error, _, probability = part.strip().partition(":")
    return _error("fail", error, ERRORS), _probability("fail", probability or "1")


def _first(value: str) -> tuple[int, str]:
    count, _, outcome = value.partition(":")
    if not count.isdigit():
        raise ModifierError(f"first={value!r} does not start with a count ({MODIFIERS['first']})")
    return int(count), _error("first", outcome, (*ERRORS, *MISHAPS))


def _error(key: str, name: str, known: Collection[str]) -> str:
    if name not in known:
        raise ModifierError(f"{key}: unknown error {name!r}; known: {', '.join(known)}")
    return name


def _latency(value: str) -> tuple[str, float, float]:
    kind, _, rest = value.partition(":")
    if kind not in LATENCIES:
        return "uniform", _number("latency", value), _number("latency", value)
    parts = [_number("latency", part) for part in rest.split(":")]
    if len(parts) != 2 or parts[0] > parts[1] or (kind == "lognormal" and parts[0] == 0):
        raise ModifierError(f"latency={value!r} does not fit {kind}:low:high, low first ({MODIFIERS['latency']})")
    return kind, parts[0], parts[1]


def _usage(value: str) -> str:
    if value not in ("", "none", "absurd", "detailed"):
        raise ModifierError(f"usage={value!r} is unknown; it can be none, absurd or detailed")
    return value
