"""What HTTP shows of a stored job and batch."""

from __future__ import annotations

from typing import Any

import pytest

from dspy_jobs.problems import problem
from dspy_jobs.store.records import StoredBatch, StoredJob
from dspy_jobs.views import batch_view, job_result, job_view, retry_after

NOW = 1_700_000_000_000
FIELDS = {
    "status": "queued", "program": "qa", "model": "fast", "attempt": "0", "created_at": str(NOW), "batch": "",
    "expires_at": str(NOW + 1000),
}  # fmt: skip
REQUEST = {"inputs": {"q": "secret"}, "program_version": "v1", "request_id": "r", "custom_id": "c"}


def job(rank: int | None = None, workers: int = 1, paused: str = "", **more: Any) -> StoredJob:
    """A stored job that is queued unless told otherwise."""
    attempts, outcome = more.pop("attempts", []), more.pop("outcome", None)
    fields = {**FIELDS, **{name: str(value) for name, value in more.items()}}
    return StoredJob("job_1", fields, REQUEST, outcome, attempts, rank, workers, paused)


def attempt(number: int, cost: float | None = 0.1, tokens: int | None = 3, **more: Any) -> dict[str, Any]:
    """A stored attempt."""
    usage = {"input_tokens": tokens, "output_tokens": 1, "calls": 1, "source": "provider"}
    times = {"started_at": NOW, "ended_at": NOW + 5}
    return {"number": number, "model": "fast", **times, "usage": usage, "cost_usd": cost, **more}


@pytest.mark.parametrize(
    ("stored", "shown"),
    [
        (job(), {}),
        (job(rank=0), {}),
        (job(rank=3), {"wait_reason": "behind_n_jobs", "behind": 3}),
        (job(workers=0, rank=3), {"wait_reason": "no_workers"}),
        (job(workers=0, paused="operator"), {"wait_reason": "paused"}),
        (job(paused="max_cost"), {"wait_reason": "budget_exhausted"}),
        (
            job(paused="operator", wait="retry_scheduled", until=NOW),
            {"wait_reason": "retry_scheduled", "until": "2023-11-14T22:13:20.000Z"},
        ),
        (job(wait="worker_lost"), {"wait_reason": "worker_lost"}),
        (job(workers=0, follows="k"), {"wait_reason": "behind_n_jobs", "behind": 1}),
        (job(paused="operator", follows="k"), {"wait_reason": "paused"}),
        (job(status="running", workers=0, attempt_at=NOW), {}),
    ],
)
def test_a_waiting_job_says_why(stored: StoredJob, shown: dict[str, Any]) -> None:
    """The record's own reason comes first, then the batch, the workers and the line before it."""
    view = job_view(stored)
    assert {name: view[name] for name in ("wait_reason", "until", "behind") if name in view} == shown


def test_a_job_shows_every_attempt_and_what_all_cost() -> None:
    """Attempts before, the last one, and sums over all of them."""
    error = problem("server", "down").model_dump(exclude_none=True)
    outcome = {"result": {"a": 1}, "attempt": attempt(2), "cache": "miss", "program_version": "v2"}
    view = job_view(
        job(
            status="succeeded",
            attempt=2,
            started_at=NOW,
            ended_at=NOW,
            outcome=outcome,
            attempts=[attempt(1, error=error)],
        )
    )
    assert [(a["number"], "error" in a) for a in view["attempts"]] == [(1, True), (2, False)]
    assert (view["usage"]["input_tokens"], view["usage"]["calls"], view["cost_usd"]) == (6, 2, 0.2)
    assert (view["output"], view["program_version"], view["expires_at"]) == ({"a": 1}, "v2", None)
    assert "inputs" not in view


@pytest.mark.parametrize(
    ("outcome", "shown"),
    [
        ({"cache": "miss", "cache_key": "k"}, ("miss", "k", None, None)),
        ({"cache": "bypass"}, ("bypass", None, None, None)),
        (
            {"cache": "hit", "cache_key": "k", "cache_age_seconds": 1.5, "saved_nanos": 1},
            ("hit", "k", 1.5, 0.000000001),
        ),
        (
            {"cache": "coalesced", "cache_key": "k", "cache_age_seconds": 0, "saved_nanos": None},
            ("coalesced", "k", 0, None),
        ),
    ],
)
def test_a_job_says_what_the_cache_did(outcome: dict[str, Any], shown: tuple[Any, ...]) -> None:
    """Key, age and money saved, each null where it does not apply or is unknown."""
    view = job_view(job(status="succeeded", outcome={"result": {}, "attempt": attempt(1), **outcome}))
    assert tuple(view[name] for name in ("cache", "cache_key", "cache_age_seconds", "saved_usd")) == shown


def test_each_attempt_shows_what_it_used_and_reused() -> None:
    """Calls that were paid for, calls that were answered from an earlier attempt's, tokens and cost, one by one."""
    first, lost = attempt(1, tokens=None, cost=None), {"number": 2, "model": "fast", "started_at": NOW, "ended_at": NOW}
    outcome = {"result": {}, "attempt": attempt(3, cost=0.25, replayed=2)}
    shown = job_view(job(status="succeeded", attempt=3, outcome=outcome, attempts=[first, lost]))["attempts"]
    assert [(a["calls"], a["replayed"], a["cost_usd"]) for a in shown] == [(1, 0, None), (None, 0, None), (1, 2, 0.25)]
    assert [a["usage"] and a["usage"]["input_tokens"] for a in shown] == [None, None, 3]
    assert shown[1]["usage"] is None
    assert shown[2]["usage"]["cached_input_tokens"] is None


def test_a_lost_attempt_shows_what_was_booked_of_it() -> None:
    """What it used in all nobody knows; what it used at least is known."""
    usage = {"input_tokens": 5, "output_tokens": 1, "calls": 1, "source": "provider"}
    known = {"usage": usage, "cost_usd": 0.5, "replayed": 2}
    lost = {"number": 1, "model": "fast", "started_at": NOW, "ended_at": NOW, "at_least": known}
    view = job_view(job(status="succeeded", attempt=2, outcome={"attempt": attempt(2)}, attempts=[lost]))
    shown = view["attempts"][0]
    assert (shown["usage"], shown["cost_usd"], shown["replayed"]) == (None, None, 2)
    assert (shown["at_least"]["usage"]["input_tokens"], shown["at_least"]["cost_usd"]) == (5, 0.5)
    assert (view["usage"]["calls"], view["cost_usd"]) == (None, None)


def test_costs_of_attempts_add_up_exactly() -> None:
    """Sums are made of whole nano-dollars, not of fractions."""
    outcome = {"result": {}, "attempt": attempt(3, cost=0.3)}
    stored = job(status="succeeded", attempt=3, outcome=outcome, attempts=[attempt(1, 0.1), attempt(2, 0.2)])
    assert job_view(stored)["cost_usd"] == 0.6


def test_a_running_attempt_has_no_end() -> None:
    """The attempt under way is shown with a null end; usage and cost are not yet known."""
    view = job_view(job(status="running", attempt=1, attempt_at=NOW, started_at=NOW))
    shown = [(a["number"], a["ended_at"], a["calls"], a["usage"], a["cost_usd"]) for a in view["attempts"]]
    assert shown == [(1, None, None, None, None)]
    assert (view["usage"], view["cost_usd"]) == (None, None)


@pytest.mark.parametrize(("cost", "tokens"), [(None, 3), (0.1, None)])
def test_unknown_is_null_and_never_zero(cost: float | None, tokens: int | None) -> None:
    """One attempt of unknown price or usage makes the sum unknown."""
    outcome = {"result": {}, "attempt": attempt(2)}
    view = job_view(job(status="succeeded", outcome=outcome, attempts=[attempt(1, cost, tokens)]))
    assert (view["cost_usd"] is None) is (cost is None)
    assert (view["usage"]["input_tokens"] is None) is (tokens is None)


@pytest.mark.parametrize(
    ("sources", "shown"),
    [
        (["provider", "provider"], "provider"),
        (["provider", "estimated"], "estimated"),
        ([None], None),
        (["provider", None], None),
        (["estimated", None], None),
    ],
)
def test_what_is_unknown_has_no_source(sources: list[str | None], shown: str | None) -> None:
    """Where the counts of one attempt are not known, the job's are not, and nobody reported them."""
    tried = [attempt(number, tokens=3 if source else None) for number, source in enumerate(sources, 1)]
    for one, source in zip(tried, sources, strict=True):
        one["usage"] |= {"source": source} | ({} if source else {"output_tokens": None})
    view = job_view(job(status="succeeded", outcome={"attempt": tried[-1]}, attempts=tried[:-1]))
    assert view["usage"]["source"] == shown
    assert [one["usage"]["source"] for one in view["attempts"]] == sources


def test_a_failed_job_carries_its_problem() -> None:
    """The stored problem with where and under which request it happened; a result line has no urls."""
    outcome = {"problem": problem("timeout", "too slow").model_dump(exclude_none=True), "attempt": attempt(1)}
    line = job_result(job(status="failed", outcome=outcome))
    assert (line["error"]["code"], line["error"]["instance"], line["error"]["request_id"]) == (
        "timeout",
        "/v1/jobs/job_1",
        "r",
    )
    assert "urls" not in line
    assert "output" not in line


@pytest.mark.parametrize(("until", "seconds"), [(None, 1), (NOW - 5, 1), (NOW + 2500, 3), (NOW + 10**7, 60)])
def test_asking_again_follows_the_wait(until: int | None, seconds: int) -> None:
    """Retry-After is the time left, between a second and a minute."""
    stored = job() if until is None else job(wait="retry_scheduled", until=until)
    assert retry_after(stored, NOW) == seconds


def batch(workers: int = 1, **more: Any) -> dict[str, Any]:
    """The view, ten seconds after it was made, of a batch half done."""
    fields = {
        "status": "in_progress", "program": "qa", "model": "fast", "total": 4, "queued": 2, "succeeded": 2,
        "created_at": NOW, "retention": 5, "tombstone": 7, "expires_in": 1000, **more,
    }  # fmt: skip
    stored = StoredBatch("batch_1", {name: str(value) for name, value in fields.items()}, REQUEST, 2, workers)
    return batch_view(stored, NOW + 10_000)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, {"eta_seconds": 10.0, "wait_reason": None, "cost_usd": 0.0, "expires_at": "2023-11-14T22:13:21.000Z"}),
        ({"workers": 0}, {"wait_reason": "no_workers"}),
        ({"status": "paused"}, {"eta_seconds": None, "wait_reason": "paused"}),
        ({"succeeded": 0, "queued": 4}, {"eta_seconds": None}),
        ({"cost": 1500}, {"cost_usd": 0.0000015}),
        ({"input_tokens": 7, "output_tokens": 2, "calls": 3, "untokened": 0},
         {"usage": {"input_tokens": 7, "output_tokens": 2, "calls": 3}}),
        ({"input_tokens": 7, "output_tokens": 2, "calls": 3, "untokened": 1},
         {"usage": {"input_tokens": None, "output_tokens": None, "calls": 3}}),
        ({"cost": 1500, "unpriced": 1}, {"cost_usd": None}),
        ({}, {"cache": {"hit": 0, "miss": 0, "coalesced": 0, "bypass": 0}, "saved_usd": 0.0, "limits": None}),
        ({"hit": 1, "coalesced": 1, "saved": 12_345}, {"saved_usd": 0.000012345}),
        ({"saved": 12_345, "unsaved": 1}, {"saved_usd": None}),
        ({"limit_cost": 2_500_000_000, "limit_min_items": 20},
         {"limits": {"max_cost_usd": 2.5, "max_error_rate": None, "min_items": 20}}),
        ({"limit_error_rate": 0.25, "limit_min_items": 5},
         {"limits": {"max_cost_usd": None, "max_error_rate": 0.25, "min_items": 5}, "pause": None}),
        ({"status": "ended", "queued": 0, "succeeded": 4, "ended_reason": "completed", "ended_at": NOW},
         {"eta_seconds": 0.0, "ended_reason": "completed", "expires_at": None, "wait_reason": None}),
    ],
)  # fmt: skip
def test_a_batch_says_how_far_it_is(more: dict[str, Any], expected: dict[str, Any]) -> None:
    """Time to go, reason to wait, cost, and end."""
    view = batch(**more)
    assert {name: view.get(name) for name in expected} == expected


@pytest.mark.parametrize(
    ("more", "wait_reason", "reason", "detail"),
    [
        ({}, "paused", "operator", "Somebody paused it"),
        ({"pause_reason": "operator", "limit_cost": 5}, "paused", "operator", "Somebody paused it"),
        (
            {"pause_reason": "max_cost", "limit_cost": 2_500_000_000, "cost": 2_500_000_100},
            "budget_exhausted",
            "max_cost",
            "has spent $2.5000001 of $2.50, which leaves no room",
        ),
        (
            {"pause_reason": "max_cost", "limit_cost": 2_500_000_000, "cost": 2_000_000_000, "held": 1},
            "budget_exhausted",
            "max_cost",
            "has spent $2.00 of $2.50, and somebody paused it besides;",
        ),
        (
            {"pause_reason": "max_error_rate", "limit_error_rate": 0.125, "failed": 7, "succeeded": 9},
            "paused",
            "max_error_rate",
            "7 of 16 jobs failed, and 12.5 % may;",
        ),
        (
            {
                "pause_reason": "max_error_rate", "limit_error_rate": 0.5, "failed": 7, "succeeded": 9,
                "rate_from_failed": 3, "rate_from_done": 10,
            },
            "paused", "max_error_rate", "4 of 6 jobs failed, and 50 % may;",
        ),
    ],
)  # fmt: skip
def test_a_paused_batch_says_by_what(more: dict[str, Any], wait_reason: str, reason: str, detail: str) -> None:
    """The reason, a sentence that says what lets it go on, and since when."""
    view = batch(status="paused", paused_at=NOW, **more)
    assert (view["wait_reason"], view["pause"]["reason"]) == (wait_reason, reason)
    assert detail in view["pause"]["detail"]
    assert view["pause"]["at"] == "2023-11-14T22:13:20.000Z"
