"""`dspy-jobs up --autoscale`: workers come and go with the work, and never outlive the stack."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
from stack_process import BOUND, REPOSITORY, StackProcess, command, environ_for, running_stack, still_alive

from dspy_jobs.pid_files import worker_pids
from dspy_jobs.waiting import wait_until
from tests.system.autoscaler_process import SCALED_OBJECT

pytestmark = pytest.mark.system


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """A stack whose ScaledObject has short times and allows two workers."""
    path = tmp_path / "scaledobject.yaml"
    path.write_text(SCALED_OBJECT.replace("$target", "128").replace("$max", "2"))
    return environ_for(tmp_path / "data", DSPY_JOBS_AUTOSCALER_SCALED_OBJECT=str(path), PYTHONPATH=str(REPOSITORY))


def workers_of(stack: StackProcess) -> set[int]:
    """The process numbers of the workers that run."""
    return {mark.pid for mark in worker_pids(Path(stack.environ["DSPY_JOBS_DATA_DIR"])).read().values()}


def test_a_stack_without_workers_takes_jobs(environ: dict[str, str]) -> None:
    """It is up with none, knows its programs, starts one for a job, and Ctrl-C ends all."""
    with running_stack(environ, "--autoscale", "--min", "0", "--no-flower") as stack:
        stack.wait_for("ready")
        assert stack.events("described")
        assert not workers_of(stack)
        with stack.client() as client:
            assert client.get("/v1/programs").json()["data"]
            body = {"program": "qa", "inputs": {"question": "Why is the sky blue?"}}
            job = client.post("/v1/jobs", json=body).json()["id"]
            assert wait_until(lambda: client.get(f"/v1/jobs/{job}").json()["status"] == "succeeded", BOUND, every=0.1)
        pids = stack.pids() | {int(event["pid"]) for event in stack.events("worker_started")}
        stack.signal(signal.SIGINT)
        assert stack.exit_code() == 0
    assert len(stack.events("worker_started")) >= 1
    assert not still_alive(pids)


def test_a_killed_stack_takes_scaled_workers_along(environ: dict[str, str]) -> None:
    """They are no children of the stack, which is killed and can do nothing; still none of them stays."""
    with running_stack(environ, "--autoscale", "--no-flower") as stack:
        stack.wait_for("ready")
        pids = stack.pids() | workers_of(stack)
        assert workers_of(stack)
        stack.process.kill()
        assert wait_until(lambda: not still_alive(pids), BOUND)


@pytest.mark.slow
def test_a_killed_autoscaler_keeps_its_workers(environ: dict[str, str]) -> None:
    """The stack starts it again, and it goes on with the workers there are; a second Ctrl-C still ends all at once."""
    with running_stack(environ, "--autoscale", "--no-flower") as stack:
        stack.wait_for("ready")
        workers = workers_of(stack)
        os.kill(stack.pid_of("autoscaler"), signal.SIGKILL)
        assert set(stack.wait_for("adopted")["pids"]) == workers
        assert workers_of(stack) == workers
        pids = stack.pids() | workers
        stack.signal(signal.SIGINT)
        stack.wait_for("stopping")
        stack.signal(signal.SIGINT)
        assert stack.exit_code() == 130
    assert not still_alive(pids)


def test_a_wrong_scaled_object_is_explained(environ: dict[str, str]) -> None:
    """A mistake in the file ends the start with exit code 2 and the place of the mistake."""
    path = Path(environ["DSPY_JOBS_AUTOSCALER_SCALED_OBJECT"])
    path.write_text(path.read_text().replace("pollingInterval", "pollInterval"))
    stack = StackProcess(environ, "--autoscale", "--no-flower")
    assert stack.exit_code() == 2
    assert "spec.pollInterval: unknown field" in stack.wait_for("stack_failed")["last_lines"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--workers", "2", "--autoscale"], "give one of them"),
        (["--autoscale", "--min", "3", "--max", "2"], "less than"),
    ],
)
def test_contradictions_are_refused(environ: dict[str, str], options: list[str], words: str) -> None:
    """Nothing is started for options that exclude one another."""
    done = subprocess.run(command("up", *options), env=environ, capture_output=True, text=True)
    assert done.returncode == 2
    assert words in " ".join(done.stderr.replace("│", "").split())
