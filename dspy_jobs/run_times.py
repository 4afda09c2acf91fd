"""Run times as the store keeps them: a histogram whose buckets grow by a constant factor, from which quantiles follow.

Bucket `i` holds the times in (g^(i-1), g^i] milliseconds with g = 1.02 / 0.98, so a quantile is told to 2 %.
Source: Masson, Rim and Lee, "DDSketch: A Fast and Fully-Mergeable Quantile Sketch", VLDB 2019. The store's script
`_books.lua` fills it.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate

_GROWTH = 1.02 / 0.98


def quantile_ms(counts: Mapping[int, int], share: float) -> float | None:
    """The time in milliseconds that `share` (0 to 1) of the runs took at most; None where nothing ran."""
    total = sum(counts.values())
    if not total:
        return None
    rank = share * (total - 1)
    buckets = sorted(counts)
    reached = accumulate(counts[bucket] for bucket in buckets)
    bucket = next(bucket for bucket, upto in zip(buckets, reached, strict=True) if upto > rank)
    return float(2 * _GROWTH**bucket / (_GROWTH + 1))
