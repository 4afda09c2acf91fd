"""The scaling signal judges depth by service time, and never calls a queue with work idle."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autoscaler.quantity import milli
from autoscaler.signal import SMALLEST_WORK, Load, work, work_slots

#: A busy machine must not fail a property.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize(
    ("load", "expected"),
    [
        (Load(100, 8, service_seconds=6.0), 18.0),
        (Load(100, 8, service_seconds=30.0), 58.0),
        (Load(100, 8, service_seconds=60.0), 108.0),
        (Load(100, 8, service_seconds=600.0), 108.0),
        (Load(100, 8), 108.0),
        (Load(100, 8, oldest_wait_seconds=60.0, service_seconds=6.0), 18.0),
        (Load(100, 8, oldest_wait_seconds=60.1, service_seconds=6.0), 108.0),
        (Load(100, 8, provider_slots=16), 16.0),
        (Load(100, 8, provider_slots=500), 108.0),
        (Load(0, 0, service_seconds=6.0), 0.0),
    ],
)
def test_slots_follow_service_time(load: Load, expected: float) -> None:
    """Short jobs need few slots; unknown times and overdue jobs count in full; the provider caps."""
    assert work_slots(load, 60.0) == pytest.approx(expected, rel=1e-12)


def test_utilization_leaves_headroom() -> None:
    """The metric is the slots over the share of time that replicas should be busy."""
    assert work(Load(0, 13, service_seconds=10.0), 60.0, 0.8) == 13 / 0.8


LOADS = st.builds(
    Load,
    waiting=st.integers(0, 10**6),
    inflight=st.integers(0, 10**4),
    oldest_wait_seconds=st.floats(0, 1e5),
    service_seconds=st.none() | st.floats(0, 1e5),
    provider_slots=st.none() | st.floats(0, 1e4),
)


@patient
@given(LOADS, st.floats(0.1, 1e4), st.floats(0.01, 1))
def test_work_is_zero_only_when_nothing_is_outstanding(load: Load, wait: float, utilization: float) -> None:
    """However short the jobs, outstanding work never reads as an idle queue, even after KEDA's rounding."""
    assert (milli(work(load, wait, utilization)) > 0) == (load.waiting + load.inflight > 0)


@patient
@given(LOADS, st.floats(0.1, 1e4))
def test_slots_never_exceed_what_is_outstanding(load: Load, wait: float) -> None:
    """The signal never asks for more slots than there are jobs, nor than the provider allows."""
    slots = work_slots(load, wait)
    assert 0 <= slots <= load.waiting + load.inflight
    assert load.provider_slots is None or slots <= load.provider_slots


def test_smallest_work_survives_three_decimals() -> None:
    """The least metric we report is the least that KEDA can tell from zero."""
    assert milli(SMALLEST_WORK) == 1
