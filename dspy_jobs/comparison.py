"""How a program's variants differ, and how sure that is. All statistics are scipy's, which is loaded when needed."""

from __future__ import annotations

import math
import warnings
from dataclasses import asdict, dataclass, field
from typing import Any

from dspy_jobs.models import VariantReport

#: Scores of an arm below which nothing can be said of their spread.
FEWEST_SCORES = 2
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Difference:
    """A variant against the baseline: an estimate, its confidence interval, and the chance of seeing it by chance.

    Where one of them cannot be told it is None, and `note` says why.
    """

    n: int
    baseline_n: int
    value: float | None
    """The variant's own: mean score, or error rate."""
    difference: float | None
    """The variant's minus the baseline's."""
    low: float | None = None
    """Ends of the 95 % confidence interval of the difference; of error rates, of the ratio."""
    high: float | None = None
    p_value: float | None = None
    ratio: float | None = None
    """Of error rates: the variant's over the baseline's."""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One variant beside the baseline."""

    variant: VariantReport
    is_baseline: bool
    error_rate: Difference | None = None
    scores: dict[str, Difference] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """As `--json` shows it, without the single values of the scores."""
        shown = self.variant.model_dump(mode="json")
        for summary in shown["scores"].values():
            summary.pop("values", None)
        differences = {name: asdict(difference) for name, difference in self.scores.items()}
        errors = None if self.error_rate is None else asdict(self.error_rate)
        return {**shown, "is_baseline": self.is_baseline, "versus": {"error_rate": errors, "scores": differences}}


def compared(variants: list[VariantReport], baseline: str | None = None) -> list[Comparison]:
    """Every variant beside the baseline: the named one, else that of the largest weight, the first of equals.

    Raises:
        ValueError: there is no such variant, or none at all.
    """
    base = _baseline(variants, baseline)
    others = [_against(base, variant) for variant in variants if variant is not base]
    return [Comparison(base, is_baseline=True), *others]


def _baseline(variants: list[VariantReport], name: str | None) -> VariantReport:
    if not variants:
        raise ValueError("the program has no variants; see [programs.….variants] in docs/configuration.md")
    if name is None:
        return max(variants, key=lambda variant: variant.weight or 0)
    found = next((variant for variant in variants if variant.name == name), None)
    if found is None:
        raise ValueError(f"there is no variant {name!r}; there are: {', '.join(v.name for v in variants)}")
    return found


def _against(base: VariantReport, variant: VariantReport) -> Comparison:
    names = sorted({*base.scores, *variant.scores})
    scores = {name: score_difference(_values(variant, name), _values(base, name)) for name in names}
    errors = error_difference(variant.failed, variant.jobs, base.failed, base.jobs)
    return Comparison(variant, is_baseline=False, error_rate=errors, scores=scores)


def _values(variant: VariantReport, name: str) -> list[float]:
    return variant.scores[name].values if name in variant.scores else []


def score_difference(values: list[float], baseline: list[float]) -> Difference:
    """Difference of two means by Welch's t-test, which does not take the spreads for equal."""
    n, base_n = len(values), len(baseline)
    if min(n, base_n) < FEWEST_SCORES:
        mean = math.fsum(values) / n if n else None
        note = f"too few scores: {n} and the baseline's {base_n}; each needs {FEWEST_SCORES}"
        return Difference(n, base_n, mean, None, note=note)
    import numpy as np
    from scipy import stats

    mean, base_mean = float(np.mean(values)), float(np.mean(baseline))
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)  # of scores that are all the same; told below
        test = stats.ttest_ind(values, baseline, equal_var=False)
        interval = test.confidence_interval(CONFIDENCE)
    low, high, p_value = (_known(number) for number in (interval.low, interval.high, test.pvalue))
    note = "the scores do not vary, so nothing can be said of chance" if p_value is None else ""
    return Difference(n, base_n, mean, mean - base_mean, low, high, p_value, note=note)


def error_difference(failed: int, jobs: int, base_failed: int, base_jobs: int) -> Difference:
    """Error rates: their difference, their ratio with its interval (Katz), and Fisher's exact p-value."""
    if not jobs or not base_jobs:
        rate = failed / jobs if jobs else None
        return Difference(jobs, base_jobs, rate, None, note="no job has ended yet in one of the two")
    import numpy as np
    from scipy import stats
    from scipy.stats import contingency

    rate, base_rate = failed / jobs, base_failed / base_jobs
    table = np.array([[failed, jobs - failed], [base_failed, base_jobs - base_failed]])
    p_value = _known(stats.fisher_exact(table).pvalue)
    if not failed or not base_failed:
        note = "no failures in one of the two, so their ratio cannot be told"
        return Difference(jobs, base_jobs, rate, rate - base_rate, p_value=p_value, note=note)
    risk = contingency.relative_risk(failed, jobs, base_failed, base_jobs)
    interval = risk.confidence_interval(CONFIDENCE)
    low, high = _known(interval.low), _known(interval.high)
    return Difference(jobs, base_jobs, rate, rate - base_rate, low, high, p_value, _known(risk.relative_risk))


def _known(number: Any) -> float | None:
    value = float(number)
    return value if math.isfinite(value) else None
