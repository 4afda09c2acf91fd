"""Kubernetes quantities: why every metric and target is compared in thousandths, never as a bare float.

KEDA hands metrics to the HPA with three decimals (``pkg/scalers/scaler.go`` ``quantityFromFloat64``) and the
HPA divides integers of thousandths (``replica_calculator.go``, ``MilliValue``). Working in the same unit
keeps float noise such as 21 / 0.7 = 30.000000000000004 from buying a replica that KEDA would not buy.
"""

from __future__ import annotations

import math
import re
from decimal import Decimal

#: Largest thousandths value a metric may have: int64, as in Kubernetes.
MAX_MILLI = 2**63 - 1

_QUANTITY = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)([numkMGTPE]|[KMGTPE]i)?", re.ASCII)
_SUFFIXES = {"n": 1e-9, "u": 1e-6, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
_BINARY_SUFFIXES = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50, "Ei": 2**60}


def milli(value: float) -> int:
    """Return a metric in thousandths; negative, NaN and infinite metrics become 0, as in ``scaler.go``."""
    if not math.isfinite(value) or value < 0:
        return 0
    return min(int(Decimal(f"{value:.3f}").scaleb(3)), MAX_MILLI)


def approximate(thousandths: int) -> float:
    """Return thousandths as a float, multiplying as ``Quantity.AsApproximateFloat64`` does."""
    return thousandths * 0.001


def parse_quantity(text: str) -> float:
    """Read a quantity such as ``"0.05"``, ``"50m"`` or ``"1Ki"``; raises ValueError for anything else."""
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise ValueError(f'{text!r} is not a quantity; write a number such as "0.05" or "50m"')
    number, suffix = match.groups(default="")
    return float(number) * _SUFFIXES.get(suffix, _BINARY_SUFFIXES.get(suffix, 1))
