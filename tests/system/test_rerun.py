"""A batch that has been run is run again: nothing is paid for, whichever worker takes it."""

from __future__ import annotations

import time

import pytest

from tests.sandbox_account import Account
from tests.system.fleet import Fleet

pytestmark = [pytest.mark.system, pytest.mark.slow]

ITEMS = [{"question": f"How many are {number} dozen?"} for number in range(10_000)]


@pytest.fixture
def account(sandbox_url: str) -> Account:
    """A model of this test's own."""
    return Account(sandbox_url, "latency=0")


@pytest.fixture
def models(account: Account) -> str:
    """The fleet serves that model as well."""
    return account.as_toml("own", "input_cost_per_1k = 0.001\noutput_cost_per_1k = 0.002")


def run(fleet: Fleet, items: list[dict[str, str]]) -> tuple[dict[str, str], float]:
    """The fields of a batch once it has ended, and the seconds that took."""
    began = time.monotonic()
    fields = fleet.wait_for_batch(fleet.submit_batch("qa", items, model="own"), 150)
    return fields, time.monotonic() - began


def test_a_batch_run_again_costs_nothing(fleet: Fleet, account: Account) -> None:
    """10,000 items again, on a worker that has nothing in memory: no call, no cost, what it saved, and much faster."""
    worker = fleet.start()
    first, first_seconds = run(fleet, ITEMS)
    assert account.read("requests") == len(ITEMS)
    worker.terminate()
    worker.wait(30)
    fleet.start()
    again, again_seconds = run(fleet, ITEMS)
    assert account.read("requests") == len(ITEMS)
    assert (again["hit"], again["cached"], again["succeeded"]) == ("10000", "10000", "10000")
    assert (again.get("cost", "0"), again["saved"]) == ("0", first["cost"])
    assert first_seconds > 2 * again_seconds
