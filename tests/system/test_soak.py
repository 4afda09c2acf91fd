"""The promise under faults, in the short version that always runs."""

from __future__ import annotations

import pytest

from tests.system.soak import Faults, soak

pytestmark = pytest.mark.system


def test_nothing_is_lost_or_published_twice_under_faults() -> None:
    """Workers killed, Redis restarted, a provider that fails: every job ends once, and every count adds up."""
    report = soak(jobs=1500, seconds=60, faults=Faults(kill_every=5), latency=0.3)
    assert (report.lost, report.published_twice, report.wrong_counts, report.failed) == (0, 0, 0, {})
    assert report.workers_killed >= 2
    assert report.redis_restarts == 1
    assert report.calls_paid_twice <= report.in_flight_at_kills
    # To the nano-dollar: what nobody lived to hear of is not in the books, which say how many attempts that concerns.
    assert report.booked_nanos == report.paid_nanos - report.paid_twice_nanos > 0
    assert report.calls_paid_twice <= report.attempts_lost
