"""Every failure a caller can see, as data: RFC 9457 problems with a stable code and whether trying again may help."""

from __future__ import annotations

from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict


class Meaning(NamedTuple):
    """What a code says to a machine and to a person."""

    status: int
    retryable: bool
    title: str


#: Code → HTTP status, retryable, title. DSPy's own codes first (`DSPyError.code`), then ours.
CODES: dict[str, Meaning] = {
    "rate_limit": Meaning(429, True, "The provider limits the rate of requests"),
    "timeout": Meaning(504, True, "The provider or the program took too long"),
    "server": Meaning(502, True, "The provider failed"),
    "transport": Meaning(502, True, "The provider could not be reached"),
    "lock_timeout": Meaning(503, True, "A local credential lock was not free in time"),
    "auth": Meaning(502, False, "The provider refused the operator's credentials"),
    "billing": Meaning(502, False, "The provider refused for billing or quota"),
    "invalid_request": Meaning(422, False, "The provider refused the request"),
    "context_window_exceeded": Meaning(422, False, "The input is too long for the model"),
    "unsupported_model": Meaning(502, False, "The provider does not have this model"),
    "unsupported_feature": Meaning(422, False, "The model does not support what was asked"),
    "not_configured": Meaning(502, False, "The model has no credentials or address"),
    "configuration": Meaning(502, False, "The model is configured wrongly"),
    "provider": Meaning(502, False, "The provider answered with an error"),
    "collection_limit": Meaning(502, False, "The provider's answer is larger than allowed"),
    "stream_assembly": Meaning(502, False, "The provider's answer was incomplete"),
    "lm_error": Meaning(502, False, "The language model call failed"),
    "adapter_parse_error": Meaning(502, True, "The model's answer could not be read"),
    "unexpected": Meaning(500, False, "Something unexpected happened"),
    "invalid_input": Meaning(422, False, "The input does not fit the program"),
    "invalid_request_body": Meaning(422, False, "The request does not fit the contract"),
    "malformed_body": Meaning(400, False, "The body could not be read"),
    "invalid_parameter": Meaning(400, False, "A query parameter is wrong"),
    "unknown_program": Meaning(422, False, "No such program"),
    "unknown_model": Meaning(422, False, "No such model"),
    "unknown_variant": Meaning(422, False, "No such variant"),
    "not_found": Meaning(404, False, "There is nothing at this address"),
    "gone": Meaning(410, False, "It was here and its retention is over"),
    "method_not_allowed": Meaning(405, False, "This address does not take that method"),
    "conflict": Meaning(409, False, "Its present state does not allow this"),
    "idempotency_mismatch": Meaning(422, False, "The Idempotency-Key belongs to another request"),
    "idempotency_in_flight": Meaning(409, True, "The first request with this Idempotency-Key is still under way"),
    "payload_too_large": Meaning(413, False, "The body is larger than allowed"),
    "unsupported_media_type": Meaning(415, False, "This content type is not taken here"),
    "circuit_open": Meaning(503, True, "The model's circuit breaker is open"),
    "queue_full": Meaning(429, True, "Too many jobs are queued"),
    "unavailable": Meaning(503, True, "The service cannot answer just now"),
    "not_cached": Meaning(424, False, "No stored answer, and none was to be made"),
    "budget_exhausted": Meaning(402, True, "The budget is used up"),
    "expired": Meaning(504, False, "It did not start in time"),
    "canceled": Meaning(409, False, "It was canceled"),
    "worker_lost": Meaning(500, True, "Its worker was lost"),
    "program_error": Meaning(500, False, "The program raised an error"),
    "call_budget_exceeded": Meaning(500, False, "The program made more model calls than allowed"),
    "result_too_large": Meaning(500, False, "The output is larger than allowed"),
    "invalid_output": Meaning(500, False, "The output does not fit the program's schema"),
}


def meaning_of(code: str) -> str:
    """A code with its title: what may be told where a problem's detail, which may hold a caller's data, may not."""
    return f"{code}: {CODES[code].title}" if code in CODES else code


class Problem(BaseModel):
    """An error as HTTP answers it, as a job stores it and as a batch's result line carries it."""

    model_config = ConfigDict(extra="allow", frozen=True)

    type: str
    title: str
    status: int
    detail: str
    code: str
    retryable: bool
    instance: str | None = None
    request_id: str | None = None
    errors: list[dict[str, Any]] | None = None


def problem(code: str, detail: str, *, retryable: bool | None = None, **more: Any) -> Problem:
    """The problem for a code of `CODES`. `retryable` overrides the code's default; `more` adds members."""
    meaning = CODES[code]
    return Problem(
        type=f"/problems/{code}",
        title=meaning.title,
        status=meaning.status,
        detail=detail,
        code=code,
        retryable=meaning.retryable if retryable is None else retryable,
        **more,
    )


class ProblemError(Exception):
    """Raised where a problem must leave the present code path; carries it and the headers HTTP should add."""

    def __init__(self, problem: Problem, headers: dict[str, str] | None = None) -> None:
        super().__init__(f"{problem.code}: {problem.detail}")
        self.problem = problem
        self.headers = headers or {}


def fail(code: str, detail: str, **more: Any) -> ProblemError:
    """A raisable problem: `raise fail("not_found", "…")`."""
    return ProblemError(problem(code, detail, **more))
