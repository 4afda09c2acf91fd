"""Who may use Flower, and what its buttons may do to a worker."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from celery.worker.control import Panel
from flower.options import options
from redis.exceptions import ConnectionError as RedisConnectionError
from tornado.httputil import HTTPHeaders, HTTPServerRequest, RequestStartLine
from tornado.web import ErrorHandler

from dspy_jobs.ids import new_job_id
from dspy_jobs.settings import ConfigurationError, FlowerSettings, Settings
from dspy_jobs.stack.parts import flower_url, parts_of
from worker.flower import _OfThisMachine, credentials
from worker.remote_control import REFUSED, take_over


def _settings(**flower: Any) -> Settings:
    return Settings(flower=FlowerSettings(**flower))


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment without credentials, to put some in."""
    monkeypatch.delenv("FLOWER_BASIC_AUTH", raising=False)
    return monkeypatch


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_on_this_machine_alone_nobody_need_say_who_they_are(host: str, given: pytest.MonkeyPatch) -> None:
    """As `make up` has it; what is set counts all the same."""
    assert credentials(_settings(host=host)) == []
    given.setenv("FLOWER_BASIC_AUTH", "ada:love,bob:p:w")
    assert credentials(_settings(host=host)) == ["ada:love", "bob:p:w"]


_WORKERS = RequestStartLine("GET", "/workers", "HTTP/1.1")


@pytest.mark.parametrize(
    ("name", "is_ours"), [("localhost:5555", True), ("127.0.0.1", True), ("[::1]:5555", True), ("evil.example", False)]
)
def test_without_credentials_only_this_machines_own_names_count(name: str, is_ours: bool) -> None:
    """A web site whose name suddenly stands for this machine learns nothing."""
    page = _OfThisMachine(capp=Celery(), options=options)
    request = HTTPServerRequest(headers=HTTPHeaders({"Host": name}), start_line=_WORKERS)
    request.connection = SimpleNamespace(set_close_callback=lambda _: None)  # type: ignore[assignment]
    assert (page.find_handler(request).handler_class is ErrorHandler) != is_ours


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "jobs.example.com"])
def test_others_must_say_who_they_are(host: str, given: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Beyond this machine Flower refuses to be without credentials, and says what to set; a file will do."""
    with pytest.raises(ConfigurationError, match=r"FLOWER_BASIC_AUTH=name:password"):
        credentials(_settings(host=host))
    file = tmp_path / "auth"
    file.write_text("ada:love\n")
    given.setenv("FLOWER_BASIC_AUTH_FILE", str(file))
    assert credentials(_settings(host=host)) == ["ada:love"]


@pytest.mark.parametrize("text", ["ada", ":love", "ada:", "ada:lo,ve"])
def test_what_cannot_be_meant_is_refused(text: str, given: pytest.MonkeyPatch) -> None:
    """A name without a password would let in whoever guesses the name; the message does not repeat what was given."""
    given.setenv("FLOWER_BASIC_AUTH", text)
    with pytest.raises(ConfigurationError) as refused:
        credentials(_settings())
    assert text not in str(refused.value)


def test_a_stack_asks_flower_where_it_answers() -> None:
    """The address has the path; nothing of it needs a word on the command line."""
    settings = _settings(host="0.0.0.0", port=81, url_prefix="/ops/flower")
    assert flower_url(settings) == "http://127.0.0.1:81/ops/flower"
    part = parts_of(settings, 1, flower=True)[-1]
    assert part.health_url == "http://127.0.0.1:81/ops/flower/healthcheck"
    assert part.command[1:] == ("-m", "worker.flower")


class LedgerStandIn:
    """Notes which scripts were asked for; or is away."""

    def __init__(self, is_away: bool = False) -> None:
        self.asked: list[Any] = []
        self._is_away = is_away

    def run(self, operation: Any) -> tuple[str, str]:
        """As a store does."""
        if self._is_away:
            raise RedisConnectionError("away")
        self.asked.append(operation.args)
        return "canceling", "running"


@pytest.fixture
def panel() -> Iterator[dict[str, Any]]:
    """Celery's commands, put back afterwards."""
    before = dict(Panel.data)
    yield Panel.data
    Panel.data.clear()
    Panel.data.update(before)


def test_what_would_not_do_what_it_says_is_refused(panel: dict[str, Any]) -> None:
    """Every refused command is one of Celery's, and answers with what to do instead."""
    assert REFUSED.keys() <= panel.keys()
    take_over(LedgerStandIn())  # type: ignore[arg-type]
    for name, instead in REFUSED.items():
        assert panel[name](object(), n=1, queue="q", task_id="t", min=1, max=2) == {"error": instead}


@pytest.mark.parametrize("command", ["revoke", "terminate"])
def test_revoking_a_task_cancels_the_job(panel: dict[str, Any], command: str) -> None:
    """The ledger is asked to cancel it, as over HTTP; a chunk or anything else is no job."""
    ledger = LedgerStandIn()
    take_over(ledger)  # type: ignore[arg-type]
    job_id = new_job_id()
    answer = panel[command](object(), task_id=job_id, terminate=True, signal="SIGTERM")
    assert answer == {"ok": f"{{'{job_id}': 'canceling'}}"}
    assert [args[1] for args in ledger.asked] == [job_id]
    assert "error" in panel[command](object(), task_id=[f"chunk-2-{job_id}"])
    assert len(ledger.asked) == 1


def test_without_redis_nothing_is_canceled(panel: dict[str, Any]) -> None:
    """The answer says so, and the worker's loop goes on."""
    take_over(LedgerStandIn(is_away=True))  # type: ignore[arg-type]
    assert panel["revoke"](object(), task_id=new_job_id()) == {"error": "away"}


def test_a_shutdown_from_afar_is_a_signal(panel: dict[str, Any]) -> None:
    """So that the worker drains as it does for whoever supervises it."""
    take_over(LedgerStandIn())  # type: ignore[arg-type]
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    try:
        panel["shutdown"](object())
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [signal.SIGTERM]
