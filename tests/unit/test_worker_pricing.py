"""What a call costs, by the configured prices and by DSPy's table."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from dspy.lm15 import BuiltinTool, Usage
from hypothesis import given
from hypothesis import strategies as st

from dspy_jobs.settings import ConfigurationError, ModelSettings
from tests.unit.test_worker_tokens import answer, ask
from worker.pricing import prices_per_1k, pricing_of
from worker.tokens import Tokens, reported

ORDINARY = {"input_cost_per_1k": 0.15, "output_cost_per_1k": 0.6}
DETAILED = {**ORDINARY, "cached_input_cost_per_1k": 0.075, "reasoning_cost_per_1k": 1.2}


def settings(model: str = "openai/sandbox", **more: Any) -> ModelSettings:
    """A model's settings."""
    return ModelSettings(model=model, **more)


@pytest.mark.parametrize(
    ("prices", "tokens", "nanos"),
    [
        (ORDINARY, Tokens(1000, 1000), 750_000_000),
        (ORDINARY, Tokens(1, 0), 150_000),
        (ORDINARY, Tokens(10, 10, cached=4, reasoning=5), 7_500_000),
        (DETAILED, Tokens(10, 10, cached=4, reasoning=5), 6 * 150_000 + 4 * 75_000 + 5 * 600_000 + 5 * 1_200_000),
        ({"input_cost_per_1k": 0, "output_cost_per_1k": 0}, Tokens(10, 10), 0),
        ({**ORDINARY, "cached_input_cost_per_1k": 0}, Tokens(10, 0, cached=10), 0),
        # Half a nano-dollar goes to the even neighbour, once a call.
        ({"input_cost_per_1k": 5e-7, "output_cost_per_1k": 0}, Tokens(1, 0), 0),
        ({"input_cost_per_1k": 5e-7, "output_cost_per_1k": 0}, Tokens(3, 0), 2),
        ({"input_cost_per_1k": 5e-7, "output_cost_per_1k": 1e-6}, Tokens(1, 1), 2),
        (ORDINARY, Tokens(10, 10, is_estimated=True), 7_500_000),
        (ORDINARY, Tokens(None, 10), None),
        (ORDINARY, Tokens(10, None), None),
        (ORDINARY, Tokens(10, 10, adds_up=False), None),
        (ORDINARY, Tokens(10, 10, input_audio=1), None),
        (ORDINARY, Tokens(10, 10, input_audio=0), 7_500_000),
        ({"input_cost_per_1k": 1e6, "output_cost_per_1k": 0}, Tokens(10**9, 0), None),
        ({}, Tokens(10, 10), None),
    ],
)
def test_configured_prices(prices: dict[str, float], tokens: Tokens, nanos: int | None) -> None:
    """Each dimension has its price; what has none leaves the whole bill unknown."""
    priced = pricing_of(settings(base_url="http://localhost/v1", **prices))
    assert priced(ask(), answer(), tokens) == nanos


def test_a_providers_tools_have_no_configured_price() -> None:
    """What the provider bills besides tokens is not known."""
    priced = pricing_of(settings(**ORDINARY))
    assert priced(ask(tools=(BuiltinTool(name="web_search"),)), answer(), Tokens(10, 10)) is None


@given(st.lists(st.tuples(st.integers(1, 10**6), st.integers(0, 10**6)), max_size=20))
def test_no_sum_of_calls_drifts(calls: list[tuple[int, int]]) -> None:
    """Calls whose price is whole nano-dollars cost together exactly what all their tokens cost."""
    priced = pricing_of(settings(input_cost_per_1k=0.1, output_cost_per_1k=0.7))
    total = sum(priced(ask(), answer(), Tokens(*call)) or 0 for call in calls)
    assert total == sum(inputs * 100_000 + outputs * 700_000 for inputs, outputs in calls)


#: Prices of DSPy's table at the release this was written against, in nano-dollars a token.
_GPT_4O_MINI = {"input": 150, "output": 600, "cached": 75}


@pytest.mark.parametrize(
    ("tokens", "nanos"),
    [
        (Tokens(1000, 100), 1000 * 150 + 100 * 600),
        (Tokens(1000, 100, cached=400), 600 * 150 + 400 * 75 + 100 * 600),
        (Tokens(1000, 100, reasoning=30), 1000 * 150 + 100 * 600),
        (Tokens(1000, 100, is_estimated=True), 1000 * 150 + 100 * 600),
        (Tokens(None, 100), None),
        (Tokens(1000, 100, adds_up=False), None),
    ],
)
def test_dspys_table(tokens: Tokens, nanos: int | None) -> None:
    """Without a configured price DSPy's own cost code decides, also on tokens that were counted here."""
    priced = pricing_of(settings("openai/gpt-4o-mini"))
    assert priced(ask(), replace(answer(), model="gpt-4o-mini-2024-07-18"), tokens) == nanos


def test_the_table_is_asked_in_the_providers_own_way() -> None:
    """Anthropic's cache counters stand beside its input: neither counted twice nor left out."""
    usage = Usage(input_tokens=1000, output_tokens=100, cache_read_tokens=5000, cache_write_tokens=200)
    tokens = reported(usage, "anthropic")
    assert tokens is not None
    model = "claude-sonnet-4-5-20250929"
    priced = pricing_of(settings(f"anthropic/{model}"))(ask(), replace(answer(), model=model), tokens)
    assert priced == 1000 * 3000 + 100 * 15_000 + 5000 * 300 + 200 * 3750


def test_an_unknown_model_has_no_price() -> None:
    """Neither a model that is not in the table nor one behind an address of the operator's own."""
    assert pricing_of(settings("openai/no-such-model"))(ask(), answer(), Tokens(10, 10)) is None
    own = settings("openai/gpt-4o-mini", base_url="http://localhost/v1")
    assert pricing_of(own)(ask(), replace(answer(), model="gpt-4o-mini"), Tokens(10, 10)) is None


def test_prices_known_beforehand() -> None:
    """Configured prices, else the table's, and nothing where neither knows."""
    models = {
        "own": settings(base_url="http://localhost/v1", **DETAILED),
        "mini": settings("openai/gpt-4o-mini"),
        "unknown": settings("openai/no-such-model"),
        "elsewhere": settings("openai/gpt-4o-mini", base_url="http://localhost/v1"),
    }
    assert prices_per_1k(models) == {
        "own": ORDINARY,
        "mini": {"input_cost_per_1k": 0.00015, "output_cost_per_1k": 0.0006},
    }


@pytest.mark.parametrize("price", [float("inf"), float("nan"), -1.0])
def test_a_price_is_a_number(price: float) -> None:
    """What cannot be multiplied is refused when the configuration is read."""
    with pytest.raises(ValueError, match="input_cost_per_1k"):
        settings(input_cost_per_1k=price, output_cost_per_1k=0)


def test_a_provider_that_the_engine_does_not_have() -> None:
    """A wrong model id is a mistake of the configuration."""
    with pytest.raises(ConfigurationError):
        pricing_of(settings("nonsense/model"))
