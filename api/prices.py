"""What is known of a model's prices: the configuration's, else what workers found in DSPy's table."""

from __future__ import annotations

from typing import cast

import orjson

from api.resources import Resources
from dspy_jobs import names
from dspy_jobs.estimates import Prices


async def prices_of(resources: Resources, model: str) -> Prices | None:
    """The model's prices; None where nobody knows them."""
    configured = resources.settings.models.get(model)
    if configured and configured.input_cost_per_1k is not None and configured.output_cost_per_1k is not None:
        return Prices(configured.input_cost_per_1k, configured.output_cost_per_1k)
    said = cast("bytes | None", await resources.store.redis.hget(names.MODELS, model))
    found = orjson.loads(said) if said else {}
    price_in, price_out = found.get("input_cost_per_1k"), found.get("output_cost_per_1k")
    return None if price_in is None or price_out is None else Prices(price_in, price_out)
