"""Totals of the whole service, as the ledger has counted them: exact, whatever workers were killed."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from api.metrics.labels import Labels, expected_of, first_of, labels_of
from api.resources import Resources
from dspy_jobs import names
from dspy_jobs.counted import ATTEMPT_OUTCOMES, Counted, Work
from dspy_jobs.measures import OTHER
from dspy_jobs.money import dollars
from dspy_jobs.problems import CODES
from dspy_jobs.store.counted import read_counted

_LABELS = ("program", "model", "variant")
_STATUSES = ("succeeded", "failed", "canceled", "expired")
#: Types of tokens and the books' metrics.
_TOKENS = {
    "input": "input_tokens",
    "output": "output_tokens",
    "cached_input": "cached_input_tokens",
    "reasoning": "reasoning_tokens",
}


async def read_ledger(resources: Resources) -> Collector:
    """Read all totals."""
    counted, labels = await asyncio.gather(resources.store.run(read_counted()), labels_of(resources))
    expected = await expected_of(resources)
    return LedgerCollector(counted, labels, expected.models, expected.work)


class LedgerCollector(Collector):
    """What became of jobs, attempts, calls and tokens. `models` and `expected` have samples before anything happens."""

    def __init__(self, counted: Counted, labels: Labels, models: Collection[str], expected: Iterable[Work]) -> None:
        self._work: dict[Work, Counter[str]] = {
            work: Counter() for work in map(labels.work, first_of(expected, len(_STATUSES)))
        }
        for work, metrics in counted.of_work.items():
            self._work.setdefault(labels.work(work), Counter()).update(metrics)
        self._counted, self._labels, self._models = counted, labels, models

    def collect(self) -> Iterator[Metric]:
        """The metric families."""
        yield self._predictions()
        yield self._sums("dspy_prediction_cost", "US dollars model calls have cost, where known.", "cost")
        yield self._sums("dspy_unpriced_calls", "Model calls whose cost is unknown.", "unpriced")
        yield self._tokens()
        yield self._flights()
        yield from self._of_failures()

    def _predictions(self) -> Metric:
        family = CounterMetricFamily("dspy_predictions", "Jobs that have ended.", labels=[*_LABELS, "status"])
        for work, metrics in self._work.items():
            family.add_metric([*work, "succeeded"], metrics["jobs"] - metrics["failed"])
            for status in _STATUSES[1:]:
                family.add_metric([*work, status], metrics[status])
        return family

    def _sums(self, name: str, meaning: str, metric: str) -> Metric:
        family = CounterMetricFamily(name, meaning, labels=_LABELS)
        for work, metrics in self._work.items():
            family.add_metric(work, dollars(metrics[metric]) if metric == "cost" else metrics[metric])
        return family

    def _tokens(self) -> Metric:
        sums = {model: Counter[str]() for model in self._models}
        for work, metrics in self._work.items():
            sums.setdefault(work.model, Counter()).update(metrics)
        family = CounterMetricFamily("dspy_token_usage", "Tokens of model calls.", labels=["type", "model"])
        for model, metrics in sums.items():
            for kind, metric in _TOKENS.items():
                family.add_metric([kind, model], metrics[metric])
        return family

    def _flights(self) -> Metric:
        labels, coalesced = ["level", "operation"], sum(metrics["coalesced"] for metrics in self._work.values())
        family = CounterMetricFamily("dspy_cache_operations", "What the response cache did.", labels=labels)
        family.add_metric(["flight", "coalesced"], coalesced)
        return family

    def _of_failures(self) -> Iterator[Metric]:
        counted, labels = self._counted, self._labels
        failures = Counter({(code, model): 0 for model in first_of(self._models, len(CODES)) for code in CODES})
        for (model, code), number in counted.failures.items():
            failures[labels.code(code), labels.model(model)] += number
        yield _family("dspy_errors", "Jobs that failed.", ("code", "model"), failures)
        attempts = Counter({(model, outcome): 0 for model in self._models for outcome in ATTEMPT_OUTCOMES})
        for (model, outcome), number in counted.attempts.items():
            attempts[labels.model(model), outcome if outcome in ATTEMPT_OUTCOMES else OTHER] += number
        yield _family("dspy_attempts", "Attempts that did not end their job.", ("model", "outcome"), attempts)
        recovered = Counter({(names.queue(model),): 0 for model in self._models})
        for queue, number in counted.recovered.items():
            recovered[labels.queue(queue),] += number
        yield _family("dspy_recovered_jobs", "Jobs taken back from lost workers.", ("queue",), recovered)


def _family(name: str, meaning: str, labels: tuple[str, ...], samples: Mapping[Any, float]) -> Metric:
    family = CounterMetricFamily(name, meaning, labels=labels)
    for values, number in samples.items():
        family.add_metric(values, number)
    return family
