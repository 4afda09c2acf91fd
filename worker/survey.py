"""`python -m worker.survey`: what a worker with this configuration would run, as JSON, for `dspy-jobs doctor`.

Without Redis, without any call, and without telling a key: only whether there is one, and where it is looked for. Exits
2 with the mistakes on standard error if the configuration is wrong.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from dspy._vendor.lm15.doctor import explain_auth
from dspy.lm15 import LM15Error, LMRouter, RouterConfig

from dspy_jobs.settings import ConfigurationError, ModelSettings, load_settings, secret
from worker.pricing import route_of
from worker.programs import load_programs


def main() -> int:
    """Survey the configuration that the environment names."""
    try:
        settings = load_settings()
        programs = {name: program.description for name, program in load_programs(settings).items()}
        models = {name: survey_of_model(model) for name, model in settings.models.items()}
    except ConfigurationError as mistakes:
        print(mistakes, file=sys.stderr)
        return 2
    versions = {
        name: {"version": p.version, "variants": {arm: variant.version for arm, variant in p.variants.items()}}
        for name, p in programs.items()
    }
    print(json.dumps({"programs": versions, "models": models}))
    return 0


def survey_of_model(settings: ModelSettings) -> dict[str, Any]:
    """A model's provider and address, whether there is a key for it, and the variables in which one may be.

    `has_key` is None where nobody here can tell, as for LiteLLM's providers; servers of one's own may need none.

    Raises:
        ConfigurationError: the native engine has no such provider, or a key's file cannot be read.
    """
    provider, model = route_of(settings)
    own = secret(settings.api_key_env) if settings.api_key_env else None
    named = [settings.api_key_env] if settings.api_key_env else []
    if settings.engine == "litellm" or settings.base_url is not None:
        has_key: bool | None = own is not None if named else None
        return {"provider": provider, "address": settings.base_url, "has_key": has_key, "variables": named}
    report = explain_auth(provider, api_keys={provider: own} if own else None)
    usual = [step.kind.removeprefix("env:") for step in report.steps if step.kind.startswith("env:")]
    return {
        "provider": provider,
        "address": report.base_url or _usual_address(provider, model),
        "has_key": report.configured,
        "variables": [*named, *usual],
    }


def _usual_address(provider: str, model: str) -> str | None:
    """Where the provider is called; None where only a real key would tell."""
    try:
        language_model = LMRouter(RouterConfig(env={}, api_keys={provider: "none"})).lm(f"{provider}:{model}")
    except LM15Error:
        return None
    return getattr(language_model, "base_url", None)


if __name__ == "__main__":
    sys.exit(main())
