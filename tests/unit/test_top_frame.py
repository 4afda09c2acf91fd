"""Rates made of successive readings."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from dspy_jobs.models import Health
from dspy_jobs.top.frame import Frame, History, Reading
from dspy_jobs.top.samples import Samples
from tests.unit.service_scene import HEALTH, metrics

SERVICE = Health.model_validate(HEALTH)


def frames(texts: Sequence[str | None], seconds: float = 2.0, window: float = 60.0) -> list[Frame]:
    """What is shown after each reading."""
    history = History(window)
    return [
        history.add(Reading(n * seconds, SERVICE, None if text is None else Samples(text)))
        for n, text in enumerate(texts)
    ]


def test_rates_are_of_what_happened_in_between() -> None:
    """Jobs a second, shares and dollars a minute, from two readings ten seconds apart."""
    *_, frame = frames([metrics(100, 10, 1.0, 5, 20), metrics(200, 30, 1.5, 8, 60)], seconds=10)
    assert frame.rates.seconds == 10
    assert frame.rates.jobs_per_second == 10
    assert frame.rates.error_share == pytest.approx(0.2)
    assert frame.rates.cached_share == pytest.approx(0.4)
    assert frame.rates.dollars_per_minute == pytest.approx(3.0)
    assert frame.rates.unpriced_per_minute == pytest.approx(18.0)


def test_the_slowest_programs_come_first() -> None:
    """By the 95th percentile of what ended in between, not of all that ever ran."""
    *_, frame = frames([metrics(1000), metrics(1100)])
    assert [(p.name, p.jobs) for p in frame.programs] == [("deep", 10), ("qa", 90)]
    assert frame.programs[0].p50_seconds == pytest.approx(3.0)
    assert frame.programs[1].p95_seconds == pytest.approx(0.48)


def test_a_service_at_rest_has_rates_of_zero_and_no_shares() -> None:
    """No job failed of none is no share."""
    *_, frame = frames([metrics(100), metrics(100)])
    assert (frame.rates.jobs_per_second, frame.rates.dollars_per_minute) == (0, 0)
    assert (frame.rates.error_share, frame.rates.cached_share) == (None, None)
    assert frame.programs == []


@pytest.mark.parametrize("texts", [["", ""], [None, metrics(5)], [metrics(5), None], [metrics(5)]])
def test_what_is_not_known_is_not_zero(texts: list[str | None]) -> None:
    """An API without these metrics, a refused scrape, a single reading: no rates at all."""
    rates = frames(texts)[-1].rates
    assert (rates.jobs_per_second, rates.error_share, rates.dollars_per_minute) == (None, None, None)


def test_counters_that_began_anew_do_no_harm() -> None:
    """As when Redis was emptied."""
    assert frames([metrics(1000), metrics(20)])[-1].rates.jobs_per_second == 10


def test_rates_are_of_the_window_and_the_pace_of_each_step() -> None:
    """Long ago does not count; the pace has one number for each two successive readings of the window."""
    counts = [0, 1000, 1010, 1020, 1040]
    frame = frames([metrics(count) for count in counts], seconds=1, window=3)[-1]
    assert frame.rates.seconds == 3
    assert frame.rates.jobs_per_second == pytest.approx(40 / 3)
    assert frame.pace == [10, 10, 20]


def test_a_frame_is_plain_data() -> None:
    """For programs: the document of the service, and the rates beside it."""
    plain = frames([metrics(0), metrics(10)])[-1].as_json()
    assert plain["status"] == "healthy"
    assert plain["rates"]["jobs_per_second"] == 5
    assert plain["slowest_programs"][0].keys() == {"name", "jobs", "p50_seconds", "p95_seconds"}
