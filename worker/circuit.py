"""The circuit breaker of a model: pybreaker's state machine in this process, kept in step with the whole fleet.

The fleet's verdict is reached in Redis (`report_calls.lua`) over a sliding window of everybody's calls, because
consecutive failures, all that pybreaker counts, never trip at an error rate of one half under concurrency. pybreaker
holds the verdict here, and goes on judging by itself while Redis is away. Its `call` holds a lock as long as it runs,
so outcomes are fed to it after the call.
"""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable
from contextlib import suppress

import pybreaker
import structlog
from dspy.clients.errors import wrap_error
from dspy.utils.exceptions import (
    LMAuthError,
    LMBillingError,
    LMNotConfiguredError,
    LMRateLimitError,
    LMServerError,
    LMTimeoutError,
    LMTransportError,
)
from redis.exceptions import RedisError

from dspy_jobs.problems import problem
from dspy_jobs.settings import BreakerSettings, Settings
from dspy_jobs.store import SyncStore, gates
from dspy_jobs.store.gates import FleetCircuit
from worker.context import AttemptContext, AttemptStopped

log = structlog.get_logger("worker")


#: Calls refused for their rate with no answered one between, after which the provider is taken to be full.
LIMITED_IN_A_ROW = 3


class Verdict(enum.Enum):
    """What a failed call says about the provider."""

    FAULT = "fault"
    """The provider or the way to it failed: counts."""
    FATAL = "fatal"
    """The operator's account is refused: no call can succeed, the circuit opens at once."""
    LIMITED = "limited"
    """Too many requests: a matter of waiting, not of health."""
    INNOCENT = "innocent"
    """The caller's or our own fault: says nothing about the provider."""


#: DSPy's public error classes by what they say about the provider; whatever is not listed is innocent.
_VERDICTS: dict[type[Exception], Verdict] = {
    LMServerError: Verdict.FAULT,
    LMTimeoutError: Verdict.FAULT,
    LMTransportError: Verdict.FAULT,
    LMAuthError: Verdict.FATAL,
    LMBillingError: Verdict.FATAL,
    LMNotConfiguredError: Verdict.FATAL,
    LMRateLimitError: Verdict.LIMITED,
}


def verdict_of(error: Exception, model: str) -> Verdict:
    """What an engine's error says about the provider."""
    public = wrap_error(error, model=model)
    return next((verdict for kind, verdict in _VERDICTS.items() if isinstance(public, kind)), Verdict.INNOCENT)


#: Reports (successes, faults, fatal, probe) to the fleet; answers its verdict, or None while Redis is away.
Report = Callable[[int, int, bool, str], FleetCircuit | None]


class Circuit:
    """One model's circuit in this process. Thread-safe."""

    def __init__(self, model: str, settings: BreakerSettings, report: Report) -> None:
        self.model = model
        self._settings = settings
        self._report = report
        self._breaker = pybreaker.CircuitBreaker(
            fail_max=settings.failure_threshold,
            reset_timeout=settings.reset_seconds,
            success_threshold=settings.success_threshold,
            name=model,
            throw_new_error_on_trip=False,
        )
        self._lock = threading.Lock()
        self._unreported_successes = 0
        self._limited_in_a_row = 0

    @property
    def is_open(self) -> bool:
        """Whether ordinary calls are refused now."""
        return bool(self._breaker.current_state != pybreaker.STATE_CLOSED)

    def admit(self, attempt: AttemptContext) -> None:
        """Let a call begin.

        Raises:
            AttemptStopped: the circuit is open and this attempt is not the fleet's probe.
        """
        if not self.is_open or attempt.probe:
            return
        detail = f"The circuit of model {self.model!r} is open: the provider fails."
        raise AttemptStopped(problem("circuit_open", detail))

    def succeeded(self, attempt: AttemptContext) -> None:
        """Count an answered call. A probe's success is reported at once, others with the next round."""
        if attempt.probe:
            self._tell(1, 0, fatal=False, probe=attempt.probe)
            return
        with self._lock:
            self._unreported_successes += 1
            self._limited_in_a_row = 0
        if not self.is_open:
            self._breaker.call(_nothing)

    def failed(self, error: Exception, attempt: AttemptContext) -> Verdict:
        """Count a failed call by what it says about the provider."""
        verdict = verdict_of(error, self.model)
        if verdict is Verdict.LIMITED:
            self._count_limited(attempt)
        if verdict in (Verdict.FAULT, Verdict.FATAL):
            fleet = self._tell(self._take_successes(), 1, fatal=verdict is Verdict.FATAL, probe=attempt.probe)
            if fleet is None:
                self._judge_alone(error, fatal=verdict is Verdict.FATAL)
        return verdict

    def _count_limited(self, attempt: AttemptContext) -> None:
        """One refused call among many that pass is that job's matter; several with none between are everybody's."""
        with self._lock:
            self._limited_in_a_row += 1
            attempt.provider_is_full = self._limited_in_a_row >= LIMITED_IN_A_ROW

    def report_successes(self) -> None:
        """Tell the fleet of calls that went well since the last time."""
        if count := self._take_successes():
            self._tell(count, 0, fatal=False, probe="")

    def adopt(self, fleet: FleetCircuit) -> None:
        """Take over the fleet's verdict."""
        with self._lock:
            if fleet.is_open:
                if not self.is_open:
                    self._breaker.open()
            elif self.is_open:
                self._breaker.close()

    def _tell(self, successes: int, faults: int, *, fatal: bool, probe: str) -> FleetCircuit | None:
        fleet = self._report(successes, faults, fatal, probe)
        if fleet is not None:
            self.adopt(fleet)
        return fleet

    def _take_successes(self) -> int:
        with self._lock:
            count, self._unreported_successes = self._unreported_successes, 0
        return count

    def _judge_alone(self, error: Exception, *, fatal: bool) -> None:
        """Redis is away: pybreaker's own count of consecutive failures decides."""
        if fatal:
            self._breaker.open()
            return
        with suppress(Exception):  # it raises what it was given, or that the circuit opened
            self._breaker.call(_raise, error)


def _nothing() -> None:
    return None


def _raise(error: Exception) -> None:
    raise error


#: Every configured model's circuit by the model's name.
Circuits = dict[str, Circuit]


def circuits_of(settings: Settings, store: SyncStore) -> Circuits:
    """A circuit for each model, kept in step with the fleet through the store."""
    return {name: _circuit(name, model.breaker, store) for name, model in settings.models.items()}


def _circuit(model: str, breaker: BreakerSettings, store: SyncStore) -> Circuit:
    def report(successes: int, faults: int, fatal: bool, probe: str) -> FleetCircuit | None:
        operation = gates.report_calls(model, breaker, successes, faults, fatal=fatal, probe=probe)
        try:
            return store.run(operation)
        except RedisError as error:
            log.warning("redis_unavailable", error=str(error))
            return None

    return Circuit(model, breaker, report)
