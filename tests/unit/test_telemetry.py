"""Spans on their way to a collector, and what tracing costs a process that does not trace."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from dspy_jobs import telemetry
from dspy_jobs.settings import ConfigurationError, Settings, TracingSettings
from dspy_jobs.telemetry import NO_SPAN, Place
from dspy_jobs.waiting import wait_until
from tests.conftest import ROOT
from tests.otlp import received
from tests.unit.http_stand_in import StandIn, stand_in


@pytest.fixture(autouse=True)
def stop() -> Iterator[None]:
    """No test leaves its process tracing."""
    yield
    telemetry.stop()


@pytest.fixture
def collector() -> Iterator[StandIn]:
    """A collector that takes everything."""
    with stand_in() as server:
        server.answer("/v1/traces", b"", method="POST")
        yield server


def settings(**tracing: Any) -> Settings:
    """Settings with tracing on."""
    return Settings(tracing=TracingSettings(enabled=True, **tracing))


def test_spans_reach_a_collector(collector: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """They arrive as protobuf under the collector's address, with its headers, at the latest when the process stops."""
    monkeypatch.setenv("COLLECTOR_HEADERS", "authorization=Bearer%20abc,x-team=a")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    telemetry.start(settings(endpoint=collector.url, headers_env="COLLECTOR_HEADERS"), "worker")
    with telemetry.span("outer", "client", {"a": 1, "none": None}) as outer:
        carrier = outer.carrier
        telemetry.attempt_span("attempt", {"b": ["x"]}, Place("job_1", 2, carrier)).end()
    telemetry.stop()
    first, last = received(collector)
    assert (first.name, last.name, last.attributes) == ("attempt", "outer", {"a": 1})
    assert (first.trace, first.parent, first.attributes) == (last.trace, last.id, {"b": ["x"]})
    assert last.service == "dspy-jobs-worker"
    headers = {name.lower(): value for name, value in collector.asked[0][2].items()}
    assert (headers["authorization"], headers["x-team"]) == ("Bearer abc", "a")


@pytest.mark.parametrize("given", ["", "/", "/v1/traces"])
def test_a_collector_s_address_may_be_whole(collector: StandIn, given: str) -> None:
    """With or without the path."""
    telemetry.start(settings(endpoint=collector.url + given, service_name="mine"), "api")
    telemetry.span("s", "client", {}).end()
    telemetry.stop()
    assert [span.service for span in received(collector)] == ["mine"]


def test_opentelemetry_s_own_variables_hold_where_nothing_is_set(
    collector: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Address, name and sampler come from the environment."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv("OTEL_SERVICE_NAME", "named")
    telemetry.start(settings(), "api")
    telemetry.span("s", "client", {}).end()
    telemetry.stop()
    assert [span.service for span in received(collector)] == ["named"]
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
    telemetry.start(settings(), "api")
    telemetry.span("s", "client", {}).end()
    telemetry.stop()
    assert len(received(collector)) == 1


def test_a_collector_that_is_away_holds_nobody_up() -> None:
    """Spans are made and dropped, and a stop waits only as long as it may."""
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts and never answers
        telemetry.start(settings(endpoint=f"http://127.0.0.1:{silent.getsockname()[1]}"), "worker")
        began = time.monotonic()
        for _ in range(5_000):
            telemetry.span("s", "client", {}).end()
        telemetry.stop(0.2)
        assert time.monotonic() - began < 5


def test_attempts_of_a_job_find_one_another(collector: StandIn) -> None:
    """Processes that know a job's id and the attempt's number know the span's id."""
    place = [Place("job_1", number, {}) for number in (1, 2, 3)]
    for number in (0, 1, 2):
        telemetry.start(settings(endpoint=collector.url), "worker")
        telemetry.attempt_span("attempt", {}, place[number]).end()
        telemetry.stop()
    first, second, third = received(collector)
    assert first.trace == second.trace == third.trace
    assert (first.links, second.links, third.links) == ((), (first.id,), (first.id, second.id))


def test_ended_spans_stay_as_they_are(collector: StandIn, caplog: pytest.LogCaptureFixture) -> None:
    """What comes after the end changes nothing, and nothing complains."""
    telemetry.start(settings(endpoint=collector.url), "worker")
    span = telemetry.span("s", "client", {})
    span.end()
    span.set({"late": 1})
    span.event("late", {})
    span.fail("late")
    span.end()
    telemetry.stop()
    assert received(collector)[0].attributes == {}
    assert not caplog.records


def test_without_the_extra_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that cannot trace says what to install; one that need not does not look."""
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    monkeypatch.delitem(sys.modules, "dspy_jobs.telemetry.recording", raising=False)
    with pytest.raises(ConfigurationError, match=r'pip install "dspy-jobs\[tracing\]"'):
        telemetry.check(settings())
    telemetry.check(Settings())


def test_headers_that_are_missing_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable must be there."""
    monkeypatch.delenv("COLLECTOR_HEADERS", raising=False)
    with pytest.raises(ConfigurationError, match="COLLECTOR_HEADERS is not set"):
        telemetry.check(settings(headers_env="COLLECTOR_HEADERS"))


def test_nothing_is_loaded_where_nothing_is_traced() -> None:
    """Spans do nothing, and OpenTelemetry's SDK is not imported."""
    code = (
        "import sys; from dspy_jobs import telemetry; from dspy_jobs.settings import Settings\n"
        "telemetry.start(Settings(), 'api'); s = telemetry.span('s', 'client', {})\n"
        "print(s is telemetry.NO_SPAN, s.carrier, telemetry.trace_ids(), telemetry.current_carrier())\n"
        "print([m for m in sys.modules if m.startswith('opentelemetry')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.split("\n")[:2] == ["True {} {} {}", "[]"]
    assert telemetry.attempt_span("a", {}, Place("job_1", 1, {})) is NO_SPAN


def test_spans_arrive_while_a_process_runs(collector: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread of its own sends them in groups."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    telemetry.start(settings(endpoint=collector.url), "api")
    telemetry.span("s", "client", {}).end()
    assert wait_until(lambda: len(received(collector)) == 1, 10)
