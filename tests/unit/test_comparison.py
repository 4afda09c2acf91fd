"""How variants are compared: what is said, how sure it is, and what is not said."""

from __future__ import annotations

import random
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from scipy import stats

from dspy_jobs.comparison import compared, error_difference, score_difference
from dspy_jobs.models import ScoreSummary, VariantReport


def report(name: str, weight: float = 1, jobs: int = 10, failed: int = 1, **scores: list[float]) -> VariantReport:
    """A variant's numbers."""
    summaries = {score: ScoreSummary(n=len(values), values=values) for score, values in scores.items()}
    return VariantReport(name=name, weight=weight, jobs=jobs, failed=failed, scores=summaries)


def test_means_are_compared() -> None:
    """The p-value agrees with a permutation test, which takes nothing for granted of how scores are spread."""
    chance = random.Random(1)
    values = [chance.gauss(0.62, 0.2) for _ in range(40)]
    baseline = [chance.gauss(0.5, 0.3) for _ in range(50)]
    found = score_difference(values, baseline)

    def difference(one: Any, other: Any, axis: int) -> Any:
        return np.mean(one, axis=axis) - np.mean(other, axis=axis)

    samples = (np.array(values), np.array(baseline))
    permuted = stats.permutation_test(samples, difference, n_resamples=9999, vectorized=True, rng=1)
    assert found.difference == pytest.approx(permuted.statistic)
    assert found.p_value == pytest.approx(permuted.pvalue, abs=0.02)
    assert (found.n, found.baseline_n, found.note) == (40, 50, "")


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    """Over many experiments whose true difference is known."""
    chance, hits, rounds = random.Random(3), 0, 400
    for _ in range(rounds):
        better = [chance.gauss(0.7, 0.2) for _ in range(30)]
        base = [chance.gauss(0.5, 0.1) for _ in range(60)]
        found = score_difference(better, base)
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= 0.2 <= found.high
    assert 0.92 <= hits / rounds <= 0.98


@pytest.mark.parametrize(("values", "baseline"), [([], [1.0, 2.0]), ([1.0], [1.0, 2.0]), ([1.0, 2.0], [])])
def test_too_few_scores_say_so(values: list[float], baseline: list[float]) -> None:
    """No difference is claimed of a single value."""
    found = score_difference(values, baseline)
    assert (found.difference, found.p_value) == (None, None)
    assert found.note == f"too few scores: {len(values)} and the baseline's {len(baseline)}; each needs 2"


def test_scores_that_do_not_vary_say_so() -> None:
    """Where all are the same, chance cannot be judged."""
    found = score_difference([1.0, 1.0], [1.0, 1.0])
    assert (found.difference, found.p_value) == (0.0, None)
    assert found.note == "the scores do not vary, so nothing can be said of chance"


def test_error_rates_are_compared() -> None:
    """The difference, the ratio with its interval, and Fisher's p (Agresti's tea-tasting table has 0.486)."""
    found = error_difference(3, 4, 1, 4)
    assert (found.value, found.difference, found.ratio) == (0.75, 0.5, 3.0)
    assert found.p_value == pytest.approx(0.4857, abs=1e-4)
    assert found.low is not None
    assert found.high is not None
    assert found.low < 3 < found.high


@pytest.mark.parametrize(("failed", "jobs", "note"), [(0, 5, "their ratio cannot be told"), (0, 0, "no job has ended")])
def test_rates_that_cannot_be_compared_say_so(failed: int, jobs: int, note: str) -> None:
    """No failures, or nothing at all."""
    found = error_difference(failed, jobs, 2, 5)
    assert note in found.note
    assert found.ratio is None


def test_the_baseline_is_the_heaviest_or_the_one_asked_for() -> None:
    """It comes first, and the others are against it."""
    variants = [report("a", accuracy=[0.1, 0.2]), report("b", weight=9, accuracy=[0.3, 0.5]), report("c", style=[1.0])]
    found = compared(variants)
    assert [(c.variant.name, c.is_baseline) for c in found] == [("b", True), ("a", False), ("c", False)]
    assert set(found[1].scores) == {"accuracy"}
    assert set(found[2].scores) == {"accuracy", "style"}
    assert compared(variants, "c")[0].variant.name == "c"
    with pytest.raises(ValueError, match="there is no variant 'x'; there are: a, b, c"):
        compared(variants, "x")
    with pytest.raises(ValueError, match="the program has no variants"):
        compared([])


def test_scipy_is_loaded_only_to_compare() -> None:
    """It takes half a second, which no other command should."""
    code = "import sys, dspy_jobs.cli, dspy_jobs.comparison; assert not {'scipy', 'numpy'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)
