"""Tokens of a call: as the provider reports them, else as counted here, which is marked.

Providers count differently: Anthropic's cache counters stand beside its input tokens, Gemini's and xAI's output tokens
leave out reasoning. Here `input` is all input, `output` all output, and the other counts are parts of these two.
None is unknown, which is not zero.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import orjson
import structlog
from dspy._vendor.lm15.serde import tool_to_dict
from dspy.lm15 import Request, Response, Usage

from worker import TOKENIZER_TABLES

if TYPE_CHECKING:
    from tiktoken import Encoding

log = structlog.get_logger("worker")

#: No call uses more tokens than that; a larger count is a provider's mistake, and sums of it would not fit 64 bits.
MOST_TOKENS = 10**9

#: Providers whose input tokens leave out what their cache served or kept, as DSPy's cost code has them.
_CACHE_BESIDE_INPUT = frozenset(
    {"anthropic", "aws-anthropic", "bedrock-anthropic", "azure-anthropic", "vertex-anthropic", "deepseek-anthropic",
     "meta-anthropic", "moonshotai-anthropic"}
)  # fmt: skip
#: Providers whose output tokens leave out reasoning.
_REASONING_BESIDE_OUTPUT = frozenset({"gemini", "vertex", "vertex-express", "xai"})

#: OpenAI's counts around the text, from its cookbook: for each message, and for the start of the answer.
_A_MESSAGE = 4
_ANSWER_START = 3

#: Characters encoded of one prompt or answer (about 30 ms); of a longer one pieces are, and the rest in proportion.
MOST_ENCODED = 100_000
_PIECES = 10

_MEDIA = frozenset({"image", "audio", "video", "document", "binary"})


@dataclass(frozen=True, slots=True)
class Tokens:
    """One call's tokens."""

    input: int | None = None
    output: int | None = None
    cached: int | None = None
    """Of the input, what the provider had in its cache."""
    written: int | None = None
    """Of the input, what the provider put into its cache."""
    reasoning: int | None = None
    """Of the output."""
    input_audio: int | None = None
    output_audio: int | None = None
    is_estimated: bool = False
    """Whether they were counted here."""
    adds_up: bool = True
    """Whether the provider's parts fit into its whole; if not they are dropped, and what is billed cannot be told."""


def tokens_of(request: Request, response: Response, provider: str) -> Tokens:
    """A call's tokens. `provider` is whose way of counting its usage follows."""
    return reported(response.usage, provider) or estimated(request, response)


def reported(usage: Usage, provider: str) -> Tokens | None:
    """What the provider says, or None where it says nothing or what cannot be."""
    inputs, outputs = usage.input_tokens, usage.output_tokens
    if inputs is None or outputs is None:
        return None
    if provider in _CACHE_BESIDE_INPUT:
        inputs += (usage.cache_read_tokens or 0) + (usage.cache_write_tokens or 0)
    if provider in _REASONING_BESIDE_OUTPUT:
        outputs += usage.reasoning_tokens or 0
    # There is no call without a prompt; a gateway that does not count reports 0.
    if not 0 < inputs <= MOST_TOKENS or not 0 <= outputs <= MOST_TOKENS:
        return None
    tokens = Tokens(
        inputs, outputs, usage.cache_read_tokens, usage.cache_write_tokens, usage.reasoning_tokens,
        usage.input_audio_tokens, usage.output_audio_tokens,
    )  # fmt: skip
    return tokens if _fits(tokens) else Tokens(inputs, outputs, adds_up=False)


def _fits(tokens: Tokens) -> bool:
    of_input = (tokens.cached or 0) + (tokens.written or 0) + (tokens.input_audio or 0)
    of_output = (tokens.reasoning or 0) + (tokens.output_audio or 0)
    return of_input <= (tokens.input or 0) and of_output <= (tokens.output or 0)


def verbatim(tokens: Tokens, provider: str) -> Usage:
    """The usage as that provider would have reported it, for code that expects its way of counting."""
    inputs, outputs = tokens.input, tokens.output
    if inputs is not None and provider in _CACHE_BESIDE_INPUT:
        inputs -= (tokens.cached or 0) + (tokens.written or 0)
    if outputs is not None and provider in _REASONING_BESIDE_OUTPUT:
        outputs -= tokens.reasoning or 0
    return Usage(
        input_tokens=inputs,
        output_tokens=outputs,
        cache_read_tokens=tokens.cached,
        cache_write_tokens=tokens.written,
        reasoning_tokens=tokens.reasoning,
        input_audio_tokens=tokens.input_audio,
        output_audio_tokens=tokens.output_audio,
    )


# ---- counted here --------------------------------------------------------------------------------------------------


def estimated(request: Request, response: Response) -> Tokens:
    """Tokens counted with OpenAI's tables, which are near enough for other models' text; unknown with other media."""
    encoding = _encoding(_table_for(request.model))
    if encoding is None:
        return Tokens(is_estimated=True)
    overhead = _A_MESSAGE * (len(request.messages) + (request.system is not None)) + _ANSWER_START
    prompt = None if has_media(_prompt_parts(request)) else _count(encoding, _prompt_texts(request)) + overhead
    answer = None if has_media(response.message.parts) else _count(encoding, _texts(response.message.parts))
    return Tokens(prompt, answer, is_estimated=True)


def has_media(parts: Iterable[Any]) -> bool:
    """Whether any of these parts is not text."""
    return any(part.type in _MEDIA or has_media(getattr(part, "content", ())) for part in parts)


def _prompt_parts(request: Request) -> list[Any]:
    system = request.system if isinstance(request.system, tuple) else ()
    return [*system, *(part for message in request.messages for part in message.parts)]


def _prompt_texts(request: Request) -> list[str]:
    system = [request.system] if isinstance(request.system, str) else []
    shapes = [*map(tool_to_dict, request.tools), request.config.response_format]
    return [*system, *_texts(_prompt_parts(request)), *(_json(shape) for shape in shapes if shape)]


def _texts(parts: Iterable[Any]) -> list[str]:
    return [text for part in parts for text in _part_texts(part)]


def _part_texts(part: Any) -> list[str]:
    if part.type == "tool_call":
        return [part.name, _json(part.input)]
    if part.type == "tool_result":
        return _texts(part.content)
    if part.type == "data":
        return [_json(part.value)]
    return [getattr(part, "text", None) or ""]


def _json(value: Any) -> str:
    return orjson.dumps(value, default=str).decode()


def _count(encoding: Encoding, texts: Sequence[str]) -> int:
    return sum(_count_text(encoding, text, MOST_ENCODED // len(texts)) for text in texts)


def _count_text(encoding: Encoding, text: str, most: int) -> int:
    most = max(most, _PIECES)
    if len(text) <= most:
        return len(encoding.encode_ordinary(text))
    # Pieces from all over it: a document may change its language or turn into a table.
    length, step = most // _PIECES, len(text) // _PIECES
    sample = [text[start : start + length] for start in range(0, step * _PIECES, step)]
    counted = sum(len(encoding.encode_ordinary(piece)) for piece in sample)
    return round(counted * len(text) / (length * _PIECES))


def _table_for(model: str) -> str:
    """The table of OpenAI's model of that name; an old one for everybody else's, as litellm does."""
    from tiktoken import encoding_name_for_model

    try:
        name = encoding_name_for_model(model.rpartition("/")[2])
    except KeyError:
        name = ""
    return "o200k_base" if name.startswith("o200k") else "cl100k_base"


_loading = threading.Lock()


def _encoding(table: str) -> Encoding | None:
    """The encoding of a table; None where the table is not on this machine, for nothing is fetched."""
    with _loading:
        return _load(table)


@cache
def _load(table: str) -> Encoding | None:
    from tiktoken import get_encoding

    # tiktoken keeps a table under the digest of its address.
    address = f"https://openaipublic.blob.core.windows.net/encodings/{table}.tiktoken"
    path = TOKENIZER_TABLES / hashlib.sha1(address.encode(), usedforsecurity=False).hexdigest()
    try:
        if path.is_file():
            return get_encoding(table)
        reason = "no such file"
    except Exception as error:  # noqa: BLE001  # whatever a damaged table leads to: tokens are unknown then, no more
        reason = type(error).__name__
    log.warning("tokens_cannot_be_counted", table=table, path=str(path), reason=reason)
    return None
