"""What a batch will come to before it is queued: tokens, cost, time. Pure arithmetic; what is not known is None.

Only jobs that run count: answers in the cache and equal items of one batch cost nothing.

**With history** (the books of the last days of the same program on the same model: calls, tokens, cost, and runs, which
are ended jobs that had a call answered):

- tokens of a run = tokens of the calls that reported any / their number * calls / runs, in and out. Failed attempts and
  retries are in it, for they were booked;
- input tokens = runs to come * that, but never less than their inputs' own bytes / `BYTES_PER_TOKEN`;
- cost of a run = cost of the calls that have a price / their number * calls / runs; where no call had one, tokens *
  prices. Input tokens beyond the mean, as of longer inputs than before, are added at the price of input;
- the range is that sum -/+ a share of it: `SURE_SHARE` + 1 / sqrt(runs of the books), at most `MOST_SHARE`.

**Without**, one call a job is supposed:

- input tokens = `FRAME_TOKENS` for the prompt around the inputs + bytes of the inputs / `BYTES_PER_TOKEN`;
- output tokens = `USUAL_OUTPUT`, at least `LEAST_OUTPUT` and at most the model's `max_tokens` (`MOST_OUTPUT` if it has
  none);
- the range of the cost: half of the input tokens with the least output, to twice the input tokens with the most.

**Time** = (runs to come + jobs queued before) * mean seconds of a run / threads of live workers, but no less than the
model's limits of calls and tokens a minute take.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from dspy_jobs.settings import ModelSettings

BYTES_PER_TOKEN = 4
FRAME_TOKENS = 200
LEAST_OUTPUT, USUAL_OUTPUT, MOST_OUTPUT = 20, 150, 1000
SURE_SHARE, MOST_SHARE = 0.1, 0.75

_NANOS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Prices:
    """US dollars per 1000 tokens."""

    input: float
    output: float

    def nanos(self, input_tokens: float, output_tokens: float) -> float:
        """Nano-dollars of so many tokens."""
        return (input_tokens * self.input + output_tokens * self.output) / 1000 * _NANOS


@dataclass(frozen=True, slots=True)
class History:
    """What runs of a program on a model used, on the mean."""

    runs: int
    calls: float
    """Calls of a run."""
    input_tokens: float
    output_tokens: float
    cost_nanos: float | None
    """None where no call had a price."""

    @classmethod
    def of(cls, books: Mapping[str, int]) -> History | None:
        """The mean of sums by the books' metrics; None where they say nothing of tokens or of ended runs."""
        total = {name: books.get(name, 0) for name in METRICS}
        runs = total["ran"]
        told, priced = total["calls"] - total["untokened"], total["calls"] - total["unpriced"]
        if runs < 1 or told < 1:
            return None
        calls = total["calls"] / runs
        return cls(
            runs=runs,
            calls=calls,
            input_tokens=total["input_tokens"] / told * calls,
            output_tokens=total["output_tokens"] / told * calls,
            cost_nanos=total["cost"] / priced * calls if priced > 0 else None,
        )


#: Metrics of the books that an estimate is made of.
METRICS = ("calls", "input_tokens", "output_tokens", "cost", "unpriced", "untokened", "ran")


@dataclass(slots=True)
class Load:
    """Jobs that will run, all of one program on one model."""

    jobs: int = 0
    input_bytes: int = 0
    """Of their inputs as JSON in UTF-8."""

    def add(self, input_bytes: int) -> None:
        """Add a job."""
        self.jobs += 1
        self.input_bytes += input_bytes


@dataclass(frozen=True, slots=True)
class Forecast:
    """What some jobs will use. A cost is in nano-dollars."""

    input_tokens: int = 0
    output_tokens: int = 0
    calls: float = 0
    low: float | None = 0
    high: float | None = 0

    def __add__(self, other: Forecast) -> Forecast:
        return Forecast(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.calls + other.calls,
            None if self.low is None or other.low is None else self.low + other.low,
            None if self.high is None or other.high is None else self.high + other.high,
        )


def forecast(load: Load, history: History | None, prices: Prices | None, max_tokens: int | None) -> Forecast:
    """What the jobs will use: by what such jobs used, else by the size of their inputs."""
    if not load.jobs:
        return Forecast()
    return _by_history(load, history, prices) if history else _by_size(load, prices, max_tokens)


def _by_history(load: Load, history: History, prices: Prices | None) -> Forecast:
    usual = load.jobs * history.input_tokens
    inputs = max(usual, load.input_bytes / BYTES_PER_TOKEN)
    outputs = load.jobs * history.output_tokens
    low = high = None
    if (cost := _cost_by_history(load, history, prices, inputs - usual)) is not None:
        share = min(MOST_SHARE, SURE_SHARE + 1 / math.sqrt(history.runs))
        low, high = cost * (1 - share), cost * (1 + share)
    return Forecast(math.ceil(inputs), math.ceil(outputs), load.jobs * history.calls, low, high)


def _cost_by_history(load: Load, history: History, prices: Prices | None, longer: float) -> float | None:
    extra = prices.nanos(longer, 0) if prices else 0.0
    if history.cost_nanos is not None:
        return load.jobs * history.cost_nanos + extra
    if prices is None:
        return None
    return load.jobs * prices.nanos(history.input_tokens, history.output_tokens) + extra


def _by_size(load: Load, prices: Prices | None, max_tokens: int | None) -> Forecast:
    most = MOST_OUTPUT if max_tokens is None else max_tokens
    least = min(LEAST_OUTPUT, most)
    inputs = load.jobs * FRAME_TOKENS + load.input_bytes / BYTES_PER_TOKEN
    low = high = None
    if prices:
        low, high = prices.nanos(inputs / 2, load.jobs * least), prices.nanos(inputs * 2, load.jobs * most)
    return Forecast(math.ceil(inputs), load.jobs * min(USUAL_OUTPUT, most), load.jobs, low, high)


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast the fleet works on a model's queue."""

    queued: int
    """Jobs that go before."""
    threads: int
    """Of all live workers."""
    service_seconds: float | None
    """Mean length of a run; None where none is known."""


def seconds(jobs: int, work: Forecast, pace: Pace, model: ModelSettings | None) -> float | None:
    """How long the jobs will take on this queue; None where nobody serves it or no run was measured."""
    if not jobs:
        return 0.0
    most = model.max_concurrent if model else None
    threads = min(pace.threads, most) if most else pace.threads
    if threads < 1 or pace.service_seconds is None:
        return None
    waves = (jobs + pace.queued) * pace.service_seconds / threads
    # The last job takes as long as a job takes, however many threads there are.
    return max(waves, pace.service_seconds, *_limited(work, model))


def _limited(work: Forecast, model: ModelSettings | None) -> Iterable[float]:
    """Seconds that the provider's limits a minute take."""
    if model and model.requests_per_minute:
        yield work.calls / model.requests_per_minute * 60
    if model and model.tokens_per_minute:
        yield (work.input_tokens + work.output_tokens) / model.tokens_per_minute * 60
