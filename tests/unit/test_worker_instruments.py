"""What a worker measures: by labels that are configured, and nothing where it is told not to."""

from __future__ import annotations

import pytest
from dspy.lm15 import ServerError

from dspy_jobs.measures import OTHER
from dspy_jobs.outcomes import Attempt, Usage
from dspy_jobs.problems import CODES, Problem, problem
from dspy_jobs.settings import ModelSettings, ProgramSettings, Settings, VariantSettings
from dspy_jobs.store.operations import retire_worker
from dspy_jobs.store.records import Claim, Taken
from worker.attempt import Settlement
from worker.instruments import Instruments, Unmeasured
from worker.response_cache import CacheCounts

SETTINGS = Settings(
    default_model="fast",
    models={"fast": ModelSettings(model="openai/x")},
    programs={"qa": ProgramSettings(signature="q -> a", variants={"b": VariantSettings()})},
)
QA = {"program": "qa", "model": "fast", "variant": "b"}
DURATION, WAIT = "dspy_prediction_duration_seconds", "dspy_queue_wait_seconds"
NO_USE = Usage()


def claim(number: int = 1, program: str = "qa", model: str = "fast", variant: str = "b") -> Claim:
    """An attempt that started two seconds after its job was submitted."""
    return Claim("job_1", number, 2_000, 0, "", program, model, {}, 3, 0, 0, (), False, variant=variant)


def taken(program: str = "qa") -> Taken:
    """A job taken from a message."""
    return Taken("job_1", 0, "", program, "fast", "b", "", b"", 0)


def settlement(status: str, error: Problem | None = None, usage: Usage = NO_USE, cost: int | None = 0) -> Settlement:
    """An attempt that took a second and a half."""
    return Settlement(retire_worker("w", []), status, Attempt(1, "fast", 2_000, 3_500, error, usage, cost))


def failed(code: str) -> Settlement:
    """An attempt that failed for good."""
    return settlement("failed", problem("server", "…").model_copy(update={"code": code}))


@pytest.fixture
def instruments() -> Instruments:
    """Those of a worker with one program in one variant, and one model."""
    return Instruments(SETTINGS, CacheCounts())


def value(instruments: Unmeasured, name: str, **labels: str) -> float | None:
    """A sample's value."""
    return instruments.registry.get_sample_value(name, labels)


def names_and_labels(instruments: Unmeasured) -> set[tuple[str, ...]]:
    """Every series."""
    families = instruments.registry.collect()
    return {(s.name, *sorted(s.labels.values())) for family in families for s in family.samples}


@pytest.mark.parametrize(
    ("status", "answer", "shown"),
    [
        ("succeeded", True, "succeeded"),
        ("failed", True, "failed"),
        ("canceled", True, "canceled"),
        ("retrying", "delayed", None),
        ("retrying", "canceled", "canceled"),
        ("succeeded", False, None),
        ("retrying", "stale", None),
    ],
)
def test_what_ends_a_job_counts_once(
    instruments: Instruments, status: str, answer: bool | str, shown: str | None
) -> None:
    """Neither an attempt that is followed by another, nor one whose job has gone on without it."""
    instruments.settled(claim(), settlement(status, problem("server", "…")), answer)
    for one in ("succeeded", "failed", "canceled", "expired"):
        assert value(instruments, "dspy_predictions_total", **QA, status=one) == (1 if one == shown else None)
    assert value(instruments, f"{DURATION}_sum", program="qa", model="fast") == (1.5 if shown else None)
    error = value(instruments, "dspy_errors_total", code="server", model="fast")
    assert error == (1 if shown == "failed" else None)


def test_answers_made_before_count_but_take_no_time(instruments: Instruments) -> None:
    """A job that never ran is one that succeeded, or was too late."""
    for answer in ("finished", "finished", "expired", "stale", "parked", "paused", ""):
        instruments.answered(taken(), answer)
    assert value(instruments, "dspy_predictions_total", **QA, status="succeeded") == 2
    assert value(instruments, "dspy_predictions_total", **QA, status="expired") == 1
    assert value(instruments, f"{DURATION}_count", program="qa", model="fast") is None


def test_what_is_used_counts_with_every_attempt(instruments: Instruments) -> None:
    """Also with one that is tried again, for it is paid; what is not known counts nothing."""
    for cost, tokens in ((2_000_000_000, 7), (None, None)):
        usage = Usage(tokens, 5, 1, "provider", None, 2)
        instruments.settled(claim(), settlement("retrying", problem("server", "…"), usage, cost), "delayed")
    assert value(instruments, "dspy_prediction_cost_total", **QA) == 2
    used = {kind: value(instruments, "dspy_token_usage_total", type=kind, model="fast") for kind in TOKENS}
    assert used == {"input": 7, "output": 10, "reasoning": 4, "cached_input": None}


TOKENS = ("input", "output", "reasoning", "cached_input")


def test_only_a_first_start_tells_a_wait(instruments: Instruments) -> None:
    """A retry waits on purpose."""
    instruments.started(claim(1))
    instruments.started(claim(2))
    assert value(instruments, f"{WAIT}_count", model="fast") == 1
    assert value(instruments, f"{WAIT}_sum", model="fast") == 2


def test_calls_are_timed_by_how_they_end(instruments: Instruments) -> None:
    """And counted while they are under way."""
    call = instruments.calls_of("fast")
    with call(), call():
        assert value(instruments, "dspy_worker_lm_calls_in_flight") == 2
    with pytest.raises(ServerError), call():
        raise ServerError("500")
    assert value(instruments, "dspy_worker_lm_calls_in_flight") == 0
    name = "dspy_lm_call_duration_seconds_count"
    assert value(instruments, name, model="fast", outcome="ok") == 2
    assert value(instruments, name, model="fast", outcome="error") == 1


def test_the_cache_is_shown_as_it_counts() -> None:
    """Its own counts are the metric."""
    counts = CacheCounts()
    instruments = Instruments(SETTINGS, counts)
    counts.hits_redis += 3
    shown = value(instruments, "dspy_cache_operations_total", level="redis", operation="hit")
    assert shown == instruments.totals()["dspy_cache_operations|redis|hit|total"] == 3


def test_whatever_jobs_say_the_series_are_bounded(instruments: Instruments) -> None:
    """Names that are not configured, and codes that are not ours, are `other`: a thousand make no more than one."""

    def work(name: str) -> None:
        for status in ("succeeded", "retrying"):
            use = Usage(1, 1, 1, "provider", 1, 1)
            instruments.settled(claim(program=name, model=name, variant=name), settlement(status, None, use, 1), True)
        instruments.settled(claim(model=name), failed(name), True)
        instruments.settled(claim(variant=name), failed("server"), True)
        instruments.started(claim(model=name))
        instruments.answered(taken(name), "finished")

    work("x|y\n")
    series = names_and_labels(instruments)
    for number in range(1000):
        work(f"name-{number}")
    assert names_and_labels(instruments) == series
    assert not any("x|y" in word for labels in series for word in labels)
    assert value(instruments, "dspy_errors_total", code=OTHER, model=OTHER) == 1001
    for code in CODES:
        instruments.settled(claim(), failed(code), True)
        assert value(instruments, "dspy_errors_total", code=code, model="fast") == (1 if code != "server" else 1002)


def test_switched_off_nothing_is_noted() -> None:
    """Every note may be taken and none is; nothing is sent."""
    off = Unmeasured()
    off.started(claim())
    off.settled(claim(), settlement("succeeded"), True)
    off.answered(taken(), "finished")
    off.round_trip(1)
    with off.calls_of("fast")():
        pass
    assert names_and_labels(off) == set()
    assert off.totals() == {}
