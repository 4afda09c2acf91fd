"""What is reported of a bug, and what never is."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from dspy_jobs import error_reports
from dspy_jobs.settings import ConfigurationError, SentrySettings, Settings
from tests.conftest import ROOT
from tests.sentry import Sentry, local_sentry

PRIVATE = "what only the caller may know"


@pytest.fixture
def sentry(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sentry]:
    """A local Sentry that the configuration names."""
    with local_sentry() as server:
        monkeypatch.setenv("TEST_DSN", server.dsn)
        yield server


@pytest.fixture(autouse=True)
def stop() -> Iterator[None]:
    """No test leaves its process reporting."""
    hooks = sys.excepthook, threading.excepthook
    yield
    error_reports.stop()
    sys.excepthook, threading.excepthook = hooks


def settings(**sentry: Any) -> Settings:
    """Settings with reports on."""
    return Settings(sentry=SentrySettings(dsn_env="TEST_DSN", **sentry))


def broken(text: str, program: str = "qa") -> None:
    """Meet a bug and report it."""
    local_variable = text
    try:
        try:
            raise LookupError(local_variable)
        except LookupError as error:
            raise RuntimeError(f"no luck with {local_variable}") from error
    except RuntimeError as error:
        error_reports.report(error, "attempt_broke", {"job_id": "job_1", "program": program, "batch_id": None})


def test_a_report_says_where_it_happened_and_nothing_private(sentry: Sentry) -> None:
    """Types, places, job and release are there; text, variables, source, host paths and the environment are not."""
    error_reports.start(settings(environment="test"), "worker")
    broken(PRIVATE)
    error_reports.stop()
    (event,) = sentry.events
    first, second = event["exception"]["values"]
    assert (first["type"], second["type"]) == ("LookupError", "RuntimeError")
    frame = second["stacktrace"]["frames"][-1]
    assert (frame["function"], frame["module"], frame["in_app"]) == ("broken", __name__, True)
    told = {"job_id": "job_1", "program": "qa", "event": "attempt_broke", "process": "worker"}
    assert event["tags"] == told
    assert (event["environment"], event["release"].partition("@")[0]) == ("test", "dspy-jobs")
    allowed = {
        "contexts", "environment", "event_id", "exception", "level", "platform", "release", "sdk", "server_name",
        "tags", "timestamp",
    }  # fmt: skip
    assert set(event) <= allowed
    assert set(frame) == {"filename", "function", "module", "lineno", "in_app"}
    assert event["sdk"]["integrations"] == []
    assert PRIVATE.encode() not in b"".join(sentry.bodies)
    assert b"local_variable" not in b"".join(sentry.bodies)


def test_texts_are_sent_where_told_so_without_secrets(sentry: Sentry) -> None:
    """`sentry.messages` sends them, but for keys and passwords."""
    error_reports.start(settings(messages=True), "worker")
    broken("sk-abcdefghijklmnop at redis://user:hunter2@host/1")
    error_reports.stop()
    text = sentry.events[0]["exception"]["values"][1]["value"]
    assert text == "no luck with [redacted] at redis://user:[redacted]@host/1"


def test_the_same_bug_is_reported_once_a_minute(sentry: Sentry, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch of a broken program must not use up a month's reports; other programs' bugs are their own."""
    error_reports.start(settings(), "worker")
    for _ in range(50):
        broken("a")
    broken("a", "other")
    monkeypatch.setattr(error_reports, "REPEAT_SECONDS", 0.0)
    broken("a")
    error_reports.stop()
    assert [event["tags"]["program"] for event in sentry.events] == ["qa", "other", "qa"]


def test_what_cannot_be_printed_is_reported(sentry: Sentry) -> None:
    """An exception's own code may fail, and nobody hears of that."""

    class Mute(Exception):
        def __str__(self) -> str:
            raise ValueError("no text")

    error_reports.start(settings(messages=True), "worker")
    error_reports.report(Mute(), "program_error", {})
    error_reports.stop()
    assert [value["type"] for value in sentry.events[0]["exception"]["values"]][-1].endswith("Mute")


def test_a_thread_that_dies_is_reported(sentry: Sentry) -> None:
    """What nobody caught is reported under the thread's name."""
    seen = []
    threading.excepthook = seen.append
    error_reports.start(settings(), "worker")
    thread = threading.Thread(target=[].pop, name="housekeeping")
    thread.start()
    thread.join()
    error_reports.stop()
    (event,) = sentry.events
    assert (event["tags"]["event"], event["tags"]["thread"]) == ("thread_broke", "housekeeping")
    assert len(seen) == 1


def test_what_ends_a_process_is_reported(sentry: Sentry) -> None:
    """Before it ends, and it ends as it would have."""
    code = (
        "from dspy_jobs import error_reports; from dspy_jobs.settings import *\n"
        "error_reports.start(Settings(sentry=SentrySettings(dsn_env='TEST_DSN')), 'autoscaler')\n"
        "raise LookupError('gone')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, "LookupError: gone" in done.stderr) == (1, True)
    assert [event["tags"]["event"] for event in sentry.events] == ["process_broke"]


def test_a_sentry_that_is_away_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports are dropped, and the process ends."""
    monkeypatch.setenv("TEST_DSN", "http://key@127.0.0.1:9/1")
    error_reports.start(settings(), "worker")
    broken("a")
    error_reports.stop(0.1)


@pytest.mark.parametrize(
    ("value", "complaint"), [(None, "TEST_DSN is not set"), ("not a dsn", "TEST_DSN does not hold a DSN")]
)
def test_a_wrong_dsn_is_named_and_not_shown(monkeypatch: pytest.MonkeyPatch, value: str | None, complaint: str) -> None:
    """The variable is named, never its value."""
    if value is None:
        monkeypatch.delenv("TEST_DSN", raising=False)
    else:
        monkeypatch.setenv("TEST_DSN", value)
    with pytest.raises(ConfigurationError, match=complaint) as raised:
        error_reports.check(settings())
    assert value is None or value not in str(raised.value)


def test_without_the_extra_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that cannot report says what to install; one that need not does not look."""
    monkeypatch.setitem(sys.modules, "sentry_sdk.utils", None)
    with pytest.raises(ConfigurationError, match=r'pip install "dspy-jobs\[sentry\]"'):
        error_reports.check(settings())
    error_reports.check(Settings())


def test_nothing_is_loaded_where_nothing_is_reported() -> None:
    """Without a DSN the SDK is not imported and the hooks stay as they are."""
    code = (
        "import sys; from dspy_jobs import error_reports; from dspy_jobs.settings import Settings\n"
        "before = sys.excepthook; error_reports.start(Settings(), 'api'); error_reports.report(OSError(), 'e', {})\n"
        "print(sys.excepthook is before, [m for m in sys.modules if m.startswith('sentry')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "True []"
