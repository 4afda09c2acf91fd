"""What was spent, over HTTP, from books written by hand."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import httpx
import pytest

from dspy_jobs import names
from dspy_jobs.costs import book_day, book_month
from dspy_jobs.store import SyncStore
from tests.integration.conftest import StartApi


def today(store: SyncStore) -> date:
    """The day by Redis's clock."""
    return datetime.fromtimestamp(store.redis.time()[0], UTC).date()


def write(store: SyncStore, day: date, **metrics: int) -> None:
    """Write the books of a day."""
    key = names.costs(book_day(day))
    store.redis.hset(key, mapping={f"fast||qa|default|{metric}": value for metric, value in metrics.items()})
    store.redis.expire(key, 60)


def read(api: httpx.Client, **params: Any) -> dict[str, Any]:
    """The sums."""
    answer = api.get("/costs", params=params)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_costs_of_this_month_are_shown_by_day(api: httpx.Client, store: SyncStore) -> None:
    """Without being asked for more; days before this month stay out."""
    now = today(store)
    write(store, now, calls=2, cost=1_234_567_891, jobs=3, hit=1, saved=5)
    write(store, now.replace(day=1) - timedelta(days=1), calls=100)
    costs = read(api)
    assert (costs["from"], costs["to"], costs["group_by"]) == (str(now.replace(day=1)), str(now), ["day"])
    assert [(row["day"], row["calls"], row["cost_usd"], row["cached"]) for row in costs["data"]] == [
        (str(now), 2, 1.234567891, 1)
    ]
    assert (costs["total"]["saved_nanos"], costs["complete"]) == (5, True)


def test_costs_are_shown_however_long_they_are_kept(start_api: StartApi, store: SyncStore) -> None:
    """Up to the longest time that can be set, for which all days are complete."""
    api = start_api(DSPY_JOBS_COSTS_RETENTION_DAYS="3660")
    first = today(store) - timedelta(days=3659)
    assert read(api, **{"from": first, "to": first})["complete"]
    before = first - timedelta(days=1)
    assert not read(api, **{"from": before, "to": first})["complete"]


def test_days_can_be_chosen_and_groups_combined(api: httpx.Client, store: SyncStore) -> None:
    """Both ends count, over more days than one round trip reads; unknown costs make the answer incomplete."""
    now = today(store)
    for ago in range(60):
        write(store, now - timedelta(days=ago), calls=1, unpriced=int(ago == 50))
    span = {"from": now - timedelta(days=49), "to": now - timedelta(days=1)}
    costs = read(api, **span, group_by="program,model")
    assert (costs["group_by"], costs["complete"]) == (["model", "program"], True)
    assert [(row["model"], row["program"], row["calls"]) for row in costs["data"]] == [("fast", "qa", 49)]
    assert "day" not in costs["data"][0]
    older = read(api, **{**span, "from": now - timedelta(days=50)}, group_by="client")
    assert (older["data"][0]["client"], older["total"]["unpriced_calls"], older["complete"]) == ("default", 1, False)


def test_days_whose_books_are_over_are_not_taken_for_free(start_api: Any, store: SyncStore) -> None:
    """An answer that reaches back beyond the retention is not complete."""
    api, now = start_api(DSPY_JOBS_COSTS_RETENTION_DAYS="10"), today(store)
    assert read(api, **{"from": now - timedelta(days=9)})["complete"]
    assert not read(api, **{"from": now - timedelta(days=10)})["complete"]


@pytest.mark.parametrize(
    ("params", "name"),
    [
        ({"from": "20260101"}, "from"),
        ({"to": "2026-02-30"}, "to"),
        ({"to": "yesterday"}, "to"),
        ({"from": "2026-01-02", "to": "2026-01-01"}, "from"),
        ({"from": "2024-01-01", "to": "2025-02-04"}, "from"),
        ({"group_by": "colour"}, "group_by"),
        ({"group_by": ""}, "group_by"),
        ({"group_by": "day,day"}, "group_by"),
        ({"since": "2026-01-01"}, "since"),
    ],
)
def test_a_wrong_question_is_named(api: httpx.Client, params: dict[str, str], name: str) -> None:
    """400 that names the parameter."""
    answer = api.get("/costs", params=params)
    assert (answer.status_code, answer.json()["errors"][0]["param"]) == (400, name)
    assert api.get("/costs", params={"from": "2024-01-01", "to": "2025-02-03"}).status_code == 200


def test_budgets_are_shown_as_workers_keep_to_them(start_api: Any, store: SyncStore) -> None:
    """What is spent by client and in all; while no worker has published the budgets, as configured here."""
    api, now = start_api(DSPY_JOBS_BUDGETS_DAY_USD="2"), today(store)
    for key, amounts in (
        (names.spent(book_day(now)), {"*": 1_500_000_000, "acme": 500_000_000}),
        (names.spent(book_month(now)), {"*": 9_000_000_001}),
    ):
        store.redis.hset(key, mapping=amounts)
        store.redis.expire(key, 60)
    day, month = api.get("/v1/budgets").json()["data"]
    assert (day["limit_usd"], day["left_usd"], day["exhausted"]) == (2, 0.5, False)
    assert (month["limit_usd"], month["spent_usd"]) == (None, 9.000000001)
    store.redis.hset(names.BUDGETS, mapping={"day *": 1_000_000_000, "day acme": 600_000_000, "kept": 5})
    data = api.get("/v1/budgets").json()["data"]
    assert [(b["client"], b["period"], b["left_usd"]) for b in data if b["limit_usd"] is not None] == [
        (None, "day", 0),
        ("acme", "day", 0.1),
    ]
