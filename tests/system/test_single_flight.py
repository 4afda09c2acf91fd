"""Equal jobs at one moment, over several worker processes: one run each, whatever becomes of the one that leads."""

from __future__ import annotations

import os
import signal
from collections import Counter

import pytest

from dspy_jobs import names
from dspy_jobs.waiting import wait_until
from tests.sandbox_account import Account
from tests.system.fleet import Fleet

pytestmark = pytest.mark.system

DISTINCT, JOBS = 50, 500
ITEMS = [{"question": f"What is {number % DISTINCT} + {number % DISTINCT}?"} for number in range(JOBS)]


@pytest.fixture
def account(sandbox_url: str) -> Account:
    """A model of this test's own that takes its time."""
    return Account(sandbox_url, "latency=0.3")


@pytest.fixture
def models(account: Account) -> str:
    """The fleet serves that model as well."""
    # The provider charges a repeated call once: what a killed worker had asked for is not charged again.
    return account.as_toml("own", 'idempotency_header = "Idempotency-Key"')


def ways(fleet: Fleet, batch: str) -> Counter[str]:
    """How the batch's jobs came by their outputs."""
    fields = fleet.batch(batch)
    return Counter({how: int(fields.get(how, 0)) for how in ("hit", "miss", "coalesced", "bypass")})


def assert_all_equal_jobs_got_one_answer(fleet: Fleet, batch: str) -> None:
    """Every job succeeded, and those with equal inputs have equal outputs."""
    answers: dict[str, set[str]] = {}
    for job in fleet.jobs_of(batch):
        assert job.status == "succeeded"
        assert job.outcome is not None
        assert job.request is not None
        answers.setdefault(job.request["inputs"]["question"], set()).add(job.outcome["result"]["answer"])
    assert len(answers) == DISTINCT
    assert all(len(given) == 1 for given in answers.values())


def test_equal_jobs_cost_one_call(fleet: Fleet, account: Account) -> None:
    """500 jobs of 50 distinct inputs, given to three workers at once, make exactly 50 calls."""
    for _ in range(3):
        fleet.start()
    batch = fleet.submit_batch("qa", ITEMS, model="own")
    fleet.wait_for_batch(batch)
    assert account.read("requests") == account.read("completions") == DISTINCT
    found = ways(fleet, batch)
    assert found["miss"] == DISTINCT
    assert found["hit"] + found["coalesced"] == fleet.count(batch, "cached") == JOBS - DISTINCT
    assert found["coalesced"] > 0
    assert_all_equal_jobs_got_one_answer(fleet, batch)


def test_followers_survive_their_leader(fleet: Fleet, account: Account) -> None:
    """A worker is killed while jobs on it lead others: they lead on elsewhere, and each input is answered once."""
    victim = fleet.start()
    batch = fleet.submit_batch("qa", ITEMS, model="own")
    assert wait_until(lambda: account.read("waiting") > 0 and followers(fleet) > 0, 30)
    os.kill(victim.pid, signal.SIGKILL)
    fleet.start()
    fleet.start()
    fleet.wait_for_batch(batch)
    assert account.read("completions") == DISTINCT
    assert account.read("requests") > DISTINCT, "calls under way were cut and had to be made again"
    assert ways(fleet, batch)["miss"] == DISTINCT
    assert followers(fleet) == 0
    assert_all_equal_jobs_got_one_answer(fleet, batch)


def test_equal_jobs_share_a_run_without_a_cache(fleet: Fleet, account: Account) -> None:
    """With the cache's Redis away, jobs at one moment still cost one call: following needs only the ledger."""
    fleet.environ["CACHE_URL"] = "redis://127.0.0.1:1/0"
    fleet.start()
    fleet.start()
    batch = fleet.submit_batch("qa", ITEMS[: DISTINCT * 2], model="own")
    fleet.wait_for_batch(batch)
    assert account.read("completions") == DISTINCT
    assert ways(fleet, batch)["miss"] == DISTINCT


def followers(fleet: Fleet) -> int:
    """Jobs that wait for another's answer."""
    return sum(fleet.store.redis.llen(key) for key in fleet.store.redis.scan_iter(names.followers("*")))
