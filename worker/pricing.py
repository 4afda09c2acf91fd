"""What a call costs, in whole nano-dollars: by the configured prices, else by DSPy's own table.

None is unknown, which is not zero: where a dimension of the bill has no known price, the whole bill has none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from decimal import ROUND_HALF_EVEN, Context, Decimal

import structlog
from dspy.clients.costs import estimate_cost
from dspy.clients.engines.lm15_engine import LM15Engine
from dspy.clients.model_metadata import model_info, rate
from dspy.lm15 import BuiltinTool, Request, Response, RouterConfig

from dspy_jobs.settings import ConfigurationError, ModelSettings
from worker.tokens import Tokens, has_media, verbatim

log = structlog.get_logger("worker")

#: Answers the nano-dollars of a call, or None.
Pricing = Callable[[Request, Response, Tokens], int | None]

#: No call costs a million dollars; a larger sum is a mistake, and sums of it would not fit 64 bits.
MOST_NANOS = 10**15

#: Wide enough that nothing is rounded before the end: 10 digits of tokens times 17 of a price, and their sum.
_EXACT = Context(prec=60, rounding=ROUND_HALF_EVEN)
_NANOS_IN_A_DOLLAR = Decimal(10**9)
#: US dollars per 1000 tokens as nano-dollars per token.
_NANOS_PER_TOKEN = Decimal(10**6)


def pricing_of(settings: ModelSettings) -> Pricing:
    """How calls of this model are priced.

    DSPy's table is for providers' own addresses: who runs a server elsewhere sets the price, or there is none.
    """
    if settings.input_cost_per_1k is not None:
        return _configured(settings)
    if settings.base_url is not None:
        return lambda *_: None
    return _from_table(*route_of(settings))


def route_of(settings: ModelSettings) -> tuple[str, str]:
    """Provider and model id of a configured model.

    Raises:
        ConfigurationError: the native engine has no such provider; the message is its own.
    """
    try:
        resolution = LM15Engine(RouterConfig(env={})).resolve(settings.model)
    except Exception as error:  # noqa: BLE001  # lm15 refuses a model id in several ways; all mean the same mistake
        if settings.engine == "lm15":
            raise ConfigurationError(str(error)) from None
        provider, _, model = settings.model.partition("/")
        return provider, model
    return resolution.provider, resolution.model


def prices_per_1k(models: Mapping[str, ModelSettings]) -> dict[str, dict[str, float]]:
    """What is known beforehand of each model's prices: US dollars per 1000 tokens of ordinary input and output."""
    known = {name: _prices(settings) for name, settings in models.items()}
    return {name: prices for name, prices in known.items() if prices is not None}


def _prices(settings: ModelSettings) -> dict[str, float] | None:
    price_in, price_out = settings.input_cost_per_1k, settings.output_cost_per_1k
    if price_in is None and settings.base_url is None:
        info = model_info(*route_of(settings))
        price_in, price_out = (_per_1k(rate(info, f"{way}_cost_per_token")) for way in ("input", "output"))
    if price_in is None or price_out is None:
        return None
    return {"input_cost_per_1k": price_in, "output_cost_per_1k": price_out}


def _per_1k(per_token: float | None) -> float | None:
    return None if per_token is None else float(_decimal(per_token) * 1000)


def _decimal(price: float) -> Decimal:
    """The price as it was written, not as binary has it."""
    return Decimal(repr(price))


def _configured(settings: ModelSettings) -> Pricing:
    price_in, price_out = settings.input_cost_per_1k, settings.output_cost_per_1k
    assert price_in is not None and price_out is not None, "settings demand them in pairs"  # noqa: PT018
    cached, reasoning = settings.cached_input_cost_per_1k, settings.reasoning_cost_per_1k
    per_input, per_output = _decimal(price_in), _decimal(price_out)
    per_cached = per_input if cached is None else _decimal(cached)
    per_reasoning = per_output if reasoning is None else _decimal(reasoning)

    def price(request: Request, response: Response, tokens: Tokens) -> int | None:
        if (
            tokens.input is None
            or tokens.output is None
            or not tokens.adds_up
            or _has_unpriced(request, response, tokens)
        ):
            return None
        of_cache, of_reasoning = tokens.cached or 0, tokens.reasoning or 0
        dimensions = (
            (tokens.input - of_cache, per_input),
            (of_cache, per_cached),
            (tokens.output - of_reasoning, per_output),
            (of_reasoning, per_reasoning),
        )
        total = Decimal(0)
        for count, per_1k in dimensions:
            total = _EXACT.fma(Decimal(count), per_1k, total)
        return _whole(_EXACT.multiply(total, _NANOS_PER_TOKEN))

    return price


def _has_unpriced(request: Request, response: Response, tokens: Tokens) -> bool:
    """Whether the provider bills something for which the configuration has no price: audio, images made, its tools."""
    has_tools = any(isinstance(tool, BuiltinTool) for tool in request.tools)
    return bool(tokens.input_audio or tokens.output_audio) or has_tools or has_media(response.message.parts)


def _from_table(provider: str, model: str) -> Pricing:
    def price(request: Request, response: Response, tokens: Tokens) -> int | None:
        if not tokens.adds_up:
            return None
        counted = replace(response, usage=verbatim(tokens, provider))
        dollars, _ = estimate_cost(counted, provider=provider, requested_model=model, request=request)
        return None if dollars is None else _whole(_EXACT.multiply(_decimal(dollars), _NANOS_IN_A_DOLLAR))

    return price


def _whole(nanos: Decimal) -> int | None:
    rounded = int(nanos.to_integral_value(context=_EXACT))
    if rounded <= MOST_NANOS:
        return rounded
    log.warning("cost_cannot_be", nanos=rounded)
    return None
