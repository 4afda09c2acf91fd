"""One attempt of a job, as steps over one record: read the inputs, run the program, settle the outcome."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import dspy
import orjson
from pydantic import ValidationError
from pydantic_core import PydanticSerializationError

from dspy_jobs import names, outcomes, retries
from dspy_jobs.cache_entry import CacheEntry
from dspy_jobs.logs import raised
from dspy_jobs.outcomes import Attempt, Reused, Usage
from dspy_jobs.problems import Problem, problem
from dspy_jobs.settings import Settings
from dspy_jobs.states import JobStatus, WaitReason
from dspy_jobs.store import gates, operations
from dspy_jobs.store.books import Bill, BilledCall
from dspy_jobs.store.records import Claim
from dspy_jobs.store.script import Operation
from worker import bugs, failures
from worker.context import AttemptContext
from worker.language_models import LanguageModels
from worker.programs import Program
from worker.response_cache import ResponseCache
from worker.wish import Wish


@dataclass(frozen=True, slots=True)
class Settlement:
    """How an attempt ended and the operation that makes it known."""

    operation: Operation[Any]
    status: str
    """`succeeded`, `failed`, `canceled`, or `retrying`."""
    attempt: Attempt
    more: tuple[Operation[Any], ...] = ()
    """What else must be said: that a gate closes, that a probe is over."""
    to_store: tuple[str, CacheEntry] | None = None
    """The output and its cache key, to be stored once the job has ended with it: never what is not in the books."""
    output: dict[str, Any] | None = None
    """What the job succeeded with."""
    raised: Mapping[str, str] = field(default_factory=dict)
    """The exception that somebody here must look at, as `logs.raised` tells of it."""


@dataclass(frozen=True)
class Runner:
    """What every attempt in this process needs."""

    settings: Settings
    worker_id: str
    programs: dict[str, Program]
    models: LanguageModels
    cache: ResponseCache

    def context_for(self, claim: Claim, request: dict[str, Any], wish: Wish | None = None) -> AttemptContext:
        """The attempt's context, with the job's own timeout if it has one."""
        timeout = request.get("timeout_seconds") or self.settings.jobs.timeout_seconds
        probe = claim.id if claim.is_probe else ""
        program = self.settings.programs.get(claim.program)
        resumes = program is not None and program.resume
        scope = claim.id if resumes else f"{claim.id}/{claim.attempt}"
        return AttemptContext(
            claim.id, timeout, self.settings.jobs.max_calls, probe, wish, scope=scope, resumes=resumes
        )

    def run(self, claim: Claim, request: dict[str, Any], context: AttemptContext) -> Settlement:
        """Run the program and decide what becomes of the job. Whatever the program raises becomes data."""
        started = time.monotonic()
        try:
            output = self._output(claim, request, context)
        except BaseException as error:  # noqa: BLE001  # whatever a user's program raises must end as data
            context.end()
            found = failures.problem_of(error)
            if failures.is_a_bug(found):
                bugs.report(error, found.code, claim, request)
            failed = self._attempt(claim, context, started, found)
            settlement = self._settle_failure(claim, failed, context, failures.retry_after_of(error))
            return replace(settlement, raised=raised(error)) if failures.is_a_bug(found) else settlement
        context.end()
        if isinstance(output, Problem):
            return self._settle_failure(claim, self._attempt(claim, context, started, output), context)
        return self._settle_success(claim, output, self._attempt(claim, context, started), context)

    def abandon(self, claim: Claim, context: AttemptContext) -> Settlement:
        """Fail an attempt whose thread is stuck past its deadline; whatever the thread says later is discarded."""
        detail = f"The program did not return within its timeout_seconds ({context.timeout_seconds:g}) and hangs."
        context.end()
        started = context.deadline - context.timeout_seconds
        stuck = self._attempt(claim, context, started, problem("timeout", detail, retryable=False))
        return self._settle_failure(claim, stuck, context)

    def broken(self, claim: Claim, error: Exception) -> Settlement:
        """Fail an attempt whose outcome could not be made or stored; what it used is not known."""
        now = claim.started_at
        attempt = Attempt(
            claim.attempt, claim.model, now, now, failures.unstorable(error), Usage(None, None, 0, None), None
        )
        outcome = outcomes.failure(claim.id, attempt, self._version(claim))
        operation = operations.finish_job(self.worker_id, claim, JobStatus.FAILED, outcome, Bill([_UNKNOWN_CALL]))
        return Settlement(operation, JobStatus.FAILED, attempt, _probe_over(claim), raised=raised(error))

    def _output(self, claim: Claim, request: dict[str, Any], context: AttemptContext) -> dict[str, Any] | Problem:
        if context.wish and context.wish.mode == "only":
            return problem("not_cached", "There is no stored output, and cache.mode `only` allows no other.")
        program = self.programs.get(claim.program)
        if program is None:
            return problem("unknown_program", f"This worker has no program {claim.program!r}.")
        arm = program.arms.get(claim.variant)
        if arm is None:
            return problem("unknown_variant", f"This worker's program {claim.program!r} has no {claim.variant!r}.")
        try:
            model = self.models.get(claim.model, {**arm.parameters, **(request.get("parameters") or {})})
        except KeyError:
            return problem("unknown_model", f"This worker has no model {claim.model!r}.")
        try:
            inputs = program.types.read_inputs(request["inputs"])
        except ValidationError as error:
            return failures.invalid_input(error)
        with dspy.context(lm=model, adapter=program.adapter, disable_history=True, trace=[], job=context):
            prediction = arm.for_one_job()(**inputs)
        try:
            return program.types.write_output(prediction)
        except (ValidationError, PydanticSerializationError, TypeError) as error:
            return failures.invalid_output(error)

    def _attempt(self, claim: Claim, context: AttemptContext, started: float, error: Problem | None = None) -> Attempt:
        # By Redis's clock, which started it; only the duration is measured here.
        ended_at = claim.started_at + int((time.monotonic() - started) * 1000)
        return Attempt(
            claim.attempt, claim.model, claim.started_at, ended_at, error, context.usage(), context.cost_nanos(),
            context.replayed,
        )  # fmt: skip

    def _version(self, claim: Claim) -> str:
        program = self.programs.get(claim.program)
        arm = program.arms.get(claim.variant) if program else None
        return arm.version if arm else ""

    def _settle_success(
        self, claim: Claim, output: dict[str, Any], attempt: Attempt, context: AttemptContext
    ) -> Settlement:
        try:
            outcome = outcomes.success(claim.id, output, attempt, self._version(claim), _use(context))
        except TypeError as error:
            return self._settle_failure(claim, _with_error(attempt, failures.invalid_output(error)), context)
        limit = self.settings.limits.result_bytes
        if len(outcome) > limit:
            detail = f"The output has more than {limit} bytes of JSON (limits.result_bytes)."
            return self._settle_failure(claim, _with_error(attempt, problem("result_too_large", detail)), context)
        how = _use(context).how
        operation = operations.finish_job(
            self.worker_id, claim, JobStatus.SUCCEEDED, outcome, context.bill(is_last=True), use=how
        )
        entry = CacheEntry(output, attempt.ended_at, attempt.cost_nanos, self._version(claim))
        to_store = (context.wish.key, entry) if context.wish else None
        return Settlement(operation, JobStatus.SUCCEEDED, attempt, _probe_over(claim), to_store, output)

    def _settle_failure(
        self, claim: Claim, attempt: Attempt, context: AttemptContext, retry_after: float | None = None
    ) -> Settlement:
        assert attempt.error is not None
        jitter = random.random()  # noqa: S311  # spreads retries, guards nothing
        decision = retries.decide(attempt.error, self._history(claim), retry_after, jitter, self.settings.jobs)
        more = (*_probe_over(claim), *self._closing(claim, context, retry_after))
        if isinstance(decision, retries.GiveUp):
            status = JobStatus.CANCELED if attempt.error.code == "canceled" else JobStatus.FAILED
            outcome = outcomes.failure(claim.id, attempt, self._version(claim))
            bill, instead = context.bill_of_failure(is_useless=attempt.error.code in _USELESS)
            operation = operations.finish_job(self.worker_id, claim, status, outcome, bill, last_record=instead)
            return Settlement(operation, status, attempt, more)
        return Settlement(self._again(claim, attempt, decision, context), "retrying", attempt, more)

    def _again(
        self, claim: Claim, attempt: Attempt, decision: retries.Retry | retries.FallBack, context: AttemptContext
    ) -> Operation[Any]:
        record, bill = orjson.dumps(attempt.as_record()), context.bill()
        if isinstance(decision, retries.FallBack):
            return operations.retry_later(
                self.worker_id, claim, record, 0, WaitReason.RETRY_SCHEDULED, bill, "none", decision.model
            )
        return operations.retry_later(
            self.worker_id, claim, record, decision.delay_seconds, decision.reason, bill, decision.counter
        )

    def _history(self, claim: Claim) -> retries.History:
        return retries.History(
            tries=claim.tries + 1,
            limited=claim.limited + 1,
            max_attempts=claim.max_attempts,
            fallbacks=self.fallbacks((claim.model, *claim.fallen)),
        )

    def fallbacks(self, models: Sequence[str]) -> list[str]:
        """Models left for a job that is on `models[0]` and has left the others: the first one's fallbacks, in order."""
        first = self.settings.models.get(models[1] if len(models) > 1 else models[0])
        return [name for name in (first.fallbacks if first else []) if name not in models]

    def _closing(self, claim: Claim, context: AttemptContext, retry_after: float | None) -> tuple[Operation[Any], ...]:
        """Close the queue when the provider or its configured limits let nobody in for a while."""
        if not context.provider_is_full or not retry_after:
            return ()
        seconds = min(retry_after, self.settings.jobs.max_backoff_seconds)
        return (gates.close_gate(names.queue(claim.model), WaitReason.RATE_LIMITED, seconds),)


def _probe_over(claim: Claim) -> tuple[Operation[Any], ...]:
    return (gates.release_probe(claim.model, claim.id),) if claim.is_probe else ()


def _with_error(attempt: Attempt, error: Problem) -> Attempt:
    return replace(attempt, error=error)


#: Failures of a program whose every answer could be read: retried by hand it would fail the same way on the same ones.
_USELESS = frozenset({"invalid_output", "result_too_large", "program_error"})

#: What an attempt used whose outcome could not even be stored.
_UNKNOWN_CALL = BilledCall(None, None, None, None, None)


def _use(context: AttemptContext) -> Reused:
    """How a job that ran came by its output."""
    return Reused("miss", context.wish.key) if context.wish else Reused("bypass")
