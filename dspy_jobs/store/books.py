"""What model calls cost, written down once a call: on the job's attempt, its batch, and the books of the day."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


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
