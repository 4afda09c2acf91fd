"""The sandbox as its clients meet it: a server process, raw HTTP, DSPy programs through three adapters."""

from __future__ import annotations

import contextlib
import datetime
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import dspy
import httpx
import pytest
from dspy.adapters.chat_adapter import ChatAdapter
from dspy.utils.exceptions import (
    AdapterParseError,
    ContextWindowExceededError,
    LMAuthError,
    LMBillingError,
    LMRateLimitError,
    LMServerError,
    LMTransportError,
)
from pydantic import BaseModel, Field

TIMEOUT = 30.0
ADAPTERS: dict[str, Callable[[], ChatAdapter]] = {
    "chat": lambda: dspy.ChatAdapter(use_json_adapter_fallback=False),
    "json": dspy.JSONAdapter,
    "xml": lambda: dspy.XMLAdapter(use_json_adapter_fallback=False),
}
every_adapter = pytest.mark.parametrize("adapter", ADAPTERS)

INVOICE = """Invoice INV-2041 from Acme Tools GmbH, 12 March 2025.
3 x Claw hammer @ 12.50
10 x Nails @ 0.99
Total: EUR 47.40. Due 2025-04-12. Questions: billing@acme.example"""


class Sandbox:
    """A running server process and a client for it."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "sandbox", "--port", "0"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().split()[-1]
        self.http = httpx.Client(base_url=self.url, timeout=TIMEOUT, trust_env=False)

    def ask(self, model: str, prompt: str = "hello", prefix: str = "", **parameters: Any) -> httpx.Response:
        """One chat completion."""
        body = {"model": model, "messages": [{"role": "user", "content": prompt}], **parameters}
        return self.http.post(f"{prefix}/v1/chat/completions", json=body)

    def counts(self, model: str | None = None) -> dict[str, Any]:
        """The ledger's counts of one model, or of all."""
        ledger = self.http.get("/ledger").json()
        counts: dict[str, Any] = ledger["models"].get(model, {}) if model else ledger["total"]
        return counts

    def lm(self, model: str = "sandbox", prefix: str = "", **options: Any) -> dspy.LM:
        """A DSPy LM that talks to this server."""
        base = f"{self.url}{prefix}/v1"
        options = {"cache": False, "engine": "lm15", "num_retries": 0, **options}
        return dspy.LM(f"openai/{model}", api_base=base, api_key="x", **options)

    def stop(self) -> int:
        """End the process if it still runs; its exit code."""
        self.http.close()
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=TIMEOUT)
        return self.process.returncode


@pytest.fixture(scope="module")
def shared() -> Iterator[Sandbox]:
    """One server for the tests of this module; each uses prompts or models of its own."""
    server = Sandbox()
    yield server
    server.stop()


@pytest.fixture
def own() -> Iterator[Sandbox]:
    """A server of this test's own, with an empty ledger."""
    server = Sandbox()
    yield server
    server.stop()


def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition; fails when it does not come true."""
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        threading.Event().wait(0.01)


class Classify(dspy.Signature):
    """Sort a support ticket."""

    ticket: str = dspy.InputField()
    category: Literal["billing", "technical", "shipping"] = dspy.OutputField()
    urgency: int = dspy.OutputField(ge=1, le=5)
    level: Literal[1, 2, 3] = dspy.OutputField()
    reason: str = dspy.OutputField()


class LineItem(BaseModel):
    """One line of an invoice."""

    description: str
    quantity: int = Field(ge=1)
    unit_price: float = Field(gt=0)


class Invoice(BaseModel):
    """An invoice with nested, optional and dated fields."""

    invoice_number: str
    vendor: str = Field(min_length=2, max_length=40)
    date: datetime.date
    due_date: datetime.date | None = None
    email: str | None
    line_items: list[LineItem] = Field(min_length=1)
    total: float


class Extract(dspy.Signature):
    """Read an invoice."""

    text: str = dspy.InputField()
    invoice: Invoice = dspy.OutputField()


class Assorted(dspy.Signature):
    """Fill in assorted types."""

    text: str = dspy.InputField()
    sure: bool = dspy.OutputField()
    share: float = dspy.OutputField(gt=0, lt=1)
    tags: list[Literal["p", "q"]] = dspy.OutputField(min_length=1)
    weights: dict[str, float] = dspy.OutputField()
    email: str | None = dspy.OutputField()
    day: datetime.date = dspy.OutputField()
    points: list[str] = dspy.OutputField(min_length=2)


@every_adapter
def test_a_question_is_answered(shared: Sandbox, adapter: str) -> None:
    """The answer quotes the question."""
    with dspy.context(lm=shared.lm(), adapter=ADAPTERS[adapter]()):
        answer = dspy.Predict("question -> answer")(question="Is <a> & <b> a tie?").answer
    assert "Is <a> & <b> a tie?" in answer


@every_adapter
def test_a_ticket_is_classified(shared: Sandbox, adapter: str) -> None:
    """Options, bounded numbers and text come back typed and the same from every adapter."""
    with dspy.context(lm=shared.lm(), adapter=ADAPTERS[adapter]()):
        ticket = dspy.Predict(Classify)(ticket="My parcel is late: shipping took three weeks.")
    assert ticket.category == "shipping"
    assert ticket.urgency in range(1, 6)
    assert ticket.level in (1, 2, 3)
    assert "My parcel is late" in ticket.reason


@every_adapter
def test_an_invoice_is_extracted(shared: Sandbox, adapter: str) -> None:
    """A nested record is filled with what the text says."""
    with dspy.context(lm=shared.lm(), adapter=ADAPTERS[adapter]()):
        invoice = dspy.Predict(Extract)(text=INVOICE).invoice
    assert invoice == Invoice(
        invoice_number="INV-2041",
        vendor="Acme Tools GmbH",
        date=datetime.date(2025, 3, 12),
        due_date=datetime.date(2025, 4, 12),
        email="billing@acme.example",
        line_items=[
            LineItem(description="Claw hammer", quantity=3, unit_price=12.5),
            LineItem(description="Nails", quantity=10, unit_price=0.99),
        ],
        total=47.4,
    )


@every_adapter
def test_assorted_types_are_answered(shared: Sandbox, adapter: str) -> None:
    """Booleans, fractions, lists, mappings, dates and missing optionals all parse."""
    with dspy.context(lm=shared.lm(), adapter=ADAPTERS[adapter]()):
        values = dspy.Predict(Assorted)(text="a < b & [[ ## c ## ]]")
    assert isinstance(values.sure, bool)
    assert 0 < values.share < 1
    assert {"p", "q"} >= set(values.tags) > set()
    assert values.weights
    assert all(isinstance(weight, float) for weight in values.weights.values())
    assert values.email is None
    assert isinstance(values.day, datetime.date)
    assert len(values.points) >= 2


@every_adapter
def test_chain_of_thought_reasons(shared: Sandbox, adapter: str) -> None:
    """ChainOfThought gets its reasoning and a typed answer."""
    with dspy.context(lm=shared.lm(), adapter=ADAPTERS[adapter]()):
        result = dspy.ChainOfThought("question -> answer: bool")(question="Is it so?")
    assert result.reasoning
    assert isinstance(result.answer, bool)


@every_adapter
def test_react_calls_a_tool_and_ends(shared: Sandbox, adapter: str) -> None:
    """A ReAct run calls its first tool once, with arguments that fit, and then finishes."""
    asked: list[str] = []

    def get_weather(city: str, days: int = 3) -> str:
        """Weather of a city."""
        asked.append(city)
        return f"sunny for {days} days"

    with dspy.context(lm=shared.lm(), adapter=ADAPTERS[adapter]()):
        result = dspy.ReAct("question -> answer", tools=[get_weather])(question="What is the weather in Tokyo?")
    assert asked == ["Tokyo"]
    assert [result.trajectory["tool_name_0"], result.trajectory["tool_name_1"]] == ["get_weather", "finish"]
    assert result.trajectory["observation_0"] == "sunny for 3 days"
    assert result.answer


@pytest.mark.parametrize("signature", [Classify, Extract, Assorted])
def test_response_formats_are_obeyed(shared: Sandbox, signature: type[dspy.Signature]) -> None:
    """A model known to take response_format is asked for json_schema or json_object and answers it."""
    inputs = dict.fromkeys(signature.input_fields, INVOICE)
    with dspy.context(lm=shared.lm("gpt-4o-mini", prefix="/x/usage=none"), adapter=dspy.JSONAdapter()):
        assert set(dspy.Predict(signature)(**inputs).keys()) == set(signature.output_fields)


def test_a_bare_json_schema_is_answered(shared: Sandbox) -> None:
    """Without a prompt by DSPy, response_format alone decides the answer."""
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    format_ = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    text = shared.ask("sandbox", response_format=format_).json()["choices"][0]["message"]["content"]
    assert set(httpx.Response(200, text=text).json()) == {"n"}


def test_it_says_what_it_is(shared: Sandbox) -> None:
    """Every document says that this is not a language model."""
    assert "not a language model" in shared.http.get("/").json()["notice"]
    assert "not a language model" in shared.http.get("/health").json()["notice"]
    models = shared.http.get("/v1/models").json()["data"]
    assert {"sandbox", "sandbox-slow", "sandbox-tail", "sandbox-flaky", "sandbox-down"} == {m["id"] for m in models}
    assert all("Not a language model" in model["description"] for model in models)
    answer = shared.ask("sandbox").json()
    assert answer["system_fingerprint"] == "sandbox-not-a-language-model"
    assert "not a language model" in answer["choices"][0]["message"]["content"]


def test_usage_adds_up_and_can_be_left_out(shared: Sandbox) -> None:
    """Usage counts prompt and completion tokens, unless the model is told not to report it."""
    usage = shared.ask("sandbox", "12345678").json()["usage"]
    assert usage["prompt_tokens"] == 2
    assert usage["completion_tokens"] > 0
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert "usage" not in shared.ask("sandbox;usage=none").json()
    assert shared.ask("sandbox;usage=absurd").json()["usage"]["prompt_tokens"] == 2**63


def test_detailed_usage_tells_cached_and_reasoning_tokens(own: Sandbox) -> None:
    """With `usage=detailed` whole stretches of the prompt are cached, reasoning is on top, and the ledger agrees."""
    prompt = "word " * 300
    plain = own.ask("sandbox", prompt).json()["usage"]
    usage = own.ask("sandbox;usage=detailed", prompt).json()["usage"]
    cached, reasoning = usage["prompt_tokens_details"]["cached_tokens"], usage["completion_tokens_details"]
    assert (usage["prompt_tokens"], cached) == (375, 256)
    assert reasoning["reasoning_tokens"] == usage["completion_tokens"] - plain["completion_tokens"] > 0
    counts = own.counts("sandbox;usage=detailed")
    assert (counts["cached_tokens"], counts["reasoning_tokens"]) == (256, reasoning["reasoning_tokens"])


def test_a_repeated_key_is_answered_again_and_charged_once(own: Sandbox) -> None:
    """Only once it was answered, and only by the model that answered it."""
    body = {"model": "sandbox;first=1:500", "messages": [{"role": "user", "content": "hello"}]}

    def ask(key: str) -> httpx.Response:
        return own.http.post("/v1/chat/completions", json=body, headers={"Idempotency-Key": key})

    answers = [ask("a"), ask("a"), ask("a"), ask("b")]
    assert [answer.status_code for answer in answers] == [500, 200, 200, 200]
    assert answers[1].content == answers[2].content
    counts = own.counts("sandbox;first=1:500")
    assert (counts["requests"], counts["completions"], counts["replays"]) == (4, 2, 1)


def test_a_token_limit_cuts_the_answer(shared: Sandbox) -> None:
    """max_tokens is obeyed like a provider's: a cut text and finish_reason length."""
    answer = shared.ask("sandbox", max_tokens=3).json()
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 3


def test_several_choices_differ(shared: Sandbox) -> None:
    """n answers are n different texts."""
    choices = shared.ask("sandbox", n=3).json()["choices"]
    assert len({choice["message"]["content"] for choice in choices}) == 3


@pytest.mark.parametrize(
    ("fault", "status", "kind", "code", "error"),
    [
        ("400", 400, "invalid_request_error", None, dspy.LMInvalidRequestError),
        (
            "context_length_exceeded",
            400,
            "invalid_request_error",
            "context_length_exceeded",
            ContextWindowExceededError,
        ),
        ("401", 401, "invalid_request_error", "invalid_api_key", LMAuthError),
        ("402", 402, "insufficient_quota", "insufficient_quota", LMBillingError),
        ("insufficient_quota", 429, "insufficient_quota", "insufficient_quota", LMBillingError),
        ("429", 429, "requests", "rate_limit_exceeded", LMRateLimitError),
        ("500", 500, "server_error", None, LMServerError),
        ("503", 503, "server_error", "service_unavailable", LMServerError),
    ],
)
def test_errors_look_like_the_provider_s(
    shared: Sandbox, fault: str, status: int, kind: str, code: str | None, error: type[Exception]
) -> None:
    """An error has OpenAI's shape, and DSPy classifies it as it classifies the real one."""
    response = shared.ask(f"sandbox;fail={fault}:1;retry_after=2", prefix="")
    assert response.status_code == status
    assert {key: response.json()["error"][key] for key in ("type", "code")} == {"type": kind, "code": code}
    assert response.headers.get("retry-after") == ("2" if status in (429, 503) else None)
    with dspy.context(lm=shared.lm(f"sandbox;fail={fault}")), pytest.raises(error):
        dspy.Predict("question -> answer")(question="?")


@pytest.mark.parametrize("prefix", ["", "/x/fail=503:1"])
def test_a_path_and_a_name_ask_alike(own: Sandbox, prefix: str) -> None:
    """The same modifiers in path or name give the same behaviour and the same account."""
    model = "sandbox" if prefix else "sandbox;fail=503:1"
    assert own.ask(model, prefix=prefix).status_code == 503
    assert own.counts("sandbox;fail=503:1")["faults"] == {"503": 1}


def test_wrong_requests_are_explained(shared: Sandbox) -> None:
    """An unknown model, modifier, path or method and an unreadable body get an error that names it."""

    def refusal(response: httpx.Response) -> tuple[int, str]:
        return response.status_code, response.json()["error"]["message"]

    status, message = refusal(shared.ask("sandbx"))
    assert (status, "sandbx" in message) == (404, True)
    status, message = refusal(shared.ask("sandbox;lateny=1"))
    assert (status, "lateny" in message, "latency" in message) == (400, True, True)
    status, message = refusal(shared.http.get("/v2/x"))
    assert (status, "/v2/x" in message) == (404, True)
    assert refusal(shared.http.get("/v1/chat/completions"))[0] == 405
    assert "JSON" in refusal(shared.http.post("/v1/chat/completions", content=b"{"))[1]
    assert "messages" in refusal(shared.http.post("/v1/chat/completions", json={"model": "sandbox"}))[1]
    assert "stream" in refusal(shared.ask("sandbox", stream=True))[1]
    format_ = {"type": "json_schema", "json_schema": {"schema": {"$ref": "#/nowhere"}}}
    assert "nowhere" in refusal(shared.ask("sandbox", response_format=format_))[1]


def test_a_dropped_call_has_no_answer(own: Sandbox) -> None:
    """`drop` closes the connection without a byte, and DSPy sees a transport error."""
    with pytest.raises(httpx.RemoteProtocolError):
        own.ask("sandbox;drop=1")
    with dspy.context(lm=own.lm("sandbox;drop=1")), pytest.raises(LMTransportError):
        dspy.Predict("question -> answer")(question="?")
    assert own.counts()["faults"]["drop"] >= 2
    assert own.counts()["completions"] == 0


@every_adapter
def test_a_malformed_answer_does_not_parse(shared: Sandbox, adapter: str) -> None:
    """`malformed` gives an answer with status 200 that no adapter can read."""
    context = dspy.context(lm=shared.lm("sandbox;malformed=1"), adapter=ADAPTERS[adapter]())
    with context, pytest.raises(AdapterParseError):
        dspy.Predict("question -> answer")(question="?")


def test_a_truncated_answer_says_so(own: Sandbox) -> None:
    """`truncated` cuts the text, reports finish_reason length, and is billed."""
    whole = own.ask("sandbox").json()["choices"][0]["message"]["content"]
    cut = own.ask("sandbox;truncated=1").json()["choices"][0]
    assert (cut["finish_reason"], whole.startswith(cut["message"]["content"])) == ("length", True)
    assert own.counts("sandbox;truncated=1")["completions"] == 1
    assert own.counts("sandbox;truncated=1")["faults"] == {"truncated": 1}


def test_a_call_takes_its_latency(shared: Sandbox) -> None:
    """A slow model answers no earlier than asked."""
    started = time.monotonic()
    assert shared.ask("sandbox-slow").status_code == 200
    assert time.monotonic() - started >= 0.2


def test_the_first_calls_of_a_prompt_fail(shared: Sandbox) -> None:
    """`first=2:500` fails each prompt twice and then answers it, whatever else is asked in between."""
    statuses = [shared.ask("sandbox;first=2:500", prompt).status_code for prompt in "abaabb"]
    assert statuses == [500, 500, 500, 200, 500, 200]


def test_chances_repeat_after_a_reset(own: Sandbox) -> None:
    """With the ledger reset, the same calls meet the same faults."""

    def statuses() -> list[int]:
        own.http.delete("/ledger")
        return [own.ask("sandbox;fail=500:0.5", str(number)).status_code for number in range(30)]

    first = statuses()
    assert set(first) == {200, 500}
    assert statuses() == first


def test_the_ledger_counts_exactly(own: Sandbox) -> None:
    """Concurrent calls are counted exactly, and a prompt answered twice is one duplicate."""
    with ThreadPoolExecutor(16) as pool:
        responses = list(pool.map(lambda number: own.ask("sandbox", f"prompt {number % 150}"), range(200)))
    usages = [response.json()["usage"] for response in responses]
    assert own.counts("sandbox") | {"peak_waiting": 1} == {
        "requests": 200,
        "completions": 200,
        "prompt_tokens": sum(usage["prompt_tokens"] for usage in usages),
        "completion_tokens": sum(usage["completion_tokens"] for usage in usages),
        "cached_tokens": 0,
        "reasoning_tokens": 0,
        "replays": 0,
        "faults": {},
        "waiting": 0,
        "peak_waiting": 1,
        "distinct_prompts": 150,
        "duplicate_prompts": 50,
        "duplicate_prompt_tokens": sum(usage["prompt_tokens"] for usage in usages[150:]),
        "duplicate_completion_tokens": sum(usage["completion_tokens"] for usage in usages[150:]),
    }
    own.ask("sandbox", "prompt 0", temperature=0.7)
    assert own.counts()["distinct_prompts"] == 151
    own.http.delete("/ledger")
    assert own.counts()["requests"] == 0


def test_a_client_that_leaves_is_not_billed(own: Sandbox) -> None:
    """A call whose client leaves before the answer is abandoned: a request without a completion."""
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            f"{own.url}/v1/chat/completions",
            json={"model": "sandbox;latency=60", "messages": [{"role": "user", "content": "x"}]},
            timeout=0.2,
            trust_env=False,
        )
    until(lambda: own.counts()["waiting"] == 0)
    assert own.counts()["faults"] == {"abandoned": 1}
    assert own.counts()["completions"] == 0


def _send(url: str, model: str, count: int) -> list[socket.socket]:
    """Open connections that each ask once and do not read the answer."""
    host, port = url.removeprefix("http://").split(":")
    body = b'{"model": "%s", "messages": [{"role": "user", "content": "x"}]}' % model.encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body)
    connections = []
    for _ in range(count):
        connection = socket.create_connection((host, int(port)), TIMEOUT)
        connection.sendall(head + body)
        connections.append(connection)
    return connections


def test_hundreds_hang_while_others_are_served(own: Sandbox) -> None:
    """Hanging calls wait side by side, hinder nobody, and are noted when their clients leave."""
    connections = _send(own.url, "sandbox;hang=1", 300)
    until(lambda: own.counts()["waiting"] == 300)
    assert own.ask("sandbox").status_code == 200
    for connection in connections:
        connection.close()
    until(lambda: own.counts()["waiting"] == 0)
    assert own.counts()["faults"] == {"hang": 300}
    assert own.counts("sandbox;hang=1")["peak_waiting"] == 300


def test_requests_on_one_connection_are_answered_in_order(own: Sandbox) -> None:
    """A client may send its next request before the last is answered."""
    host, port = own.url.removeprefix("http://").split(":")
    paths = ("/health", "/v1/models", "/nowhere")
    requests = "".join(f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n" for path in paths)
    with socket.create_connection((host, int(port)), TIMEOUT) as connection:
        connection.sendall(requests.encode() + b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
    order = [answer.index(word) for word in ('"status":"ok"', '"object":"list"', "/nowhere", '"endpoints"')]
    assert order == sorted(order)
    assert answer.count("HTTP/1.1 200") == 3
    assert answer.count("HTTP/1.1 404") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_although_calls_hang(own: Sandbox, number: signal.Signals) -> None:
    """SIGINT and SIGTERM end the server with exit code 0, and hanging clients see the connection close."""
    (connection,) = _send(own.url, "sandbox;hang=1", 1)
    until(lambda: own.counts()["waiting"] == 1)
    own.process.send_signal(number)
    assert own.process.wait(TIMEOUT) == 0
    with connection, contextlib.suppress(ConnectionResetError):
        assert connection.recv(1) == b""


def test_a_taken_port_is_named(shared: Sandbox) -> None:
    """A port in use is one line that names the port and its setting, with exit code 2."""
    port = shared.url.rsplit(":", 1)[1]
    run = subprocess.run(
        [sys.executable, "-m", "sandbox"],
        env={**os.environ, "DSPY_JOBS_SANDBOX_PORT": port},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert run.returncode == 2
    assert len(run.stderr.splitlines()) == 1
    assert port in run.stderr
    assert "DSPY_JOBS_SANDBOX_PORT" in run.stderr
