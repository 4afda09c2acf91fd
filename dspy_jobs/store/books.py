"""What model calls cost, written down once a call: on the job's attempt, its batch, and the books of the day."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from dspy_jobs import names
from dspy_jobs.money import nanos
from dspy_jobs.settings import ClientBudget, Settings
from dspy_jobs.store.records import Claim
from dspy_jobs.store.script import Operation, script
from dspy_jobs.store.wire import time_of


@dataclass(frozen=True, slots=True)
class BilledCall:
    """One answered model call. None is unknown, which is not zero; cost is in nano-dollars, so sums never drift."""

    input_tokens: int | None
    output_tokens: int | None
    cached_input_tokens: int | None
    reasoning_tokens: int | None
    cost_nanos: int | None
    is_estimated: bool = False
    """Whether the tokens were counted here, because the provider did not report them."""
    journal: bytes = b""
    """The call and its answer, for the job's next attempt to replay; empty if it is not to be replayed."""


@dataclass(frozen=True, slots=True)
class Bill:
    """Answered calls of an attempt, in order. Those that were booked before are passed over."""

    calls: Sequence[BilledCall] = ()
    first: int = 1
    """The number within the attempt of the first of them, counted from 1."""

    def args(self) -> tuple[Any, ...]:
        """As the scripts take it: the first number, how many there are, then seven values each."""
        return (self.first, len(self.calls), *(value for call in self.calls for value in _values(call)))


def _values(call: BilledCall) -> tuple[Any, ...]:
    numbers = (call.input_tokens, call.output_tokens, call.cached_input_tokens, call.reasoning_tokens, call.cost_nanos)
    known = ("" if number is None else number for number in numbers)
    return (*known, "1" if call.is_estimated else "0", call.journal)


#: What became of a bill of an attempt that still runs.
Booked = Literal["booked", "stale", "budget_exhausted"]


def record_calls(worker: str, claim: Claim, bill: Bill, so_far: bytes, now_ms: int | None = None) -> Operation[Booked]:
    """Book calls of an attempt that still runs; `so_far` is all it used up to now (JSON), for the attempts list.

    Answers `booked`, `stale` (another attempt has the job), or `budget_exhausted`: no further call may be made.
    """
    args = (time_of(now_ms), worker, claim.id, claim.attempt, so_far, *bill.args())
    return Operation(script("record_calls"), args, lambda raw: raw.decode())


def book_late(job_id: str, bill: Bill, now_ms: int | None = None) -> Operation[bool]:
    """Book calls answered after their attempt had ended; False if the job is not known any more.

    Not to be repeated: unlike those of a running attempt, these calls have no numbers.
    """
    args = (time_of(now_ms), job_id, *bill.args())
    return Operation(script("book_late"), args, bool)


def limits_of_spending(settings: Settings) -> dict[str, int]:
    """The hash `dj:budgets`: each budget in nano-dollars by `{period} {client}`, `*` for all clients.

    Beside them how many there are (`limits`), the queues whose running jobs count (`queue {name}`), and how many
    milliseconds the books are kept (`kept`).
    """
    whole = {"*": ClientBudget(day_usd=settings.budgets.day_usd, month_usd=settings.budgets.month_usd)}
    limits: dict[str, int] = {}
    for client, budget in {**whole, **settings.budgets.clients}.items():
        for period, limit in (("day", budget.day_usd), ("month", budget.month_usd)):
            if limit is not None:
                limits[f"{period} {client}"] = nanos(limit)
    queues = {f"queue {names.queue(model)}": 0 for model in settings.models}
    return {**limits, **queues, "limits": len(limits), "kept": settings.costs.retention_days * 86_400_000}
