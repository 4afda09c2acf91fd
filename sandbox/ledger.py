"""What the sandbox was asked and what it answered, counted exactly: proof that nothing was paid twice.

Grows by one entry for each distinct prompt until it is reset.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")


class Tokens(NamedTuple):
    """What an answer used, as the sandbox counts; `cached` is a part of `prompt`, `reasoning` of `completion`."""

    prompt: int = 0
    completion: int = 0
    cached: int = 0
    reasoning: int = 0


@dataclass(slots=True)
class Account:
    """The calls of one model. `asked` and `answered` count by prompt (messages and sampling parameters).

    `paid` sums the tokens of all answers, `repeated` those of answers beyond the first of each prompt. `replays` are
    answers given once more to a call with the same key, which are not charged; `kept` holds what they answer.
    """

    requests: int = 0
    completions: int = 0
    paid: Tokens = field(default_factory=Tokens)
    repeated: Tokens = field(default_factory=Tokens)
    replays: int = 0
    kept: dict[str, bytes] = field(default_factory=dict)
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

    def complete(self, prompt: bytes, tokens: Tokens) -> None:
        """Note an answer with status 200, counted when it is sent."""
        self.completions += 1
        self.paid = _add(self.paid, tokens)
        if self.answered[prompt]:
            self.repeated = _add(self.repeated, tokens)
        self.answered[prompt] += 1

    def replay(self, key: str) -> bytes | None:
        """The answer to an earlier call with this key, if there was one."""
        answer = self.kept.get(key)
        if answer is not None:
            self.requests += 1
            self.replays += 1
        return answer

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

        The total `peak_waiting` is that of the busiest model, its duplicate tokens are those of each model summed.
        """
        return {
            "models": {name: _counts([account]) for name, account in sorted(self._accounts.items())},
            "total": _counts(list(self._accounts.values())),
        }


def _counts(accounts: list[Account]) -> dict[str, Any]:
    answered = _sum(account.answered for account in accounts)
    paid = _add(*(account.paid for account in accounts))
    repeated = _add(*(account.repeated for account in accounts))
    return {
        "requests": sum(account.requests for account in accounts),
        "completions": sum(account.completions for account in accounts),
        "prompt_tokens": paid.prompt,
        "completion_tokens": paid.completion,
        "cached_tokens": paid.cached,
        "reasoning_tokens": paid.reasoning,
        "replays": sum(account.replays for account in accounts),
        "faults": dict(_sum(account.faults for account in accounts)),
        "waiting": sum(account.waiting for account in accounts),
        "peak_waiting": max((account.peak_waiting for account in accounts), default=0),
        "distinct_prompts": len(_sum(account.asked for account in accounts)),
        "duplicate_prompts": sum(answered.values()) - len(answered),
        "duplicate_prompt_tokens": repeated.prompt,
        "duplicate_completion_tokens": repeated.completion,
    }


def _add(*amounts: Tokens) -> Tokens:
    return Tokens(*map(sum, zip(*amounts, strict=True))) if amounts else Tokens()


def _sum(counters: Iterable[Counter[T]]) -> Counter[T]:
    total: Counter[T] = Counter()
    for counter in counters:
        total.update(counter)
    return total
