"""The configured language models as `dspy.LM`s over the guarded engine, by their short names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dspy
from dspy.clients.capabilities import Capabilities, capabilities
from dspy.clients.costs import estimate_cost
from dspy.clients.engines.litellm_engine import LiteLLMEngine
from dspy.clients.engines.lm15_engine import LM15Engine
from dspy.lm15 import Request, Response, RouterConfig, Timeouts
from limits.storage import Storage

from dspy_jobs.settings import ConfigurationError, ModelSettings, Settings, secret
from worker.circuit import Circuit, Circuits
from worker.engine import Engine, GuardedEngine
from worker.rates import ProviderRates

#: Sent to servers of one's own that ask for no key; OpenAI's dialect always carries one.
_NO_KEY = "none"

#: Model families of DSPy adapters by the names the configuration uses.
ADAPTERS: dict[str, type[dspy.Adapter]] = {
    "chat": dspy.ChatAdapter,
    "json": dspy.JSONAdapter,
    "xml": dspy.XMLAdapter,
}


class LanguageModels:
    """Every configured model, ready to call."""

    def __init__(self, settings: Settings, circuits: Circuits, rates: Storage) -> None:
        """Builds all of them, without a call to any provider.

        Raises:
            ConfigurationError: a model id names no provider the engine knows.
        """
        connections = settings.worker.concurrency
        self._models = {
            name: _language_model(name, model, connections, circuits[name], _rates(name, model, rates))
            for name, model in settings.models.items()
        }

    def get(self, name: str, parameters: dict[str, Any] | None = None) -> dspy.LM:
        """The model of that name, with a job's own sampling parameters if it has any.

        Raises:
            KeyError: there is no such model.
        """
        model = self._models[name]
        return model.copy(**parameters) if parameters else model


def _rates(name: str, settings: ModelSettings, storage: Storage) -> ProviderRates | None:
    limited = settings.requests_per_minute or settings.tokens_per_minute
    return ProviderRates(name, settings, storage) if limited else None


def _language_model(
    name: str, settings: ModelSettings, connections: int, circuit: Circuit, rates: ProviderRates | None
) -> dspy.LM:
    try:
        provider = LM15Engine(RouterConfig(env={})).resolve(settings.model).provider
    except Exception as error:  # noqa: BLE001  # lm15 refuses a model id in several ways; all mean the same mistake
        if settings.engine == "lm15":
            raise ConfigurationError(f"models.{name}.model: {error}") from None
        provider = settings.model.partition("/")[0]
    engine = GuardedEngine(
        _engine_maker(settings, provider, connections),
        settings.timeout_seconds,
        _pricing(settings, provider),
        _capabilities(settings),
        circuit,
        rates,
    )
    return dspy.LM(settings.model, engine=engine, cache=False, num_retries=0, **settings.parameters)


def _engine_maker(settings: ModelSettings, provider: str, connections: int) -> Callable[[float], Engine]:
    key = secret(settings.api_key_env) if settings.api_key_env else None
    if key is None and settings.base_url is not None:
        key = _NO_KEY
    if settings.engine == "litellm":
        options = {"api_key": key, "api_base": settings.base_url}
        given = {name: value for name, value in options.items() if value is not None}
        return lambda timeout: LiteLLMEngine(timeout=timeout, **given)

    def make(timeout: float) -> Engine:
        return LM15Engine(
            RouterConfig(
                api_keys={provider: key} if key else None,
                base_urls={provider: settings.base_url} if settings.base_url else None,
                timeouts=Timeouts(read=timeout, write=timeout, pool=timeout),
                max_connections=connections,
            )
        )

    return make


def _capabilities(settings: ModelSettings) -> Capabilities:
    """What DSPy's catalogue says of the model; a custom engine must declare it itself."""
    if settings.engine == "litellm":
        return Capabilities()
    return capabilities(dspy.LM(settings.model, engine="lm15", cache=False))


def _pricing(settings: ModelSettings, provider: str) -> Callable[[Request, Response], float | None]:
    """US dollars of an answered call: the configured price, else DSPy's own table; None where unknown."""
    price_in, price_out = settings.input_cost_per_1k, settings.output_cost_per_1k

    def configured(_: Request, response: Response) -> float | None:
        usage = response.usage
        if price_in is None or price_out is None or usage.input_tokens is None or usage.output_tokens is None:
            return None
        return (usage.input_tokens * price_in + usage.output_tokens * price_out) / 1000

    def from_table(request: Request, response: Response) -> float | None:
        cost, _ = estimate_cost(response, provider=provider, requested_model=request.model, request=request)
        return None if cost is None else float(cost)

    return from_table if price_in is None and settings.base_url is None else configured
