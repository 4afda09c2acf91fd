"""What pauses a batch: its limits as a caller gives them, checked and made ready for the store."""

from __future__ import annotations

from collections.abc import Sequence

from api.admission import refusal
from api.prices import prices_of
from api.resources import Resources
from dspy_jobs import money
from dspy_jobs.settings import Settings
from dspy_jobs.store.operations import BatchLimits, LimitChange
from dspy_jobs.submissions import DEFAULT_MIN_ITEMS
from dspy_jobs.submissions import BatchLimits as Given

#: A limit's field in a batch's hash.
_FIELDS = {"max_cost_usd": "limit_cost", "max_error_rate": "limit_error_rate", "min_items": "limit_min_items"}


async def limits_of(resources: Resources, given: Given | None, models: Sequence[str]) -> BatchLimits | None:
    """The limits of a new batch whose jobs go to these models.

    Raises:
        ProblemError: its cost cannot be limited, for the price of a model is not known.
    """
    if given is None or not given.model_dump(exclude_none=True):
        return None
    cost = given.max_cost_usd
    if cost is not None:
        await _check_prices(resources, models)
    nanos = None if cost is None else money.nanos(cost)
    return BatchLimits(nanos, given.max_error_rate, given.min_items or DEFAULT_MIN_ITEMS)


async def change_of(resources: Resources, given: Given | None, models: Sequence[str]) -> LimitChange:
    """The limits that a resumption gives anew: only those given; null takes one away.

    Raises:
        ProblemError: as for a new batch.
    """
    if given is None:
        return {}
    if given.max_cost_usd is not None:
        await _check_prices(resources, models)
    new = given.model_dump(exclude_unset=True)
    if new.get("max_cost_usd") is not None:
        new["max_cost_usd"] = money.nanos(new["max_cost_usd"])
    return {_FIELDS[name]: value for name, value in new.items()}


async def _check_prices(resources: Resources, models: Sequence[str]) -> None:
    reachable = _with_fallbacks(resources.settings, models)
    unknown = [alias for alias in reachable if not await prices_of(resources, alias)]
    if unknown:
        name = unknown[0]
        detail = (
            f"the price of the model {name!r} is not known, so what the batch costs could not be limited; set "
            f"input_cost_per_1k and output_cost_per_1k of [models.{name}] in the configuration"
        )
        mistake = {"param": "limits.max_cost_usd", "code": "invalid_request_body", "detail": detail}
        raise refusal("invalid_request_body", [mistake])


def _with_fallbacks(settings: Settings, models: Sequence[str]) -> list[str]:
    """Every model that jobs on these may come to run on."""
    found: list[str] = []
    waiting = list(models)
    while waiting:
        alias = waiting.pop(0)
        if alias not in found:
            found.append(alias)
            waiting += settings.models[alias].fallbacks if alias in settings.models else []
    return found
