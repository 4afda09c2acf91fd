"""How every process logs: one line an event on stdout, in one shape whichever library the event comes from.

A line says when, how severe, which process, what happened and its fields; JSON for machines, else readable
text. A stack trace never stands in it: an exception is its type and the place that raised it, for its message
may hold a caller's data. Call `configure_logging` after importing what brings its own handlers (dspy does).
"""

from __future__ import annotations

import logging
import re
import sys
import traceback
from collections.abc import Mapping, MutableMapping
from types import TracebackType
from typing import Any, TextIO, TypeAlias

import orjson
import structlog
from structlog.typing import Processor

from dspy_jobs.line_writer import LineWriter
from dspy_jobs.settings import Settings

_ExcInfo: TypeAlias = tuple[type[BaseException], BaseException, TracebackType | None]

#: Loggers that bring handlers of their own or are cut off from the root.
_FOREIGN = (
    "uvicorn",
    "uvicorn.error",
    "uvicorn.access",
    "celery",
    "celery.task",
    "kombu",
    "dspy",
    "LiteLLM",
    "redis",
)
#: What these tell of each request, message and connection stands in our own events, with the job's id.
_CHATTY = ("httpx", "httpcore", "celery", "uvicorn")

_EVENT_LINE = re.compile(rb'\{"|\d{4}-\d\d-\d\dT\S+ +(debug|info|warning|error|critical) ')
_PLAIN_VALUE = re.compile(r'[^\s"=]+\Z')


def configure_logging(
    settings: Settings, process: str, to: TextIO | None = None, lines: LineWriter | None = None
) -> None:
    """Send the events of structlog and the standard library to stdout, or `to`, marked with the process's name.

    With `lines` structlog's events are written by that writer's own thread.
    """
    stream = to or sys.stdout
    render = _as_json if settings.log_format == "json" else _as_text
    shared = _processors(process)
    structlog.configure(
        processors=[*shared, render],
        wrapper_class=structlog.make_filtering_bound_logger(settings.log_level),
        logger_factory=lines or structlog.WriteLoggerFactory(file=stream),
        cache_logger_on_first_use=True,
    )
    _route_standard_library(shared, render, settings.log_level.upper(), stream)


def is_event_line(line: bytes) -> bool:
    """Whether a process's line of output was written by a logger configured here."""
    return _EVENT_LINE.match(line) is not None


def _processors(process: str) -> list[Processor]:
    def mark(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event.setdefault("process", process)
        return event

    return [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", key="time"),
        mark,
        _without_trace,
    ]


def _route_standard_library(shared: list[Processor], render: Processor, level: str, to: TextIO) -> None:
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
    )
    handler = logging.StreamHandler(to)
    handler.setFormatter(formatter)
    logging.basicConfig(handlers=[handler], level=level, force=True)
    for name in _FOREIGN:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLogger().level))
    logging.captureWarnings(True)


def _without_trace(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Put an exception's type and origin in the place of its trace and message."""
    event.pop("stack_info", None)
    if given := event.pop("exc_info", None):
        kind, _error, trace = _exception(given)
        event["exception"] = f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")
        if trace and (frames := traceback.extract_tb(trace)):
            event["raised_at"] = f"{frames[-1].filename}:{frames[-1].lineno}"
    return event


def _exception(given: Any) -> _ExcInfo:
    if isinstance(given, BaseException):
        return type(given), given, given.__traceback__
    found = given if isinstance(given, tuple) else sys.exc_info()
    return found if found[0] else (type(None), Exception(), None)


def _as_json(_: Any, __: str, event: Mapping[str, Any]) -> str:
    return orjson.dumps(_ordered(event), default=str, option=orjson.OPT_NON_STR_KEYS).decode()


def _as_text(_: Any, __: str, event: Mapping[str, Any]) -> str:
    fields = _ordered(event)
    time, level, process, name = (fields.pop(key) for key in ("time", "level", "process", "event"))
    values = "".join(f" {key}={_text(value)}" for key, value in fields.items())
    return f"{time} {level:<7} {process:<7} {_one_line(str(name))}{values}"


def _ordered(event: Mapping[str, Any]) -> dict[str, Any]:
    first = {key: event.get(key) for key in ("time", "level", "process", "event")}
    return first | dict(event)


def _text(value: object) -> str:
    text = str(value)
    return text if _PLAIN_VALUE.match(text) else orjson.dumps(text).decode()


def _one_line(text: str) -> str:
    return text.replace("\r", "").replace("\n", "\\n")
