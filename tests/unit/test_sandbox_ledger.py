"""The sandbox's counts."""

from __future__ import annotations

from sandbox.ledger import Ledger, Tokens


def test_a_prompt_answered_twice_is_one_duplicate() -> None:
    """Only answers count as paid: a failed call and its retry are no duplicate, a second answer is."""
    ledger = Ledger()
    account = ledger.account("sandbox")
    for prompt, fault in ((b"a", "500"), (b"a", None), (b"a", None), (b"b", None)):
        account.begin(prompt)
        if fault is None:
            account.complete(prompt, Tokens(3, 2, 1, 1))
        account.end(fault)
    assert ledger.report()["models"]["sandbox"] == {
        "requests": 4,
        "completions": 3,
        "prompt_tokens": 9,
        "completion_tokens": 6,
        "cached_tokens": 3,
        "reasoning_tokens": 3,
        "replays": 0,
        "faults": {"500": 1},
        "waiting": 0,
        "peak_waiting": 1,
        "distinct_prompts": 2,
        "duplicate_prompts": 1,
        "duplicate_prompt_tokens": 3,
        "duplicate_completion_tokens": 2,
    }


def test_the_total_sees_a_prompt_paid_at_two_models() -> None:
    """The same prompt answered by two models is a duplicate in the total and in neither model."""
    ledger = Ledger()
    for model in ("sandbox", "sandbox-slow"):
        account = ledger.account(model)
        account.begin(b"a")
        account.complete(b"a", Tokens(1, 1))
        account.end(None)
    report = ledger.report()
    assert [counts["duplicate_prompts"] for counts in report["models"].values()] == [0, 0]
    assert (report["total"]["distinct_prompts"], report["total"]["duplicate_prompts"]) == (1, 1)


def test_attempts_are_counted_by_prompt() -> None:
    """Each prompt has its own count of attempts, starting at 1, and a reset starts it again."""
    ledger = Ledger()
    assert [ledger.account("sandbox").begin(prompt) for prompt in (b"a", b"a", b"b")] == [1, 2, 1]
    ledger.reset()
    assert ledger.account("sandbox").begin(b"a") == 1


def test_a_call_under_way_at_a_reset_is_not_counted() -> None:
    """An answer that arrives after a reset does not disturb the new counts."""
    ledger = Ledger()
    account = ledger.account("sandbox")
    account.begin(b"a")
    ledger.reset()
    account.complete(b"a", Tokens(1, 1))
    account.end(None)
    assert ledger.report()["total"]["completions"] == 0
    assert ledger.report()["total"]["waiting"] == 0
