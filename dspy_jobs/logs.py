"""How every process logs: one line an event on stdout, in one shape whichever library the event comes from.

A line says when, how severe, which process, what happened and its fields, among them the ids of the request or job it
is about; JSON for machines, else readable text. `docs/events.md` lists every event. No line holds a stack trace, a key,
or what callers gave or got: an exception is its type and the place that raised it. `log_content` lets content in.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType, TracebackType
from typing import Any, Final, TextIO, TypeAlias

import orjson
import structlog
from structlog.typing import Processor

from dspy_jobs import foreign_logs
from dspy_jobs.foreign_logs import ForeignLogger
from dspy_jobs.line_writer import LineWriter
from dspy_jobs.printable import printable
from dspy_jobs.redaction import keep_secret, without_secrets
from dspy_jobs.settings import Settings, environment_secrets

_ExcInfo: TypeAlias = tuple[type[BaseException], BaseException, TracebackType | None]

#: Names under which this project's code asks structlog for loggers. Whoever asks for others is somebody's program.
OUR_LOGGERS = frozenset({"api", "autoscaler", "flower", "jobs", "printed", "stack", "worker"})

#: Longest part of an input, an output or another content that a line shows, in characters.
LONGEST_CONTENT: Final = 1000

#: Fields that may hold what others wrote, in which a key may stand.
_FREE_TEXTS = frozenset(
    {
        "detail", "error", "exception_message", "inputs", "last_lines", "line", "message", "output", "path", "problem",
        "reason", "text",
    }
)  # fmt: skip

_EVENT_LINE = re.compile(rb'\{"|\d{4}-\d\d-\d\dT\S+ +(debug|info|warning|error|critical) ')
_QUOTED_FOR = re.compile(r'[\s"=]')

#: Ids that are known where a line is logged, given what it bears already.
IdSource: TypeAlias = Callable[[Mapping[str, Any]], Mapping[str, Any]]

_bound: ContextVar[Mapping[str, Any]] = ContextVar("log_ids", default=MappingProxyType({}))
_sources: list[IdSource] = []


def configure_logging(
    settings: Settings, process: str, to: TextIO | None = None, lines: LineWriter | None = None
) -> None:
    """Send all events to stdout, or `to`, marked with the process's name: ours, the libraries', uncaught errors.

    With `lines` they are written by that writer's own thread. Call `adopt_loggers` after importing what brings handlers
    of its own.
    """
    keep_secret(environment_secrets())
    sink = lines or structlog.WriteLogger(file=to or sys.stdout)
    render = _as_json if settings.log_format == "json" else _as_text
    processors = [*_processors(process, settings.log_content), render]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(settings.log_level),
        logger_factory=lambda *names: sink if names and names[0] in OUR_LOGGERS else ForeignLogger(sink, *names),
        cache_logger_on_first_use=True,
    )
    # The standard library's loggers have levels of their own, so nothing is filtered behind them.
    everything = structlog.make_filtering_bound_logger(0)
    foreign_logs.take_over(structlog.wrap_logger(sink, processors=processors, wrapper_class=everything), settings)
    if to is None:
        foreign_logs.tell_uncaught()


adopt_loggers = foreign_logs.adopt_loggers


def is_event_line(line: bytes) -> bool:
    """Whether a process's line of output was written by a logger configured here."""
    return _EVENT_LINE.match(line) is not None


@contextmanager
def bound_ids(ids: Mapping[str, Any]) -> Iterator[None]:
    """Have every line logged within bear these ids; threads and tasks begun within have them as far as they are copies.

    One context variable, not structlog's one for each id: those cost a worker as much as the line of a job.
    """
    token = _bound.set({**_bound.get(), **ids})
    try:
        yield
    finally:
        _bound.reset(token)


def bind_id(name: str, value: str) -> None:
    """Have every further line of this task or thread bear an id."""
    _bound.set({**_bound.get(), name: value})


def carry_ids(source: IdSource) -> None:
    """Have each line bear the ids that `source` knows where the line is logged, such as those of a trace.

    What a line bears already stays.
    """
    _sources.append(source)


def carried_ids() -> dict[str, Any]:
    """The ids a line logged here would bear, for one that is logged elsewhere."""
    return dict(_with_ids(None, "", {}))


def shortened(content: Any) -> str:
    """An input or output as a line shows it: JSON, cut."""
    try:
        text = orjson.dumps(content, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:  # a text that is no valid Unicode
        text = repr(content)
    return text[:LONGEST_CONTENT]


def _processors(process: str, shows_content: bool) -> list[Processor]:
    def mark(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event.setdefault("process", process)
        return event

    return [
        _as_it_is if shows_content else foreign_logs.without_content,
        _with_ids,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", key="time"),
        mark,
        _with_exception_message if shows_content else _as_it_is,
        _without_trace,
        _without_secrets,
    ]


def _with_ids(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name, value in _bound.get().items():
        event.setdefault(name, value)
    for source in _sources:
        for name, value in source(event).items():
            event.setdefault(name, value)
    return event


def _as_it_is(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return event


def _with_exception_message(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if given := event.get("exc_info"):
        event["exception_message"] = _said_by(_exception(given)[1])[:LONGEST_CONTENT]
    return event


def _said_by(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001  # its own code runs here
        return ""


def _without_trace(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Put an exception's type and origin in the place of its trace and message."""
    event.pop("stack_info", None)
    if given := event.pop("exc_info", None):
        kind, _error, trace = _exception(given)
        event.update(_kind_and_place(kind, trace))
    return event


def raised(error: BaseException) -> dict[str, str]:
    """An exception as lines tell of it: its type and where it was raised, never what it says."""
    return _kind_and_place(type(error), error.__traceback__)


def _kind_and_place(kind: type[BaseException], trace: TracebackType | None) -> dict[str, str]:
    told = {"exception": foreign_logs.class_name(kind)}
    return told | ({"raised_at": _origin(trace)} if trace else {})


def _origin(trace: TracebackType) -> str:
    while trace.tb_next:
        trace = trace.tb_next
    return foreign_logs.place_of(trace.tb_frame.f_code.co_filename, trace.tb_lineno)


def _exception(given: Any) -> _ExcInfo:
    if isinstance(given, BaseException):
        return type(given), given, given.__traceback__
    found = given if isinstance(given, tuple) else sys.exc_info()
    return found if found[0] else (type(None), Exception(), None)


def _without_secrets(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name in event.keys() & _FREE_TEXTS:
        if isinstance(text := event[name], str):
            event[name] = without_secrets(text)
    return event


def _as_json(_: Any, __: str, event: Mapping[str, Any]) -> str:
    fields = _ordered(event)
    try:
        return _json(fields)
    except TypeError:  # a text that is no valid Unicode
        return _json({name: _valid(value) for name, value in fields.items()})


def _json(fields: dict[str, Any]) -> str:
    return printable(orjson.dumps(fields, default=str, option=orjson.OPT_NON_STR_KEYS).decode())


def _valid(value: object) -> object:
    return value if isinstance(value, int | float | None) else _valid_text(str(value))


def _valid_text(text: str) -> str:
    return text if text.isascii() else text.encode(errors="replace").decode()


def _as_text(_: Any, __: str, event: Mapping[str, Any]) -> str:
    fields = _ordered(event)
    time, level, process, name = (fields.pop(key) for key in ("time", "level", "process", "event"))
    values = "".join(f" {key}={_text(value)}" for key, value in fields.items())
    return printable(f"{time} {level:<7} {process:<7} {_valid_text(str(name))}{values}")


def _ordered(event: Mapping[str, Any]) -> dict[str, Any]:
    first = {key: event.get(key) for key in ("time", "level", "process", "event")}
    return first | dict(event)


def _text(value: object) -> str:
    text = _valid_text(str(value))
    return orjson.dumps(text).decode() if not text or _QUOTED_FOR.search(text) else text
