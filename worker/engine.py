"""The guarded engine: every model call of every program goes through it.

DSPy's engine contract is `complete(Request) -> Response`. Before a call come the deadline, cancellation, the call
budget, the job's journal, the model's circuit and its rate limits; after it usage, cost and latency are kept with the
attempt.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, Protocol

import dspy
from dspy.lm15 import LM15Error, Request, Response, TransportError

from dspy_jobs import telemetry
from dspy_jobs.settings import TIMEOUT_BUCKETS
from worker.call_keys import CallHeaders, call_key, sending
from worker.call_spans import Destination, call_answered
from worker.circuit import Circuit
from worker.context import AttemptContext, Call
from worker.journal import Question
from worker.pricing import Pricing
from worker.rates import ProviderRates
from worker.steps import current_rollout_id, when_settled
from worker.tokens import tokens_of

#: What lm15 says when a kept-alive connection was closed while idle. The request was not read, so repeating it once
#: at once pays nothing twice.
_STALE_CONNECTION = "closed connection before sending"


#: Makes what a call runs within; it sees how the call ends.
Watched = Callable[[], AbstractContextManager[None]]


class Engine(Protocol):
    """DSPy's contract of an engine."""

    def complete(self, request: Request) -> Response:
        """One attempt of one call; raises `dspy.lm15` errors."""
        ...


class GuardedEngine:
    """Guards calls of one configured model. Thread-safe; one instance a model and process."""

    def __init__(
        self,
        make_engine: Callable[[float], Engine],
        timeout_seconds: float,
        provider: str,
        pricing: Pricing,
        identity: str,
        destination: Destination,
        headers: CallHeaders,
        capabilities: Any,
        circuit: Circuit,
        rates: ProviderRates | None,
        watched: Watched = nullcontext,
    ) -> None:
        """`make_engine` builds the real engine for a read timeout in seconds; engines are kept by timeout.

        `provider` is whose way of counting tokens the engine's answers follow, `identity` its name
        here, the provider's name of it and its address: answers of another are not taken for its own.
        `destination` is where calls go, and `headers` what they carry for gateways. `watched` makes what each call
        runs within.
        """
        self._watched = watched
        self._circuit = circuit
        self._rates = rates
        self._make_engine = make_engine
        self._timeout_seconds = timeout_seconds
        self._provider = provider
        self._pricing = pricing
        self._identity = identity
        self._destination = destination
        self._headers = headers
        self._engines: dict[float, Engine] = {}
        self._lock = threading.Lock()
        self.supports_function_calling = capabilities.function_calling
        self.supports_reasoning = capabilities.reasoning
        self.supports_response_schema = capabilities.response_schema
        self.supported_params = capabilities.params

    def complete(self, request: Request) -> Response:
        """One model call under the guards.

        Raises:
            AttemptStopped: the attempt may not call any more, or not now: the circuit is open or a rate limit reached.
            dspy.lm15.LM15Error: the provider or the way to it failed.
        """
        attempt: AttemptContext = dspy.settings.job
        attempt.before_call()
        question = Question(self._identity, request, current_rollout_id())
        if answer := attempt.replay(question):
            self._destination.replayed(request, attempt.span)
            return answer
        self._circuit.admit(attempt)
        if self._rates:
            self._rates.admit(attempt)
        engine = self._engine_for(attempt.remaining_seconds())
        with self._destination.call(request, attempt.span) as span:
            started = time.monotonic()
            try:
                with self._key_of(question, attempt), self._trace(), self._watched():
                    response = _complete(engine, request)
            except LM15Error as error:
                self._circuit.failed(error, attempt)
                raise
            self._circuit.succeeded(attempt)
            seconds = time.monotonic() - started
            tokens = tokens_of(request, response, self._provider)
            cost = self._pricing(request, response, tokens)
            call_answered(span, response, tokens, cost)
        if self._rates:
            self._rates.spend(tokens.input, tokens.output)
        call = Call(seconds, tokens, cost, partial(question.record, response))
        attempt.after_call(call)
        when_settled(call.settle)
        return response

    @contextmanager
    def _key_of(self, question: Question, attempt: AttemptContext) -> Iterator[None]:
        """Send the call's key, where a gateway knows what to do with it."""
        name = self._headers.key
        digest = question.digest if name else None
        if digest is None or name is None:
            yield
            return
        try:
            with sending({name: call_key(attempt.scope, digest, attempt.journal.ask(digest))}):
                yield
        except LM15Error:
            attempt.journal.not_answered(digest)
            raise

    def _trace(self) -> AbstractContextManager[None]:
        """Send the trace that the call belongs to, where a gateway may know of it."""
        carrier = telemetry.current_carrier() if self._headers.has_trace else {}
        return sending(carrier) if carrier else nullcontext()

    def _engine_for(self, remaining: float) -> Engine:
        """The engine whose read timeout is the model's, or less near the deadline. Pools are kept one a timeout."""
        wanted = min(self._timeout_seconds, next((b for b in TIMEOUT_BUCKETS if b >= remaining), remaining))
        with self._lock:
            if wanted not in self._engines:
                self._engines[wanted] = self._make_engine(wanted)
            return self._engines[wanted]


def _complete(engine: Engine, request: Request) -> Response:
    try:
        return engine.complete(request)
    except TransportError as error:
        if _STALE_CONNECTION not in str(error):
            raise
        return engine.complete(request)
