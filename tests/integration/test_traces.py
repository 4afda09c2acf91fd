"""One trace from a request through the queue to each model call: the API and a worker in one process, a real model."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import orjson
import pytest
import structlog
import uvicorn
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes, messaging_attributes
from opentelemetry.semconv.attributes import (
    error_attributes,
    http_attributes,
    network_attributes,
    server_attributes,
    url_attributes,
)
from opentelemetry.trace import SpanKind, StatusCode

from api.__main__ import listen
from api.app import create_app
from dspy_jobs import names, telemetry
from dspy_jobs.settings import Settings
from dspy_jobs.store import SyncStore
from dspy_jobs.waiting import wait_until
from tests.integration.test_call_resume import Provider, go_on
from tests.integration.test_worker_attempts import Bench
from tests.programs import LINGER
from tests.unit.http_stand_in import stand_in
from worker.chunk import STUCK_SECONDS
from worker.process import publish_all

CONFIG = """
[tracing]
enabled = true
jobs_per_trace = 2
[programs.qa]
signature = "question -> answer"
[programs.three_steps]
factory = "tests.programs:three_steps"
[programs.parallel]
factory = "tests.programs:parallel"
[programs.lingers]
factory = "tests.programs:lingers"
"""
TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = {"traceparent": f"00-{TRACE}-{CALLER}-01", "tracestate": "vendor=opaque"}
SECRET = "a question that nobody else may read"


class Scene:
    """The whole service in this process, and the spans it has made."""

    def __init__(self, api: httpx.Client, bench: Bench, exporter: InMemorySpanExporter, provider: Provider) -> None:
        self.api, self.bench, self.provider = api, bench, provider
        self._exporter = exporter

    def submit(self, program: str = "qa", headers: dict[str, str] | None = None, **body: Any) -> str:
        """Submit a job over HTTP."""
        inputs = {"question": SECRET} if program == "qa" else {"text": SECRET}
        answer = self.api.post("/v1/jobs", json={"program": program, "inputs": inputs, **body}, headers=headers)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def run(self, *ids: str) -> None:
        """Run jobs of one message, attempt after attempt."""
        self.bench.chunks.run(list(ids))
        for job_id in ids:
            go_on(self.bench, job_id)

    def spans(self, *first_words: str) -> list[ReadableSpan]:
        """Spans by the beginning of their names, in order of their end."""
        provider = telemetry.provider()
        assert provider is not None
        provider.force_flush()
        return [span for span in self._exporter.get_finished_spans() if span.name.split()[0] in first_words]

    def all_spans(self) -> list[ReadableSpan]:
        """Every span."""
        return self.spans("GET", "POST", "send", "process", "chat")


MakeScene = Callable[..., Scene]


@pytest.fixture
def make_scene(write_config: Callable[..., Settings], store: SyncStore, sandbox_url: str) -> Iterator[MakeScene]:
    """Starts the service; `own` is a model of the sandbox with modifiers, and with settings (TOML) of its own."""
    stack = ExitStack()

    def make(modifiers: str = "latency=0", config: str = CONFIG, model: str = "") -> Scene:
        exporter, provider = InMemorySpanExporter(), Provider(sandbox_url, modifiers, model)
        settings = write_config(config + provider.config())
        telemetry.start(settings, "test", exporter)
        bench = Bench(settings, store)
        publish_all(store.redis, settings, bench.chunks.runner.programs)
        return Scene(stack.enter_context(served(settings)), bench, exporter, provider)

    with stack:
        yield make
    telemetry.stop()


@contextmanager
def served(settings: Settings) -> Iterator[httpx.Client]:
    """The API on a thread of this process, and a client of it."""
    server = uvicorn.Server(uvicorn.Config(create_app(settings), log_config=None))
    listener = listen(settings.api.model_copy(update={"port": 0}))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    assert wait_until(lambda: server.started, 20)
    with httpx.Client(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=30) as client:
        yield client
    server.should_exit = True
    thread.join()
    listener.close()


@pytest.fixture
def scene(make_scene: MakeScene) -> Scene:
    """The service with a model that answers."""
    return make_scene()


def below(parent: ReadableSpan, spans: Sequence[ReadableSpan]) -> list[ReadableSpan]:
    """Those spans that belong to `parent`."""
    assert parent.context is not None
    return [span for span in spans if span.parent and span.parent.span_id == parent.context.span_id]


def ids(span: ReadableSpan) -> tuple[str, str]:
    """Trace and span id, in hexadecimal."""
    assert span.context is not None
    return f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}"


def linked(span: ReadableSpan) -> list[tuple[str, str]]:
    """What a span points at."""
    return [(f"{link.context.trace_id:032x}", f"{link.context.span_id:016x}") for link in span.links]


def attributes(span: ReadableSpan) -> dict[str, Any]:
    """A span's attributes."""
    return dict(span.attributes or {})


def test_one_trace_from_the_caller_to_each_model_call(scene: Scene) -> None:
    """Server, producer, consumer and client spans lie below one another in the caller's own trace."""
    job_id = scene.submit("three_steps", SAMPLED)
    scene.run(job_id)
    (server,), (producer,), (consumer,) = scene.spans("POST"), scene.spans("send"), scene.spans("process")
    calls = scene.spans("chat")
    assert server.parent is not None
    assert f"{server.parent.span_id:016x}" == CALLER
    assert {ids(span)[0] for span in scene.all_spans()} == {TRACE}
    assert below(server, [producer]) == [producer]
    assert below(producer, [consumer]) == [consumer]
    assert below(consumer, calls) == calls
    assert len(calls) == 3
    assert [span.kind for span in (server, producer, consumer, calls[0])] == [
        SpanKind.SERVER, SpanKind.PRODUCER, SpanKind.CONSUMER, SpanKind.CLIENT,
    ]  # fmt: skip
    assert [span.name for span in (server, producer, consumer, calls[0])] == [
        "POST /v1/jobs", "send dspy.sandbox", "process dspy.sandbox", "chat sandbox",
    ]  # fmt: skip
    assert consumer.context is not None
    assert consumer.context.trace_state.get("vendor") == "opaque"
    assert not consumer.links


def test_attributes_follow_the_conventions_and_hold_nothing_private(scene: Scene) -> None:
    """Names are the conventions' or begin with ours, values are right, and inputs and outputs are nowhere."""
    job_id = scene.submit("qa", metadata={"who": SECRET}, request_id="r-1")
    scene.run(job_id)
    known = {
        value
        for module in (
            gen_ai_attributes, messaging_attributes, error_attributes, http_attributes, network_attributes,
            server_attributes, url_attributes,
        )
        for name, value in vars(module).items()
        if name.isupper()
    }  # fmt: skip
    spans = scene.all_spans()
    used = {name for span in spans for name in attributes(span)}
    assert {name for name in used if not name.startswith("dspy_jobs.")} <= known
    (server,), (producer,) = scene.spans("POST"), scene.spans("send")
    (consumer,), (call,) = scene.spans("process"), scene.spans("chat")
    assert attributes(server).items() >= {"http.route": "/v1/jobs", "http.response.status_code": 202}.items()
    sent = {"messaging.message.id": job_id, "messaging.destination.name": "dspy.sandbox", "dspy_jobs.program": "qa"}
    assert attributes(producer).items() >= {**sent, "messaging.operation.type": "send"}.items()
    processed = {"dspy_jobs.attempt": 1, "dspy_jobs.status": "succeeded", "dspy_jobs.cache": "miss"}
    assert attributes(consumer).items() >= {**sent, **processed, "messaging.client.id": "w1"}.items()
    outcome = scene.bench.read(job_id).outcome or {}
    usage = outcome["usage"]
    asked = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "sandbox"}
    answered = {
        "gen_ai.response.model": "sandbox",
        "gen_ai.usage.input_tokens": usage["input_tokens"],
        "gen_ai.usage.output_tokens": usage["output_tokens"],
        "dspy_jobs.cost_usd": outcome["cost_usd"],
        "server.address": "127.0.0.1",
    }
    assert attributes(call).items() >= {**asked, **answered}.items()
    told = "".join(span.to_json() for span in spans)
    assert SECRET not in told
    assert outcome["result"]["answer"] not in told


def test_an_attempt_points_at_those_before_it(make_scene: MakeScene) -> None:
    """A retried job's spans are links of one chain, in one trace, and replayed calls are told."""
    scene = make_scene("first=1:503")
    job_id = scene.submit("three_steps", model="own", max_attempts=9, use_cache=False)
    scene.run(job_id)
    (producer,), attempts = scene.spans("send"), scene.spans("process")
    assert len(attempts) == 4
    assert below(producer, attempts) == attempts
    assert [linked(attempt) for attempt in attempts] == [
        [ids(earlier) for earlier in attempts[:number]] for number in range(len(attempts))
    ]
    statuses = [attributes(attempt)["dspy_jobs.status"] for attempt in attempts]
    assert statuses == ["retrying"] * (len(attempts) - 1) + ["succeeded"]
    assert attributes(attempts[0])["error.type"] == "server"
    assert attempts[0].status.status_code is StatusCode.ERROR
    assert attempts[0].status.description is None
    failed = [call for call in below(attempts[0], scene.spans("chat")) if call.status.status_code is StatusCode.ERROR]
    assert [attributes(call)["error.type"] for call in failed] == ["server"]
    replayed = [attempt for attempt in attempts if attributes(attempt).get("dspy_jobs.replayed_calls")]
    assert replayed
    for attempt in replayed:
        told = [event.name for event in attempt.events]
        assert told == ["dspy_jobs.call_replayed"] * attributes(attempt)["dspy_jobs.replayed_calls"]


def test_answers_made_before_are_told(scene: Scene) -> None:
    """A job that takes a stored answer has a span without a model call."""
    scene.run(scene.submit())
    again = scene.submit()
    scene.run(again)
    _, taken = scene.spans("process")
    assert attributes(taken).items() >= {"messaging.message.id": again, "dspy_jobs.cache": "hit"}.items()
    assert attributes(taken)["dspy_jobs.saved_usd"] > 0
    assert not below(taken, scene.spans("chat"))
    assert below(scene.spans("send")[1], [taken])


def test_a_follower_names_its_leader(make_scene: MakeScene) -> None:
    """Of equal jobs that run at the same moment one makes the answer; the other's span says which."""
    scene = make_scene("latency=0.3")
    leader, follower = scene.submit(model="own"), scene.submit(model="own")
    thread = threading.Thread(target=scene.bench.chunks.run, args=([leader],))
    thread.start()
    assert wait_until(lambda: scene.bench.read(leader).status == "running", 10)
    other = Bench(scene.bench.settings, scene.bench.store, "w2")
    other.chunks.run([follower])
    thread.join()
    other.chunks.run([follower])
    told = attributes(scene.spans("process")[-1])
    expected = {"messaging.message.id": follower, "dspy_jobs.cache": "coalesced", "dspy_jobs.leader": leader}
    assert told.items() >= expected.items()


def test_a_batch_carries_its_context_once(scene: Scene) -> None:
    """Jobs of a small batch belong to its trace; the context stands in the batch's record and in none of theirs."""
    items = [{"inputs": {"question": f"{SECRET} {number}"}} for number in range(2)]
    batch = scene.api.post("/v1/batches", json={"program": "qa", "items": items}, headers=SAMPLED).json()
    redis = scene.bench.store.redis
    jobs = [raw.decode() for raw in redis.lrange(names.batch_jobs(batch["id"]), 0, -1)]
    scene.run(*jobs)
    (producer,), consumers = scene.spans("send"), scene.spans("process")
    assert (
        attributes(producer).items() >= {"dspy_jobs.batch.id": batch["id"], "messaging.batch.message_count": 2}.items()
    )
    assert below(producer, consumers) == consumers
    assert len(consumers) == 2
    record = orjson.loads(redis.get(names.batch_request(batch["id"])) or b"")
    assert record["traceparent"].startswith("00-{}-{}-".format(*ids(producer)))
    assert not any(b"traceparent" in (redis.get(names.job_request(job)) or b"") for job in jobs)


def test_jobs_of_a_large_batch_are_traces_of_their_own(scene: Scene) -> None:
    """They point at the span that sent the batch, so that no trace grows beyond what anybody can show."""
    lines = "\n".join(orjson.dumps({"inputs": {"question": f"q{number}"}}).decode() for number in range(3))
    batch = scene.api.post(
        "/v1/batches?program=qa&metadata={%22who%22:%22me%22}",
        content=lines,
        headers={**SAMPLED, "content-type": "application/x-ndjson"},
    ).json()
    jobs = [raw.decode() for raw in scene.bench.store.redis.lrange(names.batch_jobs(batch["id"]), 0, -1)]
    scene.run(*jobs)
    (producer,), consumers, (server,) = scene.spans("send"), scene.spans("process"), scene.spans("POST")
    assert [linked(consumer) for consumer in consumers] == [[ids(producer)]] * 3
    assert len({ids(consumer)[0] for consumer in consumers} | {TRACE}) == 4
    assert all(consumer.parent is None for consumer in consumers)
    assert attributes(server)["url.query"] == "program=REDACTED&metadata=REDACTED"


@pytest.mark.parametrize(("ratio", "is_kept"), [(0, True), (1, False)])
def test_a_caller_decides_for_the_jobs_of_a_large_batch_too(make_scene: MakeScene, ratio: int, is_kept: bool) -> None:
    """Though they are traces of their own."""
    scene = make_scene(config=CONFIG.replace("[tracing]", f"[tracing]\nsample_ratio = {ratio}"))
    lines = "\n".join(orjson.dumps({"inputs": {"question": f"q{number}"}}).decode() for number in range(3))
    headers = {"traceparent": f"00-{TRACE}-{CALLER}-0{is_kept:d}", "content-type": "application/x-ndjson"}
    batch = scene.api.post("/v1/batches?program=qa", content=lines, headers=headers).json()
    scene.run(*[raw.decode() for raw in scene.bench.store.redis.lrange(names.batch_jobs(batch["id"]), 0, -1)])
    assert len(scene.spans("process")) == 3 * is_kept


def test_whoever_begins_the_trace_decides_whether_it_is_kept(make_scene: MakeScene) -> None:
    """With a ratio of 0 only traces that callers keep are; a caller's no is obeyed."""
    scene = make_scene(config=CONFIG.replace("[tracing]", "[tracing]\nsample_ratio = 0"))
    scene.run(scene.submit(use_cache=False))
    scene.run(scene.submit(headers={"traceparent": f"00-{TRACE}-{CALLER}-00"}, use_cache=False))
    assert scene.all_spans() == []
    scene.run(scene.submit(headers=SAMPLED, use_cache=False))
    assert len(scene.all_spans()) == 4


def test_polls_begin_no_trace(scene: Scene) -> None:
    """A poll is traced for a caller who is in a trace, and not otherwise; what fails is told by its code."""
    job_id = scene.submit()
    scene.api.get(f"/v1/jobs/{job_id}")
    assert scene.spans("GET") == []
    scene.api.get(f"/v1/jobs/{job_id}", headers=SAMPLED)
    assert [span.name for span in scene.spans("GET")] == ["GET /v1/jobs/{job_id}"]
    scene.api.post("/v1/jobs", json={"program": "nosuch", "inputs": {}})
    refused = scene.spans("POST")[-1]
    assert attributes(refused)["http.response.status_code"] == 422
    assert refused.status.status_code is StatusCode.UNSET


def test_threads_of_a_program_belong_to_its_attempt(scene: Scene) -> None:
    """Calls made in threads that DSPy starts lie below the attempt."""
    scene.run(scene.submit("parallel", inputs={"text": "t"}))
    (consumer,), calls = scene.spans("process"), scene.spans("chat")
    assert len(calls) == 3
    assert below(consumer, calls) == calls


def test_a_job_that_nobody_traced_is_a_trace_of_its_own(scene: Scene) -> None:
    """All attempts of a job whose record tells of no trace are in one."""
    job_id = scene.bench.submit("qa", model="own", inputs={"question": "q"})
    scene.run(job_id)
    (consumer,) = scene.spans("process")
    assert consumer.parent is None
    assert {ids(span)[0] for span in scene.all_spans()} == {ids(consumer)[0]}


@pytest.mark.parametrize("sends", [True, False])
def test_a_provider_hears_of_the_trace_only_where_told_so(make_scene: MakeScene, sends: bool) -> None:
    """The header goes to models with `trace_context` alone."""
    with stand_in() as server:
        message = {"role": "assistant", "content": "[[ ## answer ## ]]\nyes\n\n[[ ## completed ## ]]"}
        answer = {"id": "1", "model": "m", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
        server.answer("/v1/chat/completions", answer, method="POST")
        model = f'[models.gateway]\nmodel = "openai/m"\nbase_url = "{server.url}/v1"\n'
        scene = make_scene(config=f"{CONFIG}{model}trace_context = {str(sends).lower()}\n")
        scene.run(scene.submit(model="gateway"))
        (call,) = scene.spans("chat")
        _, _, headers, _ = server.asked[0]
        sent = {name.lower(): value for name, value in headers.items()}.get("traceparent", "")
        assert sent.startswith("00-{}-{}-".format(*ids(call)) if sends else "")
        assert bool(sent) == sends


def test_an_attempt_given_up_has_a_span(scene: Scene) -> None:
    """An attempt whose thread hangs is told when it is given up, not when it returns."""
    job_id = scene.submit("lingers", timeout_seconds=1)
    LINGER.clear()
    thread = threading.Thread(target=scene.bench.chunks.run, args=([job_id],))
    thread.start()
    assert wait_until(lambda: job_id in scene.bench.chunks.running, 10)
    scene.bench.chunks.running[job_id][1].deadline -= 1 + STUCK_SECONDS
    assert scene.bench.chunks.abandon_stuck() == 1
    (consumer,) = scene.spans("process")
    assert attributes(consumer)["error.type"] == "timeout"
    LINGER.set()
    thread.join()
    assert scene.spans("process") == [consumer]


def test_ids_for_log_lines(scene: Scene) -> None:
    """The ids of the span under way are there for whoever writes a line, and only as long as it is."""
    assert telemetry.trace_ids() == {}
    with telemetry.span("s", "client", {}):
        found = telemetry.trace_ids()
    assert sorted(found) == ["span_id", "trace_id"]
    assert telemetry.trace_ids() == {}


# ---- logs ------------------------------------------------------------------------------------------------------


def test_log_lines_bear_the_span_they_were_written_in(make_scene: MakeScene) -> None:
    """The line of a job that of its attempt, though it is written after the span has ended."""
    scene = make_scene()
    with structlog.testing.capture_logs() as lines:
        scene.run(scene.submit(headers=SAMPLED))
    (line,) = [line for line in lines if line["event"] == "job_succeeded"]
    (attempt,) = scene.spans("process")
    assert attempt.context is not None
    assert (line["trace_id"], line["span_id"]) == (TRACE, f"{attempt.context.span_id:016x}")
