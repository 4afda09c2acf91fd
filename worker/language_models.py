"""The configured language models as `dspy.LM`s over the guarded engine, by their short names."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import dspy
from dspy.clients.capabilities import Capabilities, capabilities
from dspy.clients.engines.litellm_engine import LiteLLMEngine
from dspy.clients.engines.lm15_engine import LM15Engine
from dspy.lm15 import RouterConfig, Timeouts
from limits.storage import Storage

from dspy_jobs.settings import ConfigurationError, ModelSettings, Settings, secret
from worker.call_keys import CallHeaders, with_headers
from worker.call_spans import Destination
from worker.circuit import Circuit, Circuits
from worker.engine import Engine, GuardedEngine, Watched
from worker.pricing import pricing_of, route_of
from worker.rates import ProviderRates
from worker.steps import LM

#: Sent to servers of one's own that ask for no key; OpenAI's dialect always carries one.
_NO_KEY = "none"

#: The provider whose way of counting tokens is the common one.
_OPENAI = "openai"


class LanguageModels:
    """Every configured model, ready to call."""

    def __init__(
        self,
        settings: Settings,
        circuits: Circuits,
        rates: Storage,
        watched: Callable[[str], Watched] = lambda _: nullcontext,
    ) -> None:
        """Builds all of them, without a call to any provider. `watched` answers what a model's calls run within.

        Raises:
            ConfigurationError: a model id names no provider the engine knows.
        """
        connections = settings.worker.concurrency
        self._models = {
            name: _language_model(name, model, connections, circuits[name], _rates(name, model, rates), watched(name))
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
    name: str,
    settings: ModelSettings,
    connections: int,
    circuit: Circuit,
    rates: ProviderRates | None,
    watched: Watched,
) -> dspy.LM:
    try:
        provider, _ = route_of(settings)
    except ConfigurationError as error:
        raise ConfigurationError(f"models.{name}.model: {error}") from None
    engine = GuardedEngine(
        _engine_maker(settings, provider, connections),
        settings.timeout_seconds,
        # LiteLLM translates every provider's usage into OpenAI's way of counting.
        _OPENAI if settings.engine == "litellm" else provider,
        pricing_of(settings),
        f"{name} {settings.model} {settings.base_url or ''}",
        Destination.of(name, settings, provider),
        CallHeaders(settings.idempotency_header, settings.trace_context),
        _capabilities(settings),
        circuit,
        rates,
        watched,
    )
    return LM(settings.model, engine=engine, cache=False, num_retries=0, **settings.parameters)


def _engine_maker(settings: ModelSettings, provider: str, connections: int) -> Callable[[float], Engine]:
    key = secret(settings.api_key_env) if settings.api_key_env else None
    if key is None and settings.base_url is not None:
        key = _NO_KEY
    if settings.engine == "litellm":
        options = {"api_key": key, "api_base": settings.base_url}
        given = {name: value for name, value in options.items() if value is not None}
        return lambda timeout: LiteLLMEngine(timeout=timeout, **given)

    def make(timeout: float) -> Engine:
        config = RouterConfig(
            api_keys={provider: key} if key else None,
            base_urls={provider: settings.base_url} if settings.base_url else None,
            timeouts=Timeouts(read=timeout, write=timeout, pool=timeout),
            max_connections=connections,
        )
        has_headers = settings.idempotency_header or settings.trace_context
        return LM15Engine(with_headers(config) if has_headers else config)

    return make


def _capabilities(settings: ModelSettings) -> Capabilities:
    """What DSPy's catalogue says of the model; a custom engine must declare it itself."""
    if settings.engine == "litellm":
        return Capabilities()
    return capabilities(dspy.LM(settings.model, engine="lm15", cache=False))
