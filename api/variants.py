"""The variants of a program, and what became of their jobs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean, mean
from typing import Any, cast

from starlette.requests import Request
from starlette.responses import Response

from api.answers import json_answer
from api.programs import program_of
from api.reading import choice, query
from api.resources import Resources, resources_of
from dspy_jobs import names
from dspy_jobs.money import dollars
from dspy_jobs.run_times import quantile_ms


async def get_variants(request: Request) -> Response:
    """Every variant of a program with its numbers; `scores=true` gives all values of its scores too."""
    resources = resources_of(request)
    given = query(request, ("scores", "score"))
    with_values = choice(given, "scores", ("true", "false"), "false") == "true"
    description = (await program_of(request)).description
    scored = await _score_names(resources, description.name, given.get("score"))
    rows = []
    for name, variant in sorted(description.variants.items()):
        numbers = await resources.store.redis.hgetall(names.variant(description.name, name))
        counted = {field.decode(): int(value) for field, value in cast("dict[bytes, bytes]", numbers).items()}
        scores = {score: await _scores(resources, description.name, name, score, with_values) for score in scored}
        known = {score: summary for score, summary in scores.items() if summary is not None}
        rows.append({"object": "variant", "name": name, **variant.model_dump(), **report(counted), "scores": known})
    return json_answer({"data": rows})


async def _score_names(resources: Resources, program: str, wanted: str | None) -> list[str]:
    found = cast("Iterable[bytes]", await resources.store.redis.zrange(names.score_names(program), 0, -1))
    return sorted(name for name in (raw.decode() for raw in found) if wanted in (None, name))


async def _scores(
    resources: Resources, program: str, variant: str, name: str, with_values: bool
) -> dict[str, Any] | None:
    raw = cast("list[bytes]", await resources.store.redis.hvals(names.scores(program, variant, name)))
    if not raw:
        return None
    values = [float(value) for value in raw]
    return {"n": len(values), "mean": mean_of(values), **({"values": values} if with_values else {})}


def mean_of(values: Sequence[float]) -> float:
    """The mean of some finite numbers, however large."""
    try:
        return fmean(values)
    except OverflowError:  # their sum is out of range, their mean is not: reckoned in fractions, for which all fit
        return mean(values)


def report(counted: dict[str, int]) -> dict[str, Any]:
    """A variant's numbers as they are shown, made of what the store has counted."""
    jobs, failed = counted.get("jobs", 0), counted.get("failed", 0)
    cached = counted.get("hit", 0) + counted.get("coalesced", 0)
    ran = jobs - cached
    is_known = not counted.get("unpriced") and not counted.get("lost")
    cost = counted.get("cost", 0) if is_known else None
    return {
        "jobs": jobs,
        "failed": failed,
        "error_rate": failed / jobs if jobs else None,
        "cached": cached,
        "cost_usd": dollars(cost),
        "cost_per_job": None if cost is None or ran < 1 else cost / ran / 1e9,
        "latency": _run_times(counted),
    }


def _run_times(counted: dict[str, int]) -> dict[str, float | None]:
    buckets = {int(name[1:]): count for name, count in counted.items() if name[0] == "b"}
    runs = sum(buckets.values())
    times = {
        "mean_seconds": counted.get("run_ms", 0) / runs if runs else None,
        "p50_seconds": quantile_ms(buckets, 0.5),
        "p95_seconds": quantile_ms(buckets, 0.95),
    }
    return {name: None if ms is None else round(ms / 1000, 4) for name, ms in times.items()}
