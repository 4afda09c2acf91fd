"""Which models must have a price before a batch's cost can be limited."""

from __future__ import annotations

from api.batch_limits import _models
from dspy_jobs.settings import ModelSettings, ProgramSettings, Settings, VariantSettings


def test_every_model_a_batch_may_run_on_must_have_a_price() -> None:
    """Its own, those of the variants, and all their fallbacks, each once though they name one another."""
    fallbacks = {"a": ["b"], "b": ["a", "c"], "c": [], "d": ["a"], "e": []}
    models = {name: ModelSettings(model="openai/x", fallbacks=others) for name, others in fallbacks.items()}
    arms = {"one": VariantSettings(), "two": VariantSettings(model="d")}
    settings = Settings(
        models=models, default_model="a", programs={"qa": ProgramSettings(signature="q -> a", variants=arms)}
    )
    assert _models(settings, "qa", "a") == ["a", "d", "b", "c"]
    assert _models(settings, "other", "e") == ["e"]
