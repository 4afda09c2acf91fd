"""POST /v1/chat/completions: from the request's JSON to a reply, without waiting and without the network."""

from __future__ import annotations

import hashlib
import math
import time
from dataclasses import dataclass, field
from typing import Any

import orjson

from sandbox import FINGERPRINT, NOTICE, answers, errors, faults, prompts, react, render
from sandbox.errors import ApiError
from sandbox.faults import Behaviour, Fate
from sandbox.ledger import Account, Ledger, Tokens
from sandbox.source import Source

#: What a request may carry without becoming another prompt in the ledger.
NOT_SAMPLING = frozenset(
    {
        "model",
        "stream",
        "stream_options",
        "user",
        "metadata",
        "store",
        "safety_identifier",
    }
)

#: A token of the sandbox is this many bytes of UTF-8: simple, deterministic, near English on average.
BYTES_PER_TOKEN = 4

MALFORMED = "I am afraid this is not what was asked for."
#: What `usage=absurd` reports: a count that no signed 64-bit integer holds.
_ABSURD = Tokens(2**63, 1)

#: Of a prompt whole stretches of this many tokens count as cached with `usage=detailed`, as at OpenAI.
_CACHED_STRETCH = 128

#: Outcomes with status 200, which a provider would bill.
ANSWERED = ("answer", "malformed", "truncated")
#: Outcomes without a response.
NO_ANSWER = ("hang", "drop")


class Refusal(Exception):
    """The request itself cannot be answered; carries the error to send."""

    def __init__(self, error: ApiError) -> None:
        super().__init__(error.message)
        self.error = error


@dataclass(slots=True)
class Call:
    """One call on the ledger, from its arrival to its end."""

    account: Account
    prompt: bytes
    outcome: str
    tokens: Tokens = field(default_factory=Tokens)
    key: str = ""
    answer: bytes = b""

    def sent(self) -> None:
        """The client got its response, or its connection was closed on request."""
        if self.outcome in ANSWERED:
            self.account.complete(self.prompt, self.tokens)
            if self.key:
                self.account.kept[self.key] = self.answer
        self.account.end(None if self.outcome == "answer" else self.outcome)

    def abandoned(self) -> None:
        """The client left, or the server stopped, before the response."""
        self.account.end(self.outcome if self.outcome == "hang" else "abandoned")


@dataclass(slots=True)
class Reply:
    """What to send, after `delay` seconds; with `answered` false the connection closes instead."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    answered: bool = True
    call: Call | None = None


def complete(body: bytes, path_modifiers: str | None, ledger: Ledger, key: str = "") -> Reply:
    """The reply to a chat completion; `path_modifiers` (from `/x/<modifiers>/`) let any model name in.

    `key` is the call's `Idempotency-Key`: once answered, it gets the same answer again, which is not charged.
    """
    try:
        request = _request(body)
        behaviour = _behaviour(request["model"], path_modifiers)
    except Refusal as refusal:
        return Reply(refusal.error.status, errors.body(refusal.error))
    prompt = _digest(request)
    account = ledger.account(";".join(filter(None, (request["model"], path_modifiers))))
    if key and (answer := account.replay(key)):
        return Reply(200, answer)
    fate = faults.fate(behaviour, prompt, account.begin(prompt))
    call = Call(account, prompt, fate.outcome, key=key)
    if fate.outcome in NO_ANSWER:
        return Reply(0, b"", delay=fate.delay, answered=False, call=call)
    if fate.outcome in errors.ERRORS:
        return _failure(fate, behaviour, call)
    try:
        return _answer(request, fate, behaviour, call)
    except Exception as error:  # noqa: BLE001  # whatever a foreign schema trips over: the client gets a reply
        call.outcome = "unanswerable"
        message = f"The sandbox cannot answer this request: {error!r}."
        return Reply(400, errors.body(errors.invalid(message)), call=call)


def _request(body: bytes) -> dict[str, Any]:
    try:
        request = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Refusal(errors.invalid(f"The body is not JSON: {error}.")) from error
    if not isinstance(request, dict) or not isinstance(request.get("model"), str):
        raise Refusal(errors.invalid("The body needs a model.", "model"))
    messages = request.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(one, dict) for one in messages):
        raise Refusal(errors.invalid("The body needs messages, a list of at least one object.", "messages"))
    if request.get("stream"):
        raise Refusal(errors.invalid("The sandbox does not stream; leave out stream.", "stream"))
    return request


def _behaviour(model: str, path_modifiers: str | None) -> Behaviour:
    try:
        return faults.behaviour_of(model, path_modifiers or "", any_name=path_modifiers is not None)
    except faults.UnknownModelError as error:
        known = ", ".join(faults.NAMED_MODELS)
        message = f"The model `{error}` does not exist in the sandbox; known: {known} (each may carry ;key=value)."
        raise Refusal(errors.ERRORS["model_not_found"]._replace(message=message)) from error
    except faults.ModifierError as error:
        raise Refusal(errors.invalid(str(error), "model")) from error


def _digest(request: dict[str, Any]) -> bytes:
    asked = {key: value for key, value in request.items() if key not in NOT_SAMPLING}
    return hashlib.blake2b(orjson.dumps(asked, option=orjson.OPT_SORT_KEYS), digest_size=16).digest()


def _failure(fate: Fate, behaviour: Behaviour, call: Call) -> Reply:
    error = errors.ERRORS[fate.outcome]
    headers = {}
    if behaviour.retry_after is not None and error.status in (429, 503):
        headers["retry-after"] = f"{behaviour.retry_after:g}"
    return Reply(error.status, errors.body(error), headers, fate.delay, call=call)


def _answer(request: dict[str, Any], fate: Fate, behaviour: Behaviour, call: Call) -> Reply:
    count = request.get("n") or 1
    limit = request.get("max_completion_tokens") or request.get("max_tokens")
    texts = [MALFORMED if fate.outcome == "malformed" else answer_text(request, index) for index in range(count)]
    choices = [_choice(index, text, limit, cut=fate.outcome == "truncated") for index, text in enumerate(texts)]
    written = sum(tokens(choice["message"]["content"]) for choice in choices)
    call.tokens = _tokens(request, written, behaviour)
    completion = {
        "id": f"chatcmpl-sandbox-{call.prompt.hex()}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": request["model"],
        "system_fingerprint": FINGERPRINT,
        "choices": choices,
    }
    if behaviour.usage != "none":
        completion["usage"] = _usage(_ABSURD if behaviour.usage == "absurd" else call.tokens, behaviour)
    call.answer = orjson.dumps(completion)
    return Reply(200, call.answer, delay=fate.delay, call=call)


def _choice(index: int, text: str, limit: int | None, *, cut: bool) -> dict[str, Any]:
    whole = text
    if cut:
        text = text[: len(text) // 2]
    if limit and tokens(text) > limit:
        text = text.encode()[: limit * BYTES_PER_TOKEN].decode(errors="ignore")
    return {
        "index": index,
        "message": {"role": "assistant", "content": text, "refusal": None},
        "logprobs": None,
        "finish_reason": "stop" if text == whole else "length",
    }


def _tokens(request: dict[str, Any], written: int, behaviour: Behaviour) -> Tokens:
    read = sum(tokens(content(message)) for message in request["messages"])
    if behaviour.usage != "detailed":
        return Tokens(read, written)
    # Reasoning comes on top of what is written, and nobody sees it.
    reasoning = written // 2
    return Tokens(read, written + reasoning, read // _CACHED_STRETCH * _CACHED_STRETCH, reasoning)


def _usage(used: Tokens, behaviour: Behaviour) -> dict[str, Any]:
    usage: dict[str, Any] = {
        "prompt_tokens": used.prompt,
        "completion_tokens": used.completion,
        "total_tokens": used.prompt + used.completion,
    }
    if behaviour.usage == "detailed":
        usage["prompt_tokens_details"] = {"cached_tokens": used.cached}
        usage["completion_tokens_details"] = {"reasoning_tokens": used.reasoning}
    return usage


def tokens(text: str) -> int:
    """A count of tokens, rounded up; not a tokenizer's."""
    return math.ceil(len(text.encode()) / BYTES_PER_TOKEN)


def content(message: dict[str, Any]) -> str:
    """The text of a message, whether it is one string or a list of parts."""
    parts = message.get("content") or ""
    if isinstance(parts, str):
        return parts
    return "\n".join(part.get("text") or "" for part in parts if isinstance(part, dict))


def answer_text(request: dict[str, Any], index: int = 0) -> str:
    """The text of one answer: fields for a prompt by DSPy, JSON where asked for, else a plain sentence."""
    messages = request["messages"]
    system = "\n".join(content(one) for one in messages if one.get("role") in ("system", "developer"))
    user = next((content(one) for one in reversed(messages) if one.get("role") == "user"), "")
    wanted = (request.get("response_format") or {}).get("type")
    layout = prompts.read_layout(system)
    if layout is None:
        return _undirected(request, wanted, user, index)
    inputs = prompts.read_inputs(layout.format, user)
    source = Source.of(inputs, _salt(index))
    values = {one.name: answers.answer(one.name, one.schema, source) for one in layout.outputs}
    if react.is_step(layout):
        values.update(react.step(layout, user, inputs))
    format_ = "json" if wanted in ("json_object", "json_schema") else layout.format
    return render.RENDERERS[format_](layout.outputs, values)


def _undirected(request: dict[str, Any], wanted: str | None, user: str, index: int) -> str:
    source = Source.of({"prompt": user}, _salt(index))
    if wanted == "json_schema":
        schema = request["response_format"]["json_schema"]["schema"]
        return orjson.dumps(answers.answer("answer", schema, source)).decode()
    text = answers.answer("answer", {"type": "string"}, source)
    return orjson.dumps({"answer": text}).decode() if wanted == "json_object" else f"{text} ({NOTICE})"


def _salt(index: int) -> str:
    """What makes the second of several choices differ from the first."""
    return str(index) if index else ""
