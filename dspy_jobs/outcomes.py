"""A job's outcome as it is stored: Celery's result format, so that `AsyncResult(job_id)` reads it, plus what we add.

Added members: `attempt` (the attempt that ended the job), `usage`, `cost_usd`, `program_version`, `problem`, and how it
came by its output: `cache`, `cache_key`, `cache_age_seconds`, `saved_nanos`. Times inside `attempt` are milliseconds
since 1970.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Literal

import orjson

from dspy_jobs.money import dollars
from dspy_jobs.problems import Problem

UsageSource = Literal["provider", "estimated"]


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens and calls of an attempt. `None` means unknown, which is not zero."""

    input_tokens: int | None = 0
    output_tokens: int | None = 0
    calls: int = 0
    source: UsageSource | None = "provider"
    cached_input_tokens: int | None = None
    """Of the input tokens, what the provider had in its cache."""
    reasoning_tokens: int | None = None
    """Of the output tokens."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try of a job."""

    number: int
    model: str
    started_at: int
    ended_at: int
    error: Problem | None = None
    usage: Usage = field(default_factory=Usage)
    cost_nanos: int | None = 0
    """Nano-dollars; None is unknown."""
    replayed: int = 0
    """Model calls answered from what an earlier attempt had paid for."""

    @property
    def cost_usd(self) -> float | None:
        """US dollars; None is unknown."""
        return dollars(self.cost_nanos)

    def as_record(self) -> dict[str, Any]:
        """As it is stored: in the outcome, or in the list of attempts that did not end the job."""
        record: dict[str, Any] = {
            "number": self.number,
            "model": self.model,
            "started_at": self.started_at,
            "ended_at": self.ended_at,
            "usage": self.usage,
            "cost_usd": self.cost_usd,
        }
        if self.replayed:
            record["replayed"] = self.replayed
        if self.error is not None:
            record["error"] = self.error.model_dump(exclude_none=True)
        return record


def rfc3339(ms: float | str) -> str:
    """Milliseconds since 1970 as RFC 3339 in UTC."""
    seconds, rest = divmod(int(ms), 1000)
    return f"{_second(seconds)}.{rest:03}Z"


@lru_cache(maxsize=1024)
def _second(seconds: int) -> str:
    # Jobs of one moment are read together, and formatting a time is a good part of showing one.
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _outcome(job_id: str, state: str, result: Any, attempt: Attempt, version: str, **more: Any) -> bytes:
    return orjson.dumps(
        {
            "status": state,
            "result": result,
            "traceback": None,
            "children": [],
            "date_done": rfc3339(attempt.ended_at),
            "task_id": job_id,
            "attempt": attempt.as_record(),
            "usage": attempt.usage,
            "cost_usd": attempt.cost_usd,
            "program_version": version,
            **more,
        }
    )


@dataclass(frozen=True, slots=True)
class Reused:
    """How a job came by its output."""

    how: str
    """`hit` (from the cache), `coalesced` (from a job that ran at the same time), `miss` (it ran, and its output was
    stored) or `bypass` (it ran outside the cache)."""
    key: str = ""
    """The cache key; '' for `bypass`."""
    age_seconds: float | None = None
    """Age of an output made before."""
    saved_nanos: int | None = None
    """What making that output cost, in nano-dollars; None if unknown."""

    def members(self) -> dict[str, Any]:
        """As the outcome shows it."""
        if self.how == "bypass":
            return {"cache": self.how}
        if self.age_seconds is None:
            return {"cache": self.how, "cache_key": self.key}
        age = {"cache_age_seconds": self.age_seconds, "saved_nanos": self.saved_nanos}
        return {"cache": self.how, "cache_key": self.key, **age}


def success(job_id: str, output: dict[str, Any], attempt: Attempt, version: str, reused: Reused) -> bytes:
    """The outcome of a job with an output.

    Raises:
        TypeError: the output holds something JSON cannot express.
    """
    return _outcome(job_id, "SUCCESS", output, attempt, version, **reused.members())


def failure(job_id: str, attempt: Attempt, version: str) -> bytes:
    """The outcome of a job that failed or was canceled while it ran; `attempt.error` says why."""
    error = attempt.error
    assert error is not None, "a failed attempt carries its problem"
    kind = "JobCanceled" if error.code == "canceled" else "JobFailed"
    result = {"exc_type": kind, "exc_message": [f"{error.code}: {error.detail}"], "exc_module": "dspy_jobs.errors"}
    state = "REVOKED" if error.code == "canceled" else "FAILURE"
    return _outcome(job_id, state, result, attempt, version, problem=error.model_dump(exclude_none=True))
