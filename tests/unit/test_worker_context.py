"""What an attempt tells of its model calls."""

from __future__ import annotations

from dspy_jobs.outcomes import Usage
from dspy_jobs.store.books import Bill, BilledCall
from worker.context import AttemptContext, Call
from worker.tokens import Tokens


def attempt(*calls: Call) -> AttemptContext:
    """An attempt with these answered calls."""
    context = AttemptContext("job_1", 60, 10)
    for call in calls:
        context.after_call(call)
    return context


def call(*tokens: int | None, cost: int | None = 0, is_estimated: bool = False) -> Call:
    """An answered call: input, output, cached, reasoning tokens."""
    inputs, outputs, cached, reasoning = (*tokens, *[None] * (4 - len(tokens)))
    return Call(0.1, Tokens(inputs, outputs, cached, None, reasoning, is_estimated=is_estimated), cost)


def test_an_attempt_without_calls_used_nothing() -> None:
    """That is known, and is zero."""
    assert attempt().usage() == Usage(0, 0, 0, "provider", 0, 0)
    assert attempt().cost_nanos() == 0


def test_calls_are_summed() -> None:
    """Tokens and nano-dollars, as whole numbers."""
    context = attempt(call(10, 5, 4, 3, cost=7), call(20, 6, 0, 2, cost=9))
    assert context.usage() == Usage(30, 11, 2, "provider", 4, 5)
    assert context.cost_nanos() == 16


def test_one_unknown_leaves_the_sum_unknown() -> None:
    """Each figure by itself: what is known stays known."""
    context = attempt(call(10, 5, 4, None, cost=7), call(20, 6, None, 2, cost=None))
    assert context.usage() == Usage(30, 11, 2, "provider", None, None)
    assert context.cost_nanos() is None


def test_one_estimate_marks_the_sum() -> None:
    """Counts made here are said to be; where neither side could be counted there is no source."""
    assert attempt(call(1, 1), call(1, 1, is_estimated=True)).usage().source == "estimated"
    assert attempt(call(1, 1), call(None, 1, is_estimated=True)).usage().source == "estimated"
    assert attempt(call(1, 1), call(is_estimated=True)).usage().source is None


def test_the_bill_names_every_call() -> None:
    """What the books get of a call is what the provider said of it."""
    context = attempt(call(10, 5, 4, 3, cost=7), call(is_estimated=True, cost=None))
    assert context.bill() == Bill([BilledCall(10, 5, 4, 3, 7), BilledCall(None, None, None, None, None, True)])
