"""The whole autoscaler with real workers: from nothing to the most and back, and nothing lost on the way."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import orjson
import pytest

from dspy_jobs import names
from dspy_jobs.pid_files import ProcessMark
from dspy_jobs.states import WaitReason
from dspy_jobs.store import operations
from dspy_jobs.store.gates import close_gate, open_gate
from dspy_jobs.waiting import wait_until
from tests.sandbox_account import Account
from tests.system.autoscaler_process import BOUND, AutoscalerProcess
from tests.system.fleet import Fleet, measured

pytestmark = pytest.mark.system

#: Jobs of a burst, and the load a worker is taken to carry of it.
JOBS, ROOMY_TARGET = 2000, 1000
#: Share of their time that workers should be busy, by default.
UTILIZATION = 0.8
MOST = 3


@pytest.fixture
def account(sandbox_url: str) -> Account:
    """A model of this test's own whose answers take 300 ms."""
    return Account(sandbox_url, "latency=0.3")


@pytest.fixture
def models(account: Account) -> str:
    """The fleet serves that model, and lets jobs wait two seconds."""
    return account.as_toml("own") + "[autoscaler]\ntarget_wait_seconds = 2\n"


@pytest.fixture
def scaler(fleet: Fleet) -> Iterator[AutoscalerProcess]:
    """An autoscaler of at most three workers that carry eight jobs each; not started."""
    scaler = AutoscalerProcess(fleet, target=8, most=MOST)
    yield scaler
    scaler.end()


@pytest.fixture
def roomy(fleet: Fleet) -> Iterator[AutoscalerProcess]:
    """An autoscaler whose maximum binds nothing: a full burst asks for three workers, and there may be six."""
    scaler = AutoscalerProcess(fleet, target=ROOMY_TARGET, most=6)
    yield scaler
    scaler.end()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_burst_on_no_fleet_is_answered_once_each(
    fleet: Fleet, roomy: AutoscalerProcess, account: Account, record_property: Any
) -> None:
    """Two thousand jobs find no worker: as many come as the metric asks for, and go; no job is lost or repeated."""
    roomy.start()
    roomy.wait_for("leading")
    began = time.time()
    batch = fleet.submit_batch("qa", [{"question": f"What is {n} + {n}?"} for n in range(JOBS)], model="own")
    fields = fleet.wait_for_batch(batch, seconds=BOUND + JOBS / 10)
    seconds = time.time() - began
    assert wait_until(lambda: _ends(roomy) >= len(roomy.events("worker_started")), BOUND), roomy.log()
    assert (fields["succeeded"], account.read("completions"), account.read("duplicate_prompts")) == (str(JOBS), JOBS, 0)
    scaled = roomy.events("scaled")
    sizes, asked = [0, *(event["to"] for event in scaled)], [_asked_for(event) for event in scaled]
    overshoot = max(sizes) - max(asked)
    assert (overshoot, max(sizes), sizes[-1]) == (0, math.ceil(JOBS / UTILIZATION / ROOMY_TARGET), 0)
    assert not roomy.events("worker_died")
    assert not roomy.events("worker_killed")
    assert measured(fleet.store, "dspy_prediction_duration_seconds|qa|own") == JOBS, "sums outlive the workers"
    first = min(_time_of(event) for event in roomy.events("worker_ready")) - began
    record_property("seconds_to_first_worker", round(first, 2))
    record_property("seconds_in_all", round(seconds, 2))
    record_property("sizes", sizes)
    record_property("overshoot", overshoot)
    print(f"\n{JOBS} jobs: first worker after {first:.1f} s, all done after {seconds:.1f} s, sizes {sizes}")
    assert roomy.stop() == 0


@pytest.mark.slow
def test_a_worker_with_long_calls_is_not_killed(fleet: Fleet, scaler: AutoscalerProcess) -> None:
    """Scaling in while every worker has long jobs: those that go finish them first, each in its first attempt.

    Also where they take longer than a worker that is stopped otherwise would wait for them.
    """
    scaler.start(DSPY_JOBS_WORKER_CONCURRENCY="2", DSPY_JOBS_WORKER_DRAIN_SECONDS="1")
    fleet.submit_batch("sleepy", _sleeps(0.5, 1000), model="own")
    assert wait_until(lambda: fleet.workers() == MOST, BOUND), scaler.log()
    long = [fleet.submit("sleepy", **inputs) for inputs in _sleeps(6, 2 * MOST)]
    for job in long:
        fleet.wait(job, "running")
    fleet.store.run(close_gate(names.queue("own"), WaitReason.PAUSED, 600))
    draining = scaler.wait_for("draining", times=2)
    assert any(event["running"] > 0 for event in draining)
    ended = [fleet.wait(job, "succeeded") for job in long]
    assert {job.fields["attempt"] for job in ended} == {"1"}
    assert scaler.stop() == 0
    assert not scaler.events("worker_killed")
    assert not scaler.workers()


def test_jobs_behind_an_open_circuit_start_no_worker(fleet: Fleet, scaler: AutoscalerProcess) -> None:
    """More workers do not heal a provider: only when its circuit closes do waiting jobs scale the fleet up."""
    queue = names.queue("sandbox")
    fleet.submit_batch("sleepy", _sleeps(0, 50))
    fleet.store.run(close_gate(queue, WaitReason.CIRCUIT_OPEN, 600))
    assert scaler.once() == 0
    assert not scaler.workers()
    fleet.store.run(open_gate(queue, WaitReason.CIRCUIT_OPEN))
    assert scaler.once() == 0
    assert scaler.workers()


def test_a_killed_autoscaler_costs_no_worker(fleet: Fleet, scaler: AutoscalerProcess) -> None:
    """Workers outlive an autoscaler that was killed; the next one waits for its lease, adopts them and drains them."""
    batch = fleet.submit_batch("sleepy", _sleeps(1000, 20))
    scaler.start()
    assert wait_until(lambda: fleet.workers() == MOST, BOUND), scaler.log()
    before = scaler.workers()
    scaler.stop(signal.SIGKILL)
    assert scaler.workers() == before
    fleet.store.redis.delete(names.autoscaler_lease("dspy-worker"))  # or it would last a few seconds more
    scaler.start(DSPY_JOBS_WORKER_DRAIN_SECONDS="1")
    assert sorted(scaler.wait_for("adopted")[0]["pids"]) == sorted(before.values())
    assert scaler.workers() == before
    assert scaler.process
    scaler.process.terminate()
    scaler.wait_for("draining", times=MOST)
    assert scaler.stop() == 0
    assert not scaler.workers()
    assert fleet.store.run(operations.cancel_batch(batch)) == ("in_progress", -1)


@pytest.mark.slow
def test_workers_go_when_an_autoscaler_elsewhere_leads(fleet: Fleet, scaler: AutoscalerProcess) -> None:
    """It cannot see them, and starts its own: here they end their jobs and go, and none is started any more."""
    job = fleet.submit("sleepy", text="5")
    scaler.start()
    fleet.wait(job, "running")
    fleet.store.redis.set(names.autoscaler_lease("dspy-worker"), "there/1/2 token", px=60_000)
    scaler.wait_for("draining")
    assert wait_until(lambda: not scaler.workers(), BOUND), scaler.log()
    assert fleet.wait(job, "succeeded").fields["attempt"] == "1"
    assert len(scaler.events("worker_started")) == 1
    assert scaler.stop() == 0


def test_a_worker_that_cannot_start_ends_the_autoscaler(fleet: Fleet, scaler: AutoscalerProcess) -> None:
    """A worker that says its configuration is wrong is an error with its words, not a loop of restarts."""
    source = fleet.settings.source
    assert source
    source.write_text(source.read_text() + '[programs.missing]\nfactory = "nowhere:nothing"\n')
    fleet.submit("sleepy", text="0")
    assert scaler.start().wait(BOUND) == 2
    assert "programs.missing" in scaler.events("worker_misconfigured")[0]["reason"]


def test_a_dead_worker_is_replaced(fleet: Fleet, scaler: AutoscalerProcess) -> None:
    """A worker that is killed is reported with its signal and started anew after a pause."""
    fleet.submit("sleepy", text="1000")
    scaler.start()
    assert wait_until(lambda: fleet.workers() == 1, BOUND), scaler.log()
    [pid] = scaler.workers().values()
    described = orjson.loads(fleet.store.redis.get(names.worker(fleet.worker_id(pid))) or b"{}")
    assert described["metrics_port"] > 0, "each has a port of its own"
    mark = ProcessMark.of(pid)
    assert mark
    mark.send(signal.SIGKILL)
    [died] = scaler.wait_for("worker_died")
    assert (died["pid"], died["exit_code"]) == (pid, -signal.SIGKILL)
    assert wait_until(lambda: list(scaler.workers().values()) not in ([pid], []), BOUND)
    assert fleet.store.run(operations.read_queues([names.queue("sandbox")]))[0].running <= 1


def _sleeps(seconds: float, jobs: int) -> list[dict[str, Any]]:
    """Inputs of so many jobs that sleep about so long; no two are equal, or one would run for all of them."""
    return [{"text": f"{seconds + job / 1e6:.6f}"} for job in range(jobs)]


def _asked_for(event: dict[str, Any]) -> int:
    """The workers that the metric of a change asks for by itself."""
    [work] = event["metrics"].values()
    return math.ceil(work / ROOMY_TARGET)


def _ends(scaler: AutoscalerProcess) -> int:
    return len(scaler.events("worker_ended"))


def _time_of(event: dict[str, Any]) -> float:
    return datetime.fromisoformat(event["time"]).timestamp()
