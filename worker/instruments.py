"""What this process measures of its own work: counters and histograms in a registry of its own.

What the whole service shows as sums of all workers (`dspy_jobs.measures`) is kept as whole numbers, for `FleetReport`
to send on. The rest is counted by the ledger itself, so here it is this process's share since its start and goes with
it. Noted from every thread: whatever a set of labels counts is looked up once and kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from dspy_jobs.measures import (
    CACHE_OPERATIONS,
    LM_CALL_DURATION,
    OTHER,
    PREDICTION_DURATION,
    QUEUE_WAIT,
    REDIS_DURATION,
    Durations,
    Family,
    metrics_of,
)
from dspy_jobs.problems import CODES
from dspy_jobs.settings import Settings
from dspy_jobs.states import JobStatus
from dspy_jobs.store.records import Claim, Taken
from worker.attempt import Settlement
from worker.response_cache import CacheCounts

#: What becomes of a job that was given an output made before, by the store's answer.
_ANSWERED = {"finished": JobStatus.SUCCEEDED, "expired": JobStatus.EXPIRED}


class Unmeasured:
    """Takes note of nothing, as with `worker.instruments = false`."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

    def totals(self) -> dict[str, int]:
        """All that the whole service adds up, by the fields of `dspy_jobs.measures`."""
        return {}

    def started(self, claim: Claim) -> None:
        """An attempt starts."""

    def settled(self, claim: Claim, settlement: Settlement, answer: bool | str) -> None:
        """An attempt has ended; `answer` is the store's."""

    def answered(self, job: Taken, answer: str) -> None:
        """A job was given an output made before; `answer` is the store's."""

    def round_trip(self, seconds: float) -> None:
        """The ledger's Redis has answered, or failed to."""

    def calls_of(self, model: str) -> Callable[[], AbstractContextManager[None]]:
        """Makes what each call of a configured model runs within."""
        del model
        return nullcontext


class Instruments(Unmeasured, Collector):
    """Takes note of everything. Thread-safe."""

    def __init__(self, settings: Settings, cache: CacheCounts) -> None:
        super().__init__()
        self._programs, self._models, self._cache = settings.programs, settings.models, cache
        self._durations: dict[tuple[str, tuple[str, ...]], Durations] = {}
        self._counters: dict[tuple[Counter, tuple[str, ...]], Counter] = {}
        self._round_trips = self._durations_of(REDIS_DURATION, "worker")
        self._make_own()
        self.registry.register(self)

    def _make_own(self) -> None:
        """What only this process shows."""

        def counter(name: str, meaning: str, *labels: str) -> Counter:
            return Counter(name, meaning, labels, registry=self.registry)

        arm = ("program", "model", "variant")
        self._predictions = counter("dspy_predictions", "Jobs that ended.", *arm, "status")
        self._errors = counter("dspy_errors", "Jobs that failed, by the problem's code.", "code", "model")
        self._cost = counter("dspy_prediction_cost", "US dollars spent, as far as prices are known.", *arm)
        self._tokens = counter("dspy_token_usage", "Tokens used, as far as they are known.", "type", "model")
        self._in_flight = Gauge(
            "dspy_worker_lm_calls_in_flight", "Model calls that wait for their answer.", registry=self.registry
        )

    def collect(self) -> Iterator[Metric]:
        """The families that are added up for the whole service, as far as they are this process's."""
        return metrics_of(self.totals())

    def totals(self) -> dict[str, int]:
        """See `Unmeasured`."""
        totals: dict[str, int] = {}
        for durations in list(self._durations.values()):
            durations.add_to(totals)
        for labels, number in self._cache.operations().items():
            totals[CACHE_OPERATIONS.field(labels)] = number
        return totals

    def started(self, claim: Claim) -> None:
        """See `Unmeasured`. Only a first start tells how long a job had to wait: later ones are put off on purpose."""
        if claim.attempt == 1:
            wait = (claim.started_at - claim.created_at) / 1000
            self._durations_of(QUEUE_WAIT, self._model(claim.model)).observe(wait)

    def settled(self, claim: Claim, settlement: Settlement, answer: bool | str) -> None:
        """See `Unmeasured`."""
        if answer in (False, "stale"):  # another attempt has the job
            return
        attempt, labels = settlement.attempt, self._labels(claim)
        self._note_use(labels, settlement)
        # Between two attempts the job may have been canceled.
        status = str(JobStatus.CANCELED) if answer == "canceled" else settlement.status
        if status == "retrying":
            return
        self._count(self._predictions, *labels, status)
        self._durations_of(PREDICTION_DURATION, *labels[:2]).observe((attempt.ended_at - attempt.started_at) / 1000)
        if status == JobStatus.FAILED and attempt.error:
            self._count(self._errors, _known(attempt.error.code, CODES), labels[1])

    def answered(self, job: Taken, answer: str) -> None:
        """See `Unmeasured`."""
        if status := _ANSWERED.get(answer):
            self._count(self._predictions, *self._labels(job), str(status))

    def round_trip(self, seconds: float) -> None:
        """See `Unmeasured`."""
        self._round_trips.observe(seconds)

    def calls_of(self, model: str) -> Callable[[], AbstractContextManager[None]]:
        """See `Unmeasured`."""
        answered, failed = (self._durations_of(LM_CALL_DURATION, model, outcome) for outcome in ("ok", "error"))

        @contextmanager
        def call() -> Iterator[None]:
            began, durations = time.perf_counter(), failed
            self._in_flight.inc()
            try:
                yield
                durations = answered
            finally:
                self._in_flight.dec()
                durations.observe(time.perf_counter() - began)

        return call

    def _note_use(self, labels: tuple[str, str, str], settlement: Settlement) -> None:
        usage, cost = settlement.attempt.usage, settlement.attempt.cost_nanos
        tokens = {
            "input": usage.input_tokens,
            "output": usage.output_tokens,
            "cached_input": usage.cached_input_tokens,
            "reasoning": usage.reasoning_tokens,
        }
        for kind, number in tokens.items():
            if number:
                self._count(self._tokens, kind, labels[1], amount=number)
        if cost:
            self._count(self._cost, *labels, amount=cost / 1e9)

    def _labels(self, job: Claim | Taken) -> tuple[str, str, str]:
        """Its program, model and variant, as far as they are configured."""
        program = self._programs.get(job.program)
        variants = {"", *program.variants} if program else {""}
        return _known(job.program, self._programs), self._model(job.model), _known(job.variant, variants)

    def _model(self, name: str) -> str:
        return _known(name, self._models)

    def _durations_of(self, family: Family, *labels: str) -> Durations:
        found = self._durations.get((family.name, labels))
        return found or self._durations.setdefault((family.name, labels), Durations(family, *labels))

    def _count(self, counter: Counter, *labels: str, amount: float = 1) -> None:
        child = self._counters.get((counter, labels))
        if child is None:
            child = self._counters.setdefault((counter, labels), counter.labels(*labels))
        child.inc(amount)


def _known(value: str, known: Container[str]) -> str:
    return value if value in known else OTHER
