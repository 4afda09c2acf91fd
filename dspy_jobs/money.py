"""Money is stored and summed as an integer of nano-dollars, so that no sum drifts; here it becomes dollars."""

from __future__ import annotations

from decimal import Decimal
from typing import overload

_A_DOLLAR = 1_000_000_000


@overload
def dollars(nanos: int | str) -> float: ...


@overload
def dollars(nanos: int | str | None) -> float | None: ...


def dollars(nanos: int | str | None) -> float | None:
    """Nano-dollars as US dollars: divided once, at the end, so that JSON shows the decimals the integer has."""
    return None if nanos is None else int(nanos) / _A_DOLLAR


def nanos(dollars: float) -> int:
    """US dollars as whole nano-dollars, by the decimal digits they were written with."""
    return round(Decimal(repr(dollars)) * _A_DOLLAR)


def format_dollars(nanos: int) -> str:
    """Nano-dollars for people, exact: at least cents, at most nine decimals."""
    whole, rest = divmod(nanos, _A_DOLLAR)
    return f"${whole:,}.{f'{rest:09}'.rstrip('0').ljust(2, '0')}"
