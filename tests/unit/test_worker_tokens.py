"""Tokens of a call, as reported in every provider's way of counting, or counted here."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from dspy.lm15 import Config, FunctionTool, ImagePart, Message, Request, Response, TextPart, ToolCallPart, Usage

from tests.conftest import ROOT
from worker import tokens as tokens_module
from worker.tokens import MOST_ENCODED, MOST_TOKENS, Tokens, estimated, reported, tokens_of, verbatim

TEN_WORDS = "one two three four five six seven eight nine ten"


def ask(text: str = TEN_WORDS, model: str = "openai/gpt-4o", **more: Any) -> Request:
    """A request of one message."""
    return Request(model=model, messages=(Message.user(text),), **more)


def answer(*parts: Any, **usage: int) -> Response:
    """An answer with that usage."""
    given = parts or (TextPart("yes"),)
    return Response(
        id=None,
        model="m",
        message=Message(role="assistant", parts=given),
        finish_reason="stop",
        usage=Usage(**usage),
    )


@pytest.mark.parametrize(
    ("provider", "usage", "expected"),
    [
        ("openai", {"input_tokens": 10, "output_tokens": 5}, Tokens(10, 5)),
        ("openai", {"input_tokens": 10, "output_tokens": 0}, Tokens(10, 0)),
        (
            "openai",
            {"input_tokens": 10, "output_tokens": 5, "cache_read_tokens": 4, "reasoning_tokens": 3},
            Tokens(10, 5, cached=4, reasoning=3),
        ),
        (
            "openai-chat",
            {"input_tokens": 10, "output_tokens": 5, "input_audio_tokens": 6, "output_audio_tokens": 2},
            Tokens(10, 5, input_audio=6, output_audio=2),
        ),
        (
            "anthropic",
            {"input_tokens": 10, "output_tokens": 5, "cache_read_tokens": 40, "cache_write_tokens": 7},
            Tokens(57, 5, cached=40, written=7),
        ),
        ("gemini", {"input_tokens": 10, "output_tokens": 5, "reasoning_tokens": 30}, Tokens(10, 35, reasoning=30)),
        ("xai", {"input_tokens": 10, "output_tokens": 5, "cache_read_tokens": 4}, Tokens(10, 5, cached=4)),
        ("openai", {"input_tokens": 10, "output_tokens": 5, "reasoning_tokens": 30}, Tokens(10, 5, adds_up=False)),
        ("openai", {"input_tokens": 10, "output_tokens": 5, "cache_read_tokens": 11}, Tokens(10, 5, adds_up=False)),
        ("openai", {}, None),
        ("openai", {"input_tokens": 10}, None),
        ("openai", {"input_tokens": 0, "output_tokens": 0}, None),
        ("openai", {"input_tokens": 2**63, "output_tokens": 1}, None),
        ("openai", {"input_tokens": 1, "output_tokens": MOST_TOKENS + 1}, None),
        ("anthropic", {"input_tokens": 1, "output_tokens": 1, "cache_read_tokens": 2**63}, None),
    ],
)
def test_what_a_provider_reports(provider: str, usage: dict[str, int], expected: Tokens | None) -> None:
    """Every way of counting becomes the same one; what cannot be is no report."""
    assert reported(Usage(**usage), provider) == expected


@pytest.mark.parametrize("provider", ["openai", "anthropic", "gemini"])
def test_a_report_can_be_told_in_the_providers_own_way_again(provider: str) -> None:
    """Cost code that expects a provider's way of counting gets what the provider said."""
    usage = Usage(input_tokens=100, output_tokens=50, cache_read_tokens=30, cache_write_tokens=5, reasoning_tokens=20)
    tokens = reported(usage, provider)
    assert tokens is not None
    assert verbatim(tokens, provider) == usage


def test_ten_words_are_about_ten_tokens() -> None:
    """Prompt and answer are counted with what OpenAI adds around them, and marked."""
    assert estimated(ask(), answer(TextPart(TEN_WORDS))) == Tokens(10 + 4 + 3, 10, is_estimated=True)


@pytest.mark.parametrize(
    ("model", "table"),
    [
        ("openai/gpt-4o-mini", "o200k_base"),
        ("openai/gpt-4.1-mini", "o200k_base"),
        ("azure/gpt-5", "o200k_base"),
        ("openai/o3-mini", "o200k_base"),
        ("openai/gpt-oss-120b", "o200k_base"),
        ("openai/gpt-4", "cl100k_base"),
        ("anthropic/claude-sonnet-4-5", "cl100k_base"),
        ("openai/sandbox;latency=1", "cl100k_base"),
        ("davinci", "cl100k_base"),
    ],
)
def test_a_models_table(model: str, table: str) -> None:
    """OpenAI's newer models have a table of their own."""
    assert tokens_module._table_for(model) == table


def test_everything_that_is_sent_counts() -> None:
    """The system's words, tools, and the shape asked for are part of the prompt; tool calls are part of the answer."""
    tool = FunctionTool(name="look", description=TEN_WORDS, parameters={"type": "object", "properties": {}})
    plain = estimated(ask(), answer())
    for request in (
        ask(system=TEN_WORDS),
        ask(system=(TextPart(TEN_WORDS),)),
        ask(tools=(tool,)),
        ask(config=Config(response_format={"type": "json_schema", "schema": {"title": TEN_WORDS}})),
    ):
        assert estimated(request, answer()).input > plain.input + 9  # type: ignore[operator]
    called = answer(ToolCallPart(id="1", name="look", input={"at": TEN_WORDS}))
    assert estimated(ask(), called).output > 10  # type: ignore[operator]


def test_media_are_not_counted_as_nothing() -> None:
    """How many tokens an image costs is not known here, in a prompt or an answer."""
    image = ImagePart(url="https://example.org/x.png")
    prompt = Request(model="openai/gpt-4o", messages=(Message.user([TextPart(TEN_WORDS), image]),))
    assert estimated(prompt, answer(TextPart(TEN_WORDS))) == Tokens(None, 10, is_estimated=True)
    assert estimated(ask(), answer(image)).output is None


@pytest.mark.parametrize("text", ["<|endoftext|>", "\ud800 ", "\x00", "漢" * 1000, ""])
def test_any_text_can_be_counted(text: str) -> None:
    """What looks like a control token, or is no Unicode, is text."""
    assert estimated(Request(model="m", messages=(Message.user([TextPart(text)]),)), answer()).input is not None


def test_a_very_long_text_is_counted_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a long text pieces from all over it are encoded, and the count is near the true one."""
    english, digits = "The quick brown fox jumps over the lazy dog. " * 20_000, "8675309 " * 100_000
    text = english + digits
    truth = estimated_whole(text, monkeypatch)
    encoded: list[int] = []
    encoding = tokens_module._encoding("o200k_base")
    assert encoding is not None
    spy = _Spy(encoding, encoded)
    monkeypatch.setattr(tokens_module, "_encoding", lambda _: spy)
    assert estimated(ask(text), answer()).input == pytest.approx(truth, rel=0.1)
    assert sum(encoded) <= MOST_ENCODED + len("yes")


def estimated_whole(text: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """The count without a bound."""
    with monkeypatch.context() as unbounded:
        unbounded.setattr(tokens_module, "MOST_ENCODED", 10**9)
        found = estimated(ask(text), answer()).input
    assert found is not None
    return found


class _Spy:
    """An encoding that notes how much it is given."""

    def __init__(self, encoding: Any, encoded: list[int]) -> None:
        self._encoding = encoding
        self._encoded = encoded

    def encode_ordinary(self, text: str) -> Any:
        """Encode and note."""
        self._encoded.append(len(text))
        return self._encoding.encode_ordinary(text)


def test_a_report_goes_before_a_count() -> None:
    """The provider's word counts where there is one."""
    assert tokens_of(ask(), answer(input_tokens=3, output_tokens=2), "openai") == Tokens(3, 2)
    assert tokens_of(ask(), answer(), "openai").is_estimated


def test_without_a_table_tokens_are_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is fetched and nothing is guessed where the tables are not on the machine."""
    monkeypatch.setattr(tokens_module, "TOKENIZER_TABLES", tmp_path)
    monkeypatch.setattr("tiktoken.load.read_file", _no_network)
    tokens_module._load.cache_clear()
    try:
        assert estimated(ask(), answer()) == Tokens(is_estimated=True)
    finally:
        tokens_module._load.cache_clear()


def test_a_table_is_loaded_once_and_from_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that need it at the same moment share one, which costs tens of MiB; the network is not asked."""
    monkeypatch.setattr("tiktoken.load.read_file", _no_network)
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(tokens_module._encoding("o200k_base"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(id, found))) == 1
    assert found[0] is not None


def _no_network(address: str) -> bytes:
    raise AssertionError(f"{address} must not be fetched")


@pytest.mark.parametrize("variable", ["TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR"])
def test_an_operators_own_tables_are_respected(variable: str, tmp_path: Path) -> None:
    """Whoever names a folder for tiktoken's tables gets that one."""
    code = "import os, worker; print(worker.TOKENIZER_TABLES, os.environ.get('TIKTOKEN_CACHE_DIR'))"
    environ = {key: value for key, value in os.environ.items() if key != "TIKTOKEN_CACHE_DIR"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, check=True, cwd=ROOT, env={**environ, variable: str(tmp_path)},
    )  # fmt: skip
    kept = str(tmp_path) if variable == "TIKTOKEN_CACHE_DIR" else "None"
    assert done.stdout.split() == [str(tmp_path), kept]


def test_the_tables_are_found_without_loading_litellm() -> None:
    """Counting costs the table's memory, not that of litellm besides."""
    code = (
        "import sys; from worker.tokens import _encoding; found = _encoding('cl100k_base'); "
        "print(found is not None, 'litellm' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == ["True", "False"]
