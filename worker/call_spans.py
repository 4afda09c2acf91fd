"""Spans of model calls that are made, by OpenTelemetry's conventions for generative AI: no prompts, no answers."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from dspy._vendor.lm15.registry import lookup
from dspy.lm15 import Request, Response

from dspy_jobs import telemetry
from dspy_jobs.money import dollars
from dspy_jobs.settings import ModelSettings
from dspy_jobs.telemetry import NO_SPAN, Attributes, Span
from worker.tokens import Tokens

#: The conventions' names of providers, by the first word of the engine's, where they differ.
_PROVIDERS = {
    "aws": "aws.bedrock",
    "azure": "azure.ai.openai",
    "bedrock": "aws.bedrock",
    "claude": "anthropic",
    "gemini": "gcp.gemini",
    "vertex": "gcp.vertex_ai",
    "xai": "x_ai",
}
#: Hosts of providers that the native engine's table leaves to its dialects.
_HOSTS = {
    "anthropic": "https://api.anthropic.com",
    "gemini": "https://generativelanguage.googleapis.com",
    "openai": "https://api.openai.com",
}


@dataclass(frozen=True, slots=True)
class Destination:
    """Where calls of a configured model go, as spans tell it."""

    model: str
    """Its name in the configuration."""
    provider: str
    host: str | None
    port: int | None

    @classmethod
    def of(cls, model: str, settings: ModelSettings, provider: str) -> Destination:
        """Of a configured model, whose provider the engine calls so."""
        known = lookup(provider)
        address = urlsplit(settings.base_url or (known and known.base_url) or _HOSTS.get(provider, ""))
        port = address.port or {"http": 80, "https": 443}.get(address.scheme)
        first = provider.partition("-")[0]
        return cls(model, _PROVIDERS.get(first, first), address.hostname, port)

    def call(self, request: Request, attempt: Span) -> Span:
        """The span of a model call of an attempt."""
        if not telemetry.is_on():
            return NO_SPAN
        config, model = request.config, self._asked(request)
        attributes: Attributes = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": self.provider,
            "gen_ai.request.model": model,
            "gen_ai.request.max_tokens": config.max_tokens,
            "gen_ai.request.seed": config.seed,
            "gen_ai.request.temperature": config.temperature,
            "gen_ai.request.top_p": config.top_p,
            "server.address": self.host,
            "server.port": self.port,
            "dspy_jobs.model": self.model,
        }
        return telemetry.span(f"chat {model}", "client", attributes, within=attempt)

    def replayed(self, request: Request, attempt: Span) -> None:
        """Say that a call was answered from what an earlier attempt had paid for."""
        if telemetry.is_on():
            attributes = {"gen_ai.request.model": self._asked(request), "dspy_jobs.model": self.model}
            attempt.event("dspy_jobs.call_replayed", attributes)

    @staticmethod
    def _asked(request: Request) -> str:
        """The provider's name of the model; the engine's begins with that of the provider."""
        return request.model.partition("/")[2] or request.model


def call_answered(span: Span, response: Response, tokens: Tokens, cost_nanos: int | None) -> None:
    """Say what a model call used."""
    if not telemetry.is_on():
        return
    span.set(
        {
            "gen_ai.response.finish_reasons": [response.finish_reason],
            "gen_ai.response.id": response.id,
            "gen_ai.response.model": response.model,
            "gen_ai.usage.cache_read.input_tokens": tokens.cached,
            "gen_ai.usage.input_tokens": tokens.input,
            "gen_ai.usage.output_tokens": tokens.output,
            "gen_ai.usage.reasoning.output_tokens": tokens.reasoning,
            "dspy_jobs.cost_usd": dollars(cost_nanos),
        }
    )
