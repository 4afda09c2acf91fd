"""What the sandbox was asked and what it answered, counted exactly: proof that nothing was paid twice.

Grows by one entry for each distinct prompt until it is reset.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(slots=True)
class Account:
    """The calls of one model. `asked` and `answered` count by prompt (messages and sampling parameters)."""

    requests: int = 0
    completions: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    waiting: int = 0
    peak_waiting: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    asked: Counter[bytes] = field(default_factory=Counter)
    answered: Counter[bytes] = field(default_factory=Counter)

    def begin(self, prompt: bytes) -> int:
        """Note a call and return which attempt of its prompt it is, counted from 1."""
        self.requests += 1
        self.waiting += 1
        self.peak_waiting = max(self.peak_waiting, self.waiting)
        self.asked[prompt] += 1
        return self.asked[prompt]

    def complete(self, prompt: bytes, prompt_tokens: int, completion_tokens: int) -> None:
        """Note an answer with status 200, counted when it is sent."""
        self.completions += 1
        self.prompt_tokens += prompt_tokens
        self.completion_tokens += completion_tokens
        self.answered[prompt] += 1

    def end(self, fault: str | None) -> None:
        """Note that a call is over, with the fault it met."""
        self.waiting -= 1
        if fault:
            self.faults[fault] += 1


class Ledger:
    """The accounts of all models, by the model's name with its modifiers."""

    def __init__(self) -> None:
        self._accounts: dict[str, Account] = {}

    def account(self, model: str) -> Account:
        """The account of a model, opened at its first call."""
        return self._accounts.setdefault(model, Account())

    def reset(self) -> None:
        """Start from nothing; calls under way end on the old accounts and are not counted in the new ones."""
        self._accounts = {}

    def report(self) -> dict[str, Any]:
        """Counts for each model and in total, where a prompt sent to two models is one distinct prompt.

        The total `peak_waiting` is that of the busiest model.
        """
        return {
            "models": {name: _counts([account]) for name, account in sorted(self._accounts.items())},
            "total": _counts(list(self._accounts.values())),
        }


def _counts(accounts: list[Account]) -> dict[str, Any]:
    answered = _sum(account.answered for account in accounts)
    return {
        "requests": sum(account.requests for account in accounts),
        "completions": sum(account.completions for account in accounts),
        "prompt_tokens": sum(account.prompt_tokens for account in accounts),
        "completion_tokens": sum(account.completion_tokens for account in accounts),
        "faults": dict(_sum(account.faults for account in accounts)),
        "waiting": sum(account.waiting for account in accounts),
        "peak_waiting": max((account.peak_waiting for account in accounts), default=0),
        "distinct_prompts": len(_sum(account.asked for account in accounts)),
        "duplicate_prompts": sum(answered.values()) - len(answered),
    }


def _sum(counters: Iterable[Counter[T]]) -> Counter[T]:
    total: Counter[T] = Counter()
    for counter in counters:
        total.update(counter)
    return total
