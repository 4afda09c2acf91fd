"""The scaling signal judges depth by service time, and never calls a queue with work idle."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autoscaler.quantity import milli
from dspy_jobs.demand import (
    MIN_SAMPLES,
    SMALLEST_WORK,
    Demand,
    Load,
    QueueLoad,
    WorkerLoad,
    demand_of,
    work,
    work_slots,
)
from dspy_jobs.settings import AutoscalerSettings, ModelSettings, Settings
from dspy_jobs.store.records import Gate

#: A busy machine must not fail a property.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

MODELS = {
    "a": ModelSettings(model="openai/a", fallbacks=["b"]),
    "b": ModelSettings(model="openai/b"),
    "c": ModelSettings(model="openai/c"),
}
CLOSED = {reason: Gate(reason, None) for reason in ("paused", "circuit_open", "rate_limited", "budget_exhausted")}


def known(seconds: float) -> dict[str, Any]:
    """The fields of a queue whose jobs are known to run so long."""
    return {"service_seconds": seconds, "samples": MIN_SAMPLES}


def configured(**scaling: Any) -> Settings:
    """Settings of three models."""
    return Settings(default_model="a", models=MODELS, autoscaler=AutoscalerSettings(**scaling))


def demand(*queues: QueueLoad, workers: tuple[WorkerLoad, ...] = (), **scaling: Any) -> Demand:
    """What queues ask for where jobs may wait a minute."""
    # Jobs that a queue says are running or taken are held by somebody.
    held = sum(queue.running + queue.taken for queue in queues) - sum(worker.held for worker in workers)
    holder = WorkerLoad("holder", True, held=max(0, held))
    scaling = {"target_utilization": 1.0, **scaling}
    return demand_of(queues, (*workers, holder), configured(**scaling))


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
    """The metric is the slots over the share of time that workers should be busy."""
    assert demand(QueueLoad("dspy.a", running=13, **known(10)), target_utilization=0.8).work == 13 / 0.8


def test_smallest_work_survives_three_decimals() -> None:
    """The least metric we report is the least that KEDA can tell from zero."""
    assert milli(SMALLEST_WORK) == 1
    assert work(0.0, 1, 0.8) == SMALLEST_WORK


def test_one_queue_is_the_published_formula() -> None:
    """With a single queue the fleet's numbers give its slots by the one formula."""
    found = demand(QueueLoad("dspy.c", waiting=90, taken=10, running=8, oldest_wait_seconds=12.4, **known(6)))
    assert (found.waiting, found.inflight, found.oldest_wait_seconds, found.service_seconds) == (100, 8, 12.4, 6.0)
    load = Load(found.waiting, found.inflight, found.oldest_wait_seconds, found.service_seconds)
    assert found.work_slots == work_slots(load, 60.0) == 18.0


def test_waiting_jobs_times_service_time_is_the_time_they_take() -> None:
    """Queues with jobs of different lengths add up; the mean goes by what waits, not by what runs."""
    short = QueueLoad("dspy.b", waiting=60, running=1, **known(1))
    long = QueueLoad("dspy.c", waiting=30, running=99, **known(31))
    found = demand(short, long)
    assert found.service_seconds == pytest.approx((60 * 1 + 30 * 31) / 90)
    assert found.work_slots == pytest.approx(100 + 90 * (found.service_seconds or 0) / 60)


def test_the_mean_goes_by_what_runs_where_nothing_waits() -> None:
    """An idle queue's time says nothing of what runs; of an idle fleet any known time is better than none."""
    queues = QueueLoad("dspy.b", running=3, **known(2)), QueueLoad("dspy.c", **known(30))
    assert demand(*queues).service_seconds == 2.0
    assert demand(queues[1]).service_seconds == 30.0


@pytest.mark.parametrize(("samples", "slots"), [(MIN_SAMPLES - 1, 100.0), (MIN_SAMPLES, 10.0)])
def test_a_few_runs_tell_nothing(samples: int, slots: float) -> None:
    """Below five samples the service time is unknown, and every waiting job counts in full."""
    queue = QueueLoad("dspy.c", waiting=100, service_seconds=6.0, samples=samples)
    found = demand(queue)
    assert found.work_slots == slots
    assert (found.service_seconds is None) is (samples < MIN_SAMPLES)


@pytest.mark.parametrize("reason", sorted(CLOSED))
def test_a_closed_gate_keeps_its_jobs_from_counting(reason: str) -> None:
    """What waits behind it is no demand and makes nobody late; what runs is."""
    closed = QueueLoad("dspy.c", waiting=100, taken=5, running=3, oldest_wait_seconds=900, gate=CLOSED[reason])
    found = demand(closed, QueueLoad("dspy.b", waiting=60, oldest_wait_seconds=1, **known(6)))
    assert (found.waiting, found.inflight, found.oldest_wait_seconds) == (60, 3, 1)
    assert found.work_slots == pytest.approx(9.0)


@pytest.mark.parametrize(("paused", "waiting"), [(99, 6), (100, 5), (101, 5)])
def test_jobs_of_paused_batches_do_not_count(paused: int, waiting: int) -> None:
    """They wait in the queue like others; a count that went astray takes nothing from what workers hold."""
    assert demand(QueueLoad("dspy.c", waiting=100, taken=5, running=3, paused=paused)).waiting == waiting


@pytest.mark.parametrize(("is_probed", "waiting"), [(False, 1), (True, 0)])
def test_a_half_open_circuit_asks_for_its_probe(is_probed: bool, waiting: int) -> None:
    """One job at most, and none while the probe is under way, which runs and so counts already."""
    gate = Gate("circuit_open", 1)
    queue = QueueLoad("dspy.c", waiting=100, gate=gate, is_half_open=True, is_probed=is_probed)
    assert demand(queue).waiting == waiting


@pytest.mark.parametrize(("fallback_gate", "waiting"), [(None, 100), (CLOSED["paused"], 0)])
def test_jobs_that_go_to_another_model_are_demand(fallback_gate: Gate | None, waiting: int) -> None:
    """Somebody must take the jobs of an open circuit to send them on, unless that queue is closed too."""
    queue = QueueLoad("dspy.a", waiting=100, gate=CLOSED["circuit_open"])
    assert demand(queue, QueueLoad("dspy.b", gate=fallback_gate)).waiting == waiting
    paused = replace(queue, gate=CLOSED["paused"])
    assert demand(paused, QueueLoad("dspy.b", gate=fallback_gate)).waiting == 0


def test_a_narrow_queue_asks_for_no_more_than_may_run() -> None:
    """Its jobs being overdue makes nobody else's count in full."""
    narrow = QueueLoad("dspy.c", waiting=1000, running=1, oldest_wait_seconds=900, most=2, **known(60))
    found = demand(narrow, QueueLoad("dspy.b", waiting=600, **known(1)))
    assert [part.work_slots for part in found.queues] == [2, 10]
    assert (found.waiting, found.work_slots) == (1600, 12)


def test_the_provider_caps_the_sum() -> None:
    """More workers than the provider serves at once would only be refused."""
    queues = [QueueLoad(f"dspy.{name}", waiting=100) for name in "bc"]
    assert demand(*queues, provider_slots=30).work_slots == 30


@pytest.mark.parametrize(("held", "slots"), [(0, 30), (10, 20), (40, 0)])
def test_the_providers_slots_are_shared_with_draining_workers(held: int, slots: int) -> None:
    """What they run is with the provider until it ends: as many fewer may run elsewhere; still work is never 0."""
    queues = QueueLoad("dspy.c", waiting=100, running=40), QueueLoad("dspy.b", waiting=100)
    draining = WorkerLoad("w1", True, is_draining=True, held=held, running=held)
    found = demand(*queues, workers=(draining,), provider_slots=30)
    assert (found.work_slots, found.draining) == (slots, held)
    assert found.work > 0


def test_a_draining_worker_is_no_capacity() -> None:
    """What it runs needs no slot elsewhere; what it holds without having started does, and so does a dead one's."""
    queue = QueueLoad("dspy.c", taken=4, running=6)
    draining = WorkerLoad("w1", True, is_draining=True, held=8, running=5)
    found = demand(queue, workers=(draining,))
    assert (found.waiting, found.inflight, found.draining, found.work_slots) == (4, 1, 5, 5)
    dead = demand(queue, workers=(replace(draining, is_alive=False),))
    assert (dead.inflight, dead.draining, dead.work_slots) == (6, 0, 10)


def test_jobs_counted_as_taken_are_held_by_somebody() -> None:
    """A count that went astray, as while two versions run side by side, cannot keep workers up for nothing."""
    queue = QueueLoad("dspy.c", taken=3)
    assert demand_of([queue], [], configured()).work == 0


LOADS = st.builds(
    Load,
    waiting=st.integers(0, 10**6),
    inflight=st.integers(0, 10**4),
    oldest_wait_seconds=st.floats(0, 1e5),
    service_seconds=st.none() | st.floats(0, 1e5),
    provider_slots=st.none() | st.floats(0, 1e4),
)


def queues_of(name: str) -> st.SearchStrategy[QueueLoad]:
    """Any state of a queue."""
    return st.builds(
        QueueLoad,
        name=st.just(name),
        waiting=st.integers(0, 10**5),
        taken=st.integers(0, 10**3),
        running=st.integers(0, 10**3),
        oldest_wait_seconds=st.floats(0, 1e4),
        service_seconds=st.floats(0, 1e4),
        samples=st.integers(0, 10),
        most=st.none() | st.integers(1, 100),
        gate=st.none() | st.sampled_from(sorted(CLOSED.values(), key=str)),
        is_half_open=st.booleans(),
        is_probed=st.booleans(),
    )


FLEETS = st.tuples(queues_of("dspy.a"), queues_of("dspy.b"), queues_of("dspy.c"))


@patient
@given(LOADS, st.floats(0.1, 1e4))
def test_slots_never_exceed_what_is_outstanding(load: Load, wait: float) -> None:
    """The signal never asks for more slots than there are jobs, nor than the provider allows."""
    slots = work_slots(load, wait)
    assert 0 <= slots <= load.waiting + load.inflight
    assert load.provider_slots is None or slots <= load.provider_slots


@patient
@given(FLEETS, st.none() | st.integers(1, 100), st.floats(0.1, 1e4), st.floats(0.01, 1))
def test_work_is_zero_only_when_nothing_is_outstanding(
    queues: tuple[QueueLoad, ...], provider_slots: int | None, wait: float, utilization: float
) -> None:
    """However short the jobs, what is outstanding behind an open gate never reads as an idle queue, even by KEDA."""
    scaling = {"provider_slots": provider_slots, "target_wait_seconds": wait, "target_utilization": utilization}
    found = demand(*queues, **scaling)
    running = sum(queue.running for queue in queues)
    could_run = sum(queue.waiting + queue.taken for queue in queues if queue.gate is None)
    assert milli(found.work) > 0 or running + could_run == 0
    assert (found.work > 0) == (found.waiting + found.inflight > 0)
    assert 0 <= found.work_slots <= found.waiting + found.inflight


@patient
@given(FLEETS, st.integers(0, 2), st.sampled_from(["waiting", "taken", "running", "oldest_wait_seconds"]))
def test_more_of_anything_never_asks_for_less(queues: tuple[QueueLoad, ...], at: int, what: str) -> None:
    """More jobs in a queue, or older ones, never shrink the fleet."""
    more = list(queues)
    more[at] = replace(queues[at], **{what: getattr(queues[at], what) + 1})
    assert demand(*more).work >= demand(*queues).work


@patient
@given(FLEETS, st.integers(0, 2))
def test_closing_a_gate_never_asks_for_more(queues: tuple[QueueLoad, ...], at: int) -> None:
    """Nothing that keeps jobs from running makes the fleet grow."""
    if queues[at].name == "dspy.b":
        return  # a fallback: closing it keeps the jobs of another queue, too
    opened, closed = list(queues), list(queues)
    opened[at] = replace(queues[at], gate=None)
    closed[at] = replace(queues[at], gate=CLOSED["paused"])
    assert demand(*closed).work <= demand(*opened).work
