"""The promise under faults, in the short version that always runs."""

from __future__ import annotations

import pytest

from tests.system.soak import Faults, soak

pytestmark = [pytest.mark.system, pytest.mark.slow]


@pytest.mark.parametrize("keys", [False, True], ids=["usual provider", "provider that charges a repeated call once"])
def test_nothing_is_lost_or_published_twice_under_faults(keys: bool) -> None:
    """Workers killed, Redis restarted, a provider that fails: every job ends once, and every count and cost adds up."""
    report = soak(jobs=900, seconds=45, faults=Faults(kill_every=4), latency=0.3, keys=keys)
    assert (report.lost, report.published_twice, report.wrong_counts, report.failed) == (0, 0, 0, {})
    assert report.workers_killed >= 2
    assert report.redis_restarts == 1
    assert report.calls_paid_twice <= report.in_flight_at_kills
    # To the nano-dollar: what nobody lived to hear of is not in the books, which say how many attempts that concerns.
    assert report.booked_nanos == report.paid_nanos - report.paid_twice_nanos > 0
    assert report.calls_paid_twice <= report.attempts_lost
    if keys:
        assert report.booked_nanos == report.paid_nanos, "where nothing is paid twice, the books are the whole bill"
