"""What this process measures of its own work: counters and histograms in a registry of its own.

What the whole service shows as sums of all workers (`dspy_jobs.measures`) is kept as whole numbers, for `FleetReport`
to send on. The rest is counted by the ledger itself, so here it is this process's share since its start and goes with
it. Noted from every thread: whatever a set of labels counts is looked up once and kept.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from dspy_jobs.measures import (
    CACHE_OPERATIONS,
    FAMILIES,
    LM_CALL_DURATION,
    OTHER,
    PREDICTION_DURATION,
    QUEUE_WAIT,
    REDIS_DURATION,
    Durations,
    Family,
    metrics_of,
)
from dspy_jobs.outcomes import Attempt
from dspy_jobs.problems import CODES
from dspy_jobs.settings import Settings
from dspy_jobs.states import JobStatus
from dspy_jobs.store.records import Claim, Taken
from worker.attempt import Settlement
from worker.response_cache import CacheCounts

#: Of any job: how it came to run.
_ARM = ("program", "model", "variant")
PREDICTIONS = Family("dspy_predictions", "Jobs that ended.", (*_ARM, "status"))
ERRORS = Family("dspy_errors", "Jobs that failed, by the problem's code.", ("code", "model"))
COST = Family("dspy_prediction_cost", "US dollars spent, as far as prices are known.", _ARM, per=1e9)
TOKENS = Family("dspy_token_usage", "Tokens used, as far as they are known.", ("type", "model"))

#: What the ledger counts for the whole service, so that here it is no more than this process's share.
_OWN = (PREDICTIONS, ERRORS, COST, TOKENS)

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
        self._counts: Counter[str] = Counter()
        self._counting = threading.Lock()
        self._round_trips = self._durations_of(REDIS_DURATION, "worker")
        self._calls: set[object] = set()
        """One for each model call under way. To add to a set, or take from it, is one step for the interpreter."""
        self.registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """What the whole service adds up, and what it counts itself, as far as it is this process's."""
        with self._counting:
            counts = dict(self._counts)
        yield from metrics_of({**self.totals(), **counts}, (*FAMILIES, *_OWN))
        meaning = "Model calls that wait for their answer."
        yield GaugeMetricFamily("dspy_worker_lm_calls_in_flight", meaning, value=len(self._calls))

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
        # Between two attempts the job may have been canceled.
        status = str(JobStatus.CANCELED) if answer == "canceled" else settlement.status
        noted = _used(labels, attempt)
        if status != "retrying":
            noted[PREDICTIONS.field((*labels, status))] = 1
            seconds = (attempt.ended_at - attempt.started_at) / 1000
            self._durations_of(PREDICTION_DURATION, *labels[:2]).observe(seconds)
        if status == JobStatus.FAILED and attempt.error:
            noted[ERRORS.field((_known(attempt.error.code, CODES), labels[1]))] = 1
        self._count(noted)

    def answered(self, job: Taken, answer: str) -> None:
        """See `Unmeasured`."""
        if status := _ANSWERED.get(answer):
            self._count({PREDICTIONS.field((*self._labels(job), status)): 1})

    def round_trip(self, seconds: float) -> None:
        """See `Unmeasured`."""
        self._round_trips.observe(seconds)

    def calls_of(self, model: str) -> Callable[[], AbstractContextManager[None]]:
        """See `Unmeasured`."""
        answered, failed = (self._durations_of(LM_CALL_DURATION, model, outcome) for outcome in ("ok", "error"))

        @contextmanager
        def call() -> Iterator[None]:
            began, durations, this = time.perf_counter(), failed, object()
            self._calls.add(this)
            try:
                yield
                durations = answered
            finally:
                self._calls.discard(this)
                durations.observe(time.perf_counter() - began)

        return call

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

    def _count(self, numbers: Mapping[str, int]) -> None:
        with self._counting:
            for field, number in numbers.items():
                self._counts[field] += number


def _used(labels: tuple[str, str, str], attempt: Attempt) -> dict[str, int]:
    """Tokens and nano-dollars of an attempt, as far as they are known."""
    usage = attempt.usage
    tokens = {
        "input": usage.input_tokens,
        "output": usage.output_tokens,
        "cached_input": usage.cached_input_tokens,
        "reasoning": usage.reasoning_tokens,
    }
    used = {TOKENS.field((kind, labels[1])): number for kind, number in tokens.items() if number}
    return {**used, COST.field(labels): attempt.cost_nanos} if attempt.cost_nanos else used


def _known(value: str, known: Container[str]) -> str:
    return value if value in known else OTHER
