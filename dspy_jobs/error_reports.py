"""Reports of bugs to Sentry: exceptions that nobody had foreseen, here and in users' programs.

The only module that imports Sentry's SDK, and only in a process that calls `start` with a DSN configured. The SDK's own
integrations are all left out, and so is its global state, which belongs to users' programs: what is sent is what
`report` is given. Nothing private goes along: of an exception its type and the places it passed, without variables,
source code and, unless `sentry.messages` is on, without its text.
"""

from __future__ import annotations

import atexit
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeAlias

from dspy_jobs import __version__, telemetry
from dspy_jobs.redaction import without_secrets
from dspy_jobs.settings import ConfigurationError, SentrySettings, Settings, secret

if TYPE_CHECKING:
    from sentry_sdk.types import Event

#: Names and ids that tell which job or request it was; None is left out.
Tags: TypeAlias = Mapping[str, str | int | None]

#: Seconds in which the same bug is reported once, however many jobs meet it.
REPEAT_SECONDS = 60.0
#: Bugs remembered for that.
_REMEMBERED = 256
#: Seconds a stopping process waits for its last reports to be taken.
FLUSH_SECONDS = 2.0
#: Characters of an exception's text.
_LONGEST_TEXT = 500
#: What a report tells of each place an exception passed.
_OF_FRAME = ("filename", "function", "module", "lineno")

_reporter: _Reporter | None = None


def check(settings: Settings) -> None:
    """Refuse reporting that cannot work.

    Raises:
        ConfigurationError: Sentry's SDK is not installed, or there is no DSN.
    """
    if settings.sentry.dsn_env is not None:
        _dsn(settings.sentry.dsn_env)


def start(settings: Settings, process: str) -> None:
    """Report from now on, if that is switched on: also what ends this process or one of its threads.

    Raises:
        ConfigurationError: it cannot work.
    """
    global _reporter  # noqa: PLW0603  # one a process, as long as it runs
    check(settings)
    if settings.sentry.dsn_env is None or _reporter is not None:
        return
    _reporter = _Reporter(settings.sentry, process)
    _report_the_uncaught()
    atexit.register(stop)


def stop(seconds: float = FLUSH_SECONDS) -> None:
    """Send what is left, for so many seconds at most, and report no more."""
    global _reporter
    stopped, _reporter = _reporter, None
    if stopped:
        stopped.end(seconds)


def report(error: BaseException, event: str, tags: Tags) -> None:
    """Report an exception, under the name of the log's event that tells of it. Never raises and never waits."""
    if _reporter:
        _reporter.report(error, event, tags)


def _dsn(variable: str) -> str:
    """Where reports go.

    Raises:
        ConfigurationError: it is not known.
    """
    try:
        from sentry_sdk.utils import BadDsn, Dsn
    except ImportError:
        raise ConfigurationError(
            'sentry.dsn_env needs Sentry\'s SDK, which is not installed: pip install "dspy-jobs[sentry]"'
        ) from None
    given = secret(variable)
    if given is None:
        raise ConfigurationError(f"sentry.dsn_env: {variable} is not set in the environment")
    try:
        return str(Dsn(given))
    except (BadDsn, ValueError):
        raise ConfigurationError(f"sentry.dsn_env: {variable} does not hold a DSN") from None


class _Reporter:
    """A client of Sentry's for this process alone; a thread of its own sends."""

    def __init__(self, settings: SentrySettings, process: str) -> None:
        from sentry_sdk import Client
        from sentry_sdk.utils import event_from_exception

        self._describe = event_from_exception
        self._process, self._keeps_messages = process, settings.messages
        self._seen: dict[tuple[Any, ...], float] = {}
        self._lock = threading.Lock()
        self._client = Client(
            dsn=_dsn(settings.dsn_env or ""),
            environment=settings.environment,
            release=f"dspy-jobs@{__version__}",
            sample_rate=settings.sample_rate,
            shutdown_timeout=FLUSH_SECONDS,
            default_integrations=False,
            auto_enabling_integrations=False,
            integrations=[],
            include_local_variables=False,
            include_source_context=False,
            max_request_body_size="never",
            max_breadcrumbs=0,
            auto_session_tracking=False,
            enable_backpressure_handling=False,
            propagate_traces=False,
            spotlight=False,
        )

    def end(self, seconds: float) -> None:
        self._client.close(timeout=seconds)

    def report(self, error: BaseException, event: str, tags: Tags) -> None:
        if self._is_new(error, event, tags):
            with suppress(Exception):  # it must not take the place of what is reported
                self._client.capture_event(self._event(error, event, tags))

    def _is_new(self, error: BaseException, event: str, tags: Tags) -> bool:
        """Whether the bug was not reported just now. A batch may meet it 50,000 times."""
        bug = (event, type(error), _place(error.__traceback__), tags.get("program"))
        now = time.monotonic()
        with self._lock:
            if now - self._seen.get(bug, -REPEAT_SECONDS) < REPEAT_SECONDS:
                return False
            self._seen.pop(bug, None)
            self._seen[bug] = now
            if len(self._seen) > _REMEMBERED:
                del self._seen[next(iter(self._seen))]
            return True

    def _event(self, error: BaseException, event: str, tags: Tags) -> Event:
        described, _ = self._describe(error, client_options=self._client.options)
        found: dict[str, Any] = dict(described)
        known = {"event": event, "process": self._process, **tags, "trace_id": telemetry.trace_ids().get("trace_id")}
        return {
            "level": "error",
            "exception": {"values": [self._exception(value) for value in found["exception"]["values"]]},
            "tags": {name: str(value) for name, value in known.items() if value is not None},
            "contexts": {"trace": dict(ids)} if (ids := telemetry.trace_ids()) else {},
        }

    def _exception(self, described: dict[str, Any]) -> dict[str, Any]:
        text = str(described.get("value") or "")
        frames = (described.get("stacktrace") or {}).get("frames") or []
        return {
            "type": described.get("type"),
            "module": described.get("module"),
            "value": without_secrets(text)[:_LONGEST_TEXT] if self._keeps_messages else "",
            "stacktrace": {"frames": [_frame(frame) for frame in frames]},
        }


def _frame(described: dict[str, Any]) -> dict[str, Any]:
    path = str(described.get("abs_path"))
    is_library = "/site-packages/" in path or "/lib/python" in path
    return {**{name: described.get(name) for name in _OF_FRAME}, "in_app": not is_library}


def _place(trace: TracebackType | None) -> tuple[str, int] | None:
    """Where an exception was raised."""
    if trace is None:
        return None
    while trace.tb_next is not None:
        trace = trace.tb_next
    return trace.tb_frame.f_code.co_filename, trace.tb_lineno


def _report_the_uncaught() -> None:
    """Report what ends this process or a thread, and then do what would have been done."""
    end_of_process, end_of_thread = sys.excepthook, threading.excepthook

    def process_ends(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if isinstance(error, Exception):
            report(error, "process_broke", {})
        end_of_process(kind, error, trace)

    def thread_ends(given: threading.ExceptHookArgs) -> None:
        if isinstance(given.exc_value, Exception):
            report(given.exc_value, "thread_broke", {"thread": given.thread.name if given.thread else None})
        end_of_thread(given)

    sys.excepthook, threading.excepthook = process_ends, thread_ends
