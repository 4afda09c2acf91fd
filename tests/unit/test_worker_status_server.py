"""The worker's own port."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.parser import text_string_to_metric_families

from dspy_jobs.settings import ConfigurationError, Settings, WorkerSettings
from dspy_jobs.waiting import wait_until
from worker.process import status_server
from worker.status_server import StatusServer

HEALTH: dict[str, Any] = {}


@pytest.fixture
def server() -> Iterator[StatusServer]:
    """A server with one gauge, whose health is what `HEALTH` says."""
    registry = CollectorRegistry()
    Gauge("dspy_worker_threads", "…", registry=registry).set(8)
    HEALTH.clear()
    HEALTH.update(status="healthy")
    server = StatusServer("127.0.0.1", 0)
    server.start(registry, lambda: HEALTH)
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def client(server: StatusServer) -> Iterator[httpx.Client]:
    """A client of it."""
    host, port = server.address
    with httpx.Client(base_url=f"http://{host}:{port}", timeout=10) as client:
        yield client


@pytest.mark.parametrize("accept", ["*/*", "application/openmetrics-text;version=1.0.0"])
def test_metrics_are_given_as_asked_for(client: httpx.Client, accept: str) -> None:
    """In Prometheus's own text, or as OpenMetrics."""
    answer = client.get("/metrics", headers={"accept": accept})
    assert answer.status_code == 200
    assert ("openmetrics" in answer.headers["content-type"]) == ("openmetrics" in accept)
    (family,) = text_string_to_metric_families(answer.text)
    assert family.samples[0].value == 8


@pytest.mark.parametrize(("status", "code"), [("healthy", 200), ("degraded", 200), ("unhealthy", 503)])
def test_health_is_a_status_a_supervisor_understands(client: httpx.Client, status: str, code: int) -> None:
    """Only what a restart mends is no success."""
    HEALTH["status"] = status
    answer = client.get("/health?verbose=1")
    assert (answer.status_code, answer.json()) == (code, {"status": status})


def test_other_addresses_are_not_there(client: httpx.Client) -> None:
    """The answer says which are."""
    answer = client.get("/")
    assert answer.status_code == 404
    assert "/health" in answer.text


def test_a_client_that_says_nothing_holds_up_nobody(server: StatusServer, client: httpx.Client) -> None:
    """Others are answered meanwhile."""
    with socket.create_connection(server.address):
        assert client.get("/health").status_code == 200


def test_clients_that_dribble_take_no_more_than_a_few_threads_and_not_for_long() -> None:
    """Each would keep a thread for ever with a byte now and then; the worker needs them for jobs."""
    server = StatusServer("127.0.0.1", 0, patience=0.5)
    server.start(CollectorRegistry(), lambda: {"status": "healthy"})
    before = threading.active_count()
    clients = [socket.create_connection(server.address) for _ in range(40)]
    try:
        assert wait_until(lambda: threading.active_count() >= before + 16, 10)
        assert threading.active_count() <= before + 16

        def dribbles() -> int:
            return sum(map(_takes_a_byte, clients))

        assert wait_until(lambda: dribbles() == 0, 20)
        assert wait_until(lambda: threading.active_count() <= before, 10)
        host, port = server.address
        assert httpx.get(f"http://{host}:{port}/health").status_code == 200
    finally:
        for client in clients:
            client.close()
        server.shutdown()
        server.server_close()


def _takes_a_byte(client: socket.socket) -> bool:
    try:
        return client.send(b"G") == 1
    except OSError:
        return False


@pytest.mark.parametrize("host", ["127.0.0.1", "192.0.2.1"])
def test_a_port_that_cannot_be_had_is_a_clear_error(server: StatusServer, host: str) -> None:
    """It is in use, or the address is not this machine's; the message says what to do."""
    with pytest.raises(ConfigurationError, match=r"worker\.metrics_port: .*DSPY_JOBS_WORKER_METRICS_PORT"):
        StatusServer(host, server.address[1])


def test_a_worker_has_a_port_if_it_is_to_have_one(server: StatusServer) -> None:
    """None by default, any for 0, and no other than the one that is set."""
    assert status_server(Settings()) is None
    free = status_server(Settings(worker=WorkerSettings(metrics_port=0)))
    assert free is not None
    assert free.address[1] > 0
    free.server_close()
    with pytest.raises(ConfigurationError):
        status_server(Settings(worker=WorkerSettings(metrics_port=server.address[1])))
    for text, port in (("", None), ("0", 0), ("9101", 9101)):
        assert WorkerSettings(metrics_port=text).metrics_port == port  # type: ignore[arg-type]


def test_it_listens_on_ipv6_too() -> None:
    """Where the address is one, and the machine has any."""
    try:
        server = StatusServer("::1", 0)
    except ConfigurationError as error:
        pytest.skip(str(error))
    assert server.address[0] == "::1"
    server.server_close()
