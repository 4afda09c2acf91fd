"""Programs that do what programs must not do, each with a promised outcome, in a real worker process."""

from __future__ import annotations

import threading

import pytest

from dspy_jobs.waiting import wait_until
from tests.system.fleet import Fleet

pytestmark = [pytest.mark.system, pytest.mark.slow]


def test_programs_that_exit_do_not_take_threads_with_them(fleet: Fleet) -> None:
    """More calls of `sys.exit` than there are threads leave the worker running other jobs."""
    fleet.start()
    leaving = [fleet.submit("exits", text="t") for _ in range(20)]
    noisy = fleet.submit("chatty", text="still here")
    for job_id in leaving:
        assert fleet.wait(job_id, "failed").outcome["problem"]["code"] == "program_error"  # type: ignore[index]
    fleet.wait(noisy, "succeeded")


def test_a_program_that_is_refused_memory_fails_alone(fleet: Fleet) -> None:
    """Memory that the process may not have is the program's own error; the worker and its other jobs go on."""
    fleet.start()
    devouring = fleet.submit("devours", text="t")
    beside = fleet.submit("sleepy", text="0.5")
    assert fleet.wait(devouring, "failed").outcome["problem"]["code"] == "program_error"  # type: ignore[index]
    assert fleet.wait(beside, "succeeded").fields["attempt"] == "1"


def test_a_program_that_hangs_fails_at_its_deadline(fleet: Fleet) -> None:
    """A program that blocks for ever without a model call ends as a timeout; others run on beside it."""
    fleet.start()
    hanging = fleet.submit("hangs", timeout_seconds=1, text="t")
    fleet.wait(fleet.submit("echo", text="beside it"), "succeeded")
    job = fleet.wait(hanging, "failed")
    assert job.outcome is not None
    assert (job.outcome["problem"]["code"], job.outcome["problem"]["retryable"]) == ("timeout", False)


def test_a_worker_full_of_stuck_threads_is_replaced(fleet: Fleet) -> None:
    """When a quarter of the threads never return the worker ends, so that its supervisor starts another."""
    worker = fleet.start()
    for _ in range(2):
        fleet.submit("hangs", timeout_seconds=0.1, text="t")
    assert wait_until(lambda: "worker_stalled" in fleet.log(), 60), fleet.log()
    worker.terminate()  # as an impatient supervisor would
    assert worker.wait(30) == 0


def test_a_job_that_kills_its_workers_ends_as_worker_lost(fleet: Fleet) -> None:
    """After the third worker it has taken with it a job fails, its inputs kept; innocent jobs survive."""
    job_id = fleet.submit("kills_worker", text="t")
    stop = threading.Event()

    def supervise() -> None:
        while not stop.is_set():
            fleet.start().wait()

    supervisor = threading.Thread(target=supervise, daemon=True)
    supervisor.start()
    try:
        job = fleet.wait(job_id, "failed", seconds=120)
        innocent = fleet.submit("echo", text="t")
        fleet.wait(innocent, "succeeded")
    finally:
        stop.set()
        fleet.end()
        supervisor.join(30)
    assert job.outcome is not None
    assert job.outcome["problem"]["code"] == "worker_lost"
    assert len(job.attempts) == 3
    assert job.request == {"inputs": {"text": "t"}}
