"""Which models must have a price before a batch's cost can be limited."""

from __future__ import annotations

from api.batch_limits import _with_fallbacks
from dspy_jobs.settings import ModelSettings, Settings


def test_every_model_a_batch_may_run_on_must_have_a_price() -> None:
    """Those its jobs are sent to and all their fallbacks, each once though they name one another."""
    fallbacks = {"a": ["b"], "b": ["a", "c"], "c": [], "d": ["a"], "e": []}
    models = {name: ModelSettings(model="openai/x", fallbacks=others) for name, others in fallbacks.items()}
    settings = Settings(models=models, default_model="a")
    assert _with_fallbacks(settings, ["a", "d"]) == ["a", "d", "b", "c"]
    assert _with_fallbacks(settings, ["e"]) == ["e"]
    assert _with_fallbacks(settings, ["gone"]) == ["gone"]
