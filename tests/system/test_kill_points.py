"""A worker is killed at each point of a job's life: the job ends once, and only a call under way is paid twice."""

from __future__ import annotations

import os
import signal

import pytest

from dspy_jobs.views import job_view
from dspy_jobs.waiting import wait_until
from tests.sandbox_account import Account
from tests.system.fleet import Fleet

pytestmark = pytest.mark.system


@pytest.fixture
def account(sandbox_url: str) -> Account:
    """The test's own model."""
    return Account(sandbox_url, "latency=0.5")


@pytest.fixture
def models(account: Account) -> str:
    """The fleet serves that model as well, and once more as by a gateway that charges a repeated call once."""
    return account.as_toml("own") + account.as_toml("keyed", 'idempotency_header = "Idempotency-Key"')


def assert_ended_once(fleet: Fleet, batch: str) -> None:
    """A healthy worker ends the job, whose outcome is published once, with exact counts."""
    fleet.start()
    fields = fleet.wait_for_batch(batch)
    counts = {name: int(fields[name]) for name in ("queued", "running", "succeeded", "failed", "total")}
    assert counts == {"queued": 0, "running": 0, "succeeded": 1, "failed": 0, "total": 1}
    assert fleet.results(batch) == 1


@pytest.mark.parametrize(
    ("point", "calls"), [("popped", 1), ("taken", 1), ("claimed", 1), ("answered", 2), ("published", 1)]
)
def test_a_job_outlives_its_worker_at_every_point(fleet: Fleet, account: Account, point: str, calls: int) -> None:
    """Killed before the call nothing was paid, and after publishing nothing is paid again; between, one call is."""
    dying = fleet.start("tests.system.dying_worker", point)
    batch = fleet.submit_batch("qa", [{"question": "Who pays?"}], model="own")
    assert dying.wait(60) == -signal.SIGKILL
    assert_ended_once(fleet, batch)
    assert account.read("completions") == calls


def test_a_call_under_way_is_made_again(fleet: Fleet, account: Account) -> None:
    """Killed while the model thinks: the provider may charge that call as well as the one that answers."""
    worker = fleet.start()
    batch = fleet.submit_batch("qa", [{"question": "Who pays?"}], model="own")
    assert wait_until(lambda: account.read("waiting") == 1, 30)
    os.kill(worker.pid, signal.SIGKILL)
    assert_ended_once(fleet, batch)
    assert account.read("requests") == 2


@pytest.mark.parametrize(
    ("point", "model", "repeated"), [("call 3", "own", 0), ("answer 3", "own", 1), ("answer 3", "keyed", 0)]
)
def test_a_dead_workers_answers_are_not_paid_again(
    fleet: Fleet, account: Account, point: str, model: str, repeated: int
) -> None:
    """Killed in its third step a chain goes on there: only the call under way can be paid twice, by a gateway none."""
    dying = fleet.start("tests.system.dying_worker", point)
    job_id = fleet.submit("chain", model=model, text="t")
    assert dying.wait(60) == -signal.SIGKILL
    fleet.start()
    job = fleet.wait(job_id, "succeeded")
    assert (account.read("completions"), account.read("duplicate_prompts")) == (3 + repeated, repeated)
    lost, last = job_view(job)["attempts"]
    assert (lost["error"]["code"], lost["at_least"]["usage"]["calls"]) == ("worker_lost", 2)
    assert (last["calls"], last["replayed"]) == (1, 2)
