"""Histograms as whole numbers under names of fields, and back into what Prometheus reads."""

from __future__ import annotations

import threading
from collections.abc import Mapping

import pytest
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import Metric

from dspy_jobs.measures import CACHE_OPERATIONS, FAMILIES, LM_CALL_DURATION, Durations, metrics_of

NAME = LM_CALL_DURATION.name
LABELS = {"model": "fast", "outcome": "ok"}


def totals_of(*values: float) -> dict[str, int]:
    """The fields after these values."""
    durations, totals = Durations(LM_CALL_DURATION, *LABELS.values()), dict[str, int]()
    for value in values:
        durations.observe(value)
    durations.add_to(totals)
    return totals


def samples(totals: Mapping[str, int]) -> dict[tuple[str, str], float]:
    """Samples of the family by name and bucket."""
    (family,) = (metric for metric in metrics_of(totals) if metric.name == NAME)
    assert all({**sample.labels, "le": ""} == {**LABELS, "le": ""} for sample in family.samples)
    return _flat(family)


def _flat(family: Metric) -> dict[tuple[str, str], float]:
    found = {(s.name.removeprefix(NAME), s.labels.get("le", "")): s.value for s in family.samples}
    return {key: value for key, value in found.items() if key[0] != "_created"}


@pytest.mark.parametrize("values", [[0.05], [0.0, 0.0501, 0.1, 7.5, 600, 600.1, 1e6], [0.3] * 1000])
def test_they_are_what_prometheus_would_count(values: list[float]) -> None:
    """Bounds belong to the bucket below; buckets add up; the sum is exact to a microsecond a value."""
    theirs = Histogram(NAME, "…", LABELS, registry=CollectorRegistry(), buckets=LM_CALL_DURATION.bounds)
    for value in values:
        theirs.labels(**LABELS).observe(value)
    (expected,) = theirs.collect()
    assert samples(totals_of(*values)) == pytest.approx(_flat(expected), abs=1e-6 * len(values))


def test_a_clock_that_goes_back_takes_nothing_away() -> None:
    """A negative duration counts as none."""
    assert samples(totals_of(-5))["_sum", ""] == 0
    assert samples(totals_of(-5))["_count", ""] == 1


def test_nothing_is_lost_among_threads() -> None:
    """Many threads at once: each value is counted."""
    durations, totals = Durations(LM_CALL_DURATION, *LABELS.values()), dict[str, int]()
    threads = [threading.Thread(target=lambda: [durations.observe(1) for _ in range(2000)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    durations.add_to(totals)
    assert totals == {f"{NAME}|fast|ok|1": 16_000, f"{NAME}|fast|ok|sum": 16_000_000_000}


def test_what_other_releases_counted_stays_true() -> None:
    """Values of a bucket unknown here count from the next larger bound on; no bucket holds more than a larger one."""
    ours = totals_of(0.05, 0.3, 700)
    theirs = {f"{NAME}|fast|ok|{part}": n for part, n in {"0.07": 10, "3": 5, "900": 2, "sum": 1_000_000}.items()}
    merged = {name: ours.get(name, 0) + theirs.get(name, 0) for name in ours.keys() | theirs.keys()}
    found, before = samples(merged), samples(ours)
    added = {"0.05": 0, "0.1": 10, "2.0": 10, "4.0": 15, "600.0": 15, "+Inf": 17}
    assert {bound: found["_bucket", bound] - before["_bucket", bound] for bound in added} == added
    assert found["_count", ""] == 20
    assert found["_sum", ""] == before["_sum", ""] + 1
    buckets = [value for (name, _), value in found.items() if name == "_bucket"]
    assert buckets == sorted(buckets)


@pytest.mark.parametrize("field", ["dspy_new_seconds|fast|1", f"{NAME}|fast|1", f"{NAME}|1", "nonsense", ""])
def test_what_cannot_be_read_is_left_out(field: str) -> None:
    """Families and labels of another release neither show nor spoil the rest."""
    assert samples({**totals_of(1), field: 7}) == samples(totals_of(1))


def test_a_part_that_is_not_known_is_no_bucket() -> None:
    """Only bounds are counted."""
    assert samples({**totals_of(1), f"{NAME}|fast|ok|longest": 7}) == samples(totals_of(1))


def test_counters_are_counted() -> None:
    """By their labels; a family without any value is there for who looks for its name."""
    found = {metric.name: metric for metric in metrics_of({CACHE_OPERATIONS.field(("redis", "hit")): 3})}
    assert list(found) == [family.name for family in FAMILIES]
    (sample,) = found["dspy_cache_operations"].samples
    assert (sample.name, sample.labels, sample.value) == (
        "dspy_cache_operations_total",
        {"level": "redis", "operation": "hit"},
        3,
    )
    assert not found[NAME].samples
