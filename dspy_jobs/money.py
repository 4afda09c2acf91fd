"""Money is stored and summed as an integer of nano-dollars, so that no sum drifts; here it becomes dollars."""

from __future__ import annotations

from decimal import Decimal

_A_DOLLAR = 1_000_000_000


def dollars(nanos: int | str) -> float:
    """Nano-dollars as US dollars: divided once, at the end, so that JSON shows the decimals the integer has."""
    return int(nanos) / _A_DOLLAR


def nanos(dollars: float) -> int:
    """US dollars as whole nano-dollars, by the decimal digits they were written with."""
    return round(Decimal(repr(dollars)) * _A_DOLLAR)


def format_dollars(nanos: int) -> str:
    """Nano-dollars for people, exact: at least cents, at most nine decimals."""
    whole, rest = divmod(nanos, _A_DOLLAR)
    return f"${whole:,}.{f'{rest:09}'.rstrip('0').ljust(2, '0')}"
