"""Numbers for Prometheus, read back: sums, growth, quantiles."""

from __future__ import annotations

import pytest

from dspy_jobs.top.samples import Samples, bucket_growth, growth, quantile, summed

TEXT = """# TYPE jobs counter
jobs_total{program="a",status="ok"} 3
jobs_total{program="b",status="ok"} 4
jobs_total{program="b",status="bad"} 1
# TYPE idle counter
# TYPE seconds histogram
seconds_bucket{program="a",model="x",le="1"} 1
seconds_bucket{program="a",model="x",le="+Inf"} 2
seconds_bucket{program="a",model="y",le="1"} 3
seconds_bucket{program="a",model="y",le="+Inf"} 3
"""
INFINITE = float("inf")


def test_samples_are_summed_by_labels() -> None:
    """Over all that have the labels; a metric without samples is 0, one that there is not is unknown."""
    samples = Samples(TEXT)
    assert samples.total("jobs_total") == 8
    assert samples.total("jobs_total", status="ok") == 7
    assert samples.total("jobs_total", status="gone") == 0
    assert samples.total("idle_total") == 0
    assert samples.total("other_total") is None
    assert samples.buckets("seconds", "program") == {"a": {1.0: 4.0, INFINITE: 5.0}}


def test_what_is_no_number_and_what_is_no_bucket_is_passed_over() -> None:
    """As a foreign service may answer."""
    odd = 'jobs_total{program="a"} NaN\njobs_total +Inf\nseconds_bucket{program="z"} 1\nseconds_bucket{le="?"} 1\n'
    samples = Samples("# TYPE jobs counter\n" + odd)
    assert samples.total("jobs_total") == 0
    assert not any(samples.buckets("seconds", "program").values())


def test_what_is_no_metrics_text_is_refused() -> None:
    """As when a proxy answers with a page."""
    with pytest.raises(ValueError, match=r"."):
        Samples("<html>bad gateway</html>")


@pytest.mark.parametrize(
    ("before", "now", "expected"), [(3, 5, 2), (5, 5, 0), (5, 2, 2), (None, 2, None), (2, None, None)]
)
def test_a_counter_that_began_anew_grew_by_what_it_has(
    before: float | None, now: float | None, expected: float | None
) -> None:
    """Nothing ever grows by less than nothing."""
    assert growth(before, now) == expected


def test_buckets_that_began_anew_count_from_nothing() -> None:
    """If one of them shrank."""
    assert bucket_growth({1.0: 2, INFINITE: 3}, {1.0: 5, INFINITE: 7}) == {1.0: 3, INFINITE: 4}
    assert bucket_growth({1.0: 2, INFINITE: 30}, {1.0: 5, INFINITE: 7}) == {1.0: 5, INFINITE: 7}
    assert bucket_growth({}, {1.0: 5}) == {1.0: 5}


@pytest.mark.parametrize(
    ("share", "expected"),
    [(0.5, 1.0), (0.25, 0.5), (0.75, 1.5), (0.95, 1.9), (1.0, 2.0)],
)
def test_quantiles_are_prometheus_own(share: float, expected: float) -> None:
    """Evenly spread within a bucket: ten values up to 1, ten up to 2."""
    assert quantile({1.0: 10, 2.0: 20, INFINITE: 20}, share) == pytest.approx(expected)


def test_quantiles_at_the_edges() -> None:
    """Above the last bound is told as that bound; of nothing there is none."""
    assert quantile({1.0: 0, INFINITE: 5}, 0.5) == 1.0
    assert quantile({1.0: 0, INFINITE: 0}, 0.5) is None
    assert quantile({}, 0.5) is None


def test_what_is_not_known_adds_nothing() -> None:
    """And of nothing known there is no sum."""
    assert summed([1, None, 2]) == 3
    assert summed([None]) is None
