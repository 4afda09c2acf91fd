"""One HTTP call as a value: what to send and how to read the answer, for either kind of client."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import httpx
from pydantic import ValidationError

from dspy_jobs.client.body import Body
from dspy_jobs.client.errors import ApiError
from dspy_jobs.problems import Problem, problem

T = TypeVar("T")


@dataclass(frozen=True)
class Call(Generic[T]):
    """A request and the meaning of its answer."""

    method: str
    path: str
    read: Callable[[httpx.Response], T]
    params: Mapping[str, Any] = field(default_factory=dict)
    json: Any = None
    body: Body | None = None
    wait: float = 0
    """Seconds the service is asked to hold the line."""
    key: str | None = None
    """The `Idempotency-Key`, by which the service knows a repeat."""
    changes_nothing: bool = False
    """Whether it only asks, though it is a POST."""
    is_of_now: bool = False
    """Whether it asks how things are at this moment: that they cannot be told is news, and not to be waited out."""
    also: tuple[int, ...] = ()
    """Statuses beside 2xx that are an answer, not an error."""

    @property
    def repeatable(self) -> bool:
        """Whether sending it twice does no more than sending it once."""
        return self.method == "GET" or self.key is not None or self.changes_nothing


def answer(call: Call[T], response: httpx.Response) -> T:
    """What the answer means.

    Raises:
        ApiError: the service refused, or what answered does not speak the contract.
    """
    if not (response.is_success or response.status_code in call.also):
        raise ApiError(problem_in(response))
    try:
        return call.read(response)
    except (ValidationError, ValueError, KeyError, TypeError) as error:
        raise ApiError(_not_ours(response, f"its answer could not be read ({type(error).__name__})")) from error


def problem_in(response: httpx.Response) -> Problem:
    """The problem of an answer that is an error, made up where a proxy or a stranger answered without one."""
    try:
        return Problem.model_validate_json(response.content)
    except ValidationError:
        return _not_ours(response, "it did not answer with a problem document")


def _not_ours(response: httpx.Response, what: str) -> Problem:
    asked = f"{response.request.method} {response.request.url}"
    made = problem("unexpected", f"{asked} answered {response.status_code} and {what}; is this dspy-jobs?")
    return made.model_copy(update={"status": response.status_code})
