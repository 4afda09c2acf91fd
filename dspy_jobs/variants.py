"""Which variant of a program a job runs: sticky, in proportion to the weights, and the same in every process.

Weighted rendezvous hashing: of all variants the one with the largest score `-weight / ln(h)` is chosen, where `h` in
(0, 1) is a hash of variant and unit. Changing one weight moves only units to or from that variant, and as few as can
be. Sources: Thaler and Ravishankar, "Using Name-Based Mappings to Increase Hit Rates", 1998; for weights Schindelhauer
and Schomaker, "Weighted Distributed Hash Tables", SPAA 2005.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from hashlib import blake2b


def assigned(program: str, weights: Mapping[str, float], unit: str) -> str:
    """The variant of a unit, whatever that is: a request, an item, a client. Empty where no variant has a weight.

    Programs are split independently: who gets one program's variant `b` need not get another's.
    """
    scored = ((_score(program, variant, weight, unit), variant) for variant, weight in weights.items() if weight > 0)
    return max(scored, default=(0.0, ""))[1]


def unit_of(job_id: str, request_id: str | None, custom_id: str | None, client: str) -> str:
    """What an assignment sticks to: the first that the caller gave, else nothing but the job itself.

    `request_id` is that of a single job's submission; a batch's does not count, for its items are to be split.
    """
    if request_id is not None:
        return f"request {request_id}"
    if custom_id is not None:
        return f"item {custom_id}"
    return job_id if client == "default" else f"client {client}"


def _score(program: str, variant: str, weight: float, unit: str) -> float:
    # Names of programs and variants hold no slash, so no two triples are the same text.
    digest = blake2b(f"{program}/{variant}/{unit}".encode(errors="surrogatepass"), digest_size=8).digest()
    share = (int.from_bytes(digest) + 0.5) / 2**64
    return -weight / math.log(share) if share < 1 else math.inf
