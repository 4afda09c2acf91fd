"""What is not logged by us, as events like ours: libraries' records, warnings, errors that nobody caught.

Such texts may hold what callers gave: a library logs the answer it could not read, an error names the value it did not
like. So of a text only its place is told, unless it stands as it is in the code that runs, where no caller's data can
be in it; or it comes from a library that handles nothing but messages and connections. `log_content` tells all.
"""

from __future__ import annotations

import asyncio
import logging
import re
import sys
import threading
import warnings
from collections.abc import MutableMapping
from functools import lru_cache
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Final, TextIO

from dspy_jobs.settings import Settings

#: A structlog logger that filters nothing.
_Log = Any

#: Loggers that bring handlers of their own or are cut off from the root.
_WITH_HANDLERS = (
    "LiteLLM", "LiteLLM Proxy", "LiteLLM Router", "celery", "celery.task", "dspy", "kombu", "redis", "tornado.access",
    "uvicorn", "uvicorn.access", "uvicorn.error",
)  # fmt: skip
#: What these tell of each request, message and connection stands in our own events, with the job's id.
_CHATTY = ("LiteLLM", "celery", "httpcore", "httpx", "uvicorn")
#: These handle messages that hold ids only, and connections.
_WITHOUT_CONTENT = ("celery", "flower", "kombu", "redis", "tornado", "uvicorn")
#: But this one tells what a task's function raised.
_WITH_CONTENT = ("celery.app.trace",)

_LEVELS = (logging.CRITICAL, logging.ERROR, logging.WARNING, logging.INFO)

#: Flag of a class that is not part of Python or of an extension (`Py_TPFLAGS_HEAPTYPE`).
_MADE_AT_RUN_TIME = 1 << 9
_MODULE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*\Z")

#: Longest text of others that a line shows, in characters.
_LONGEST_TEXT: Final = 1000


def take_over(log: _Log, settings: Settings) -> None:
    """Have the standard library's loggers and warnings make events of `log`."""
    logging.setLoggerClass(_QuietLogger)
    level = settings.log_level.upper()
    logging.basicConfig(handlers=[_EventHandler(log, settings.log_content)], level=level, force=True)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLogger().level))
    for name, own in settings.log_levels.items():
        logging.getLogger(name).setLevel(own.upper())
    adopt_loggers()
    logging.captureWarnings(True)  # done once: whoever asks for it again changes nothing
    warnings.showwarning = _WarningTeller(log, settings.log_content)
    _uncaught.log = log


class ForeignLogger:
    """What a program gets that asks structlog for a logger."""

    def __init__(self, sink: Any, name: object = "structlog", *_: object) -> None:
        self._sink = sink
        self.name = logger_name(str(name))

    def __getattr__(self, method: str) -> Any:
        return getattr(self._sink, method)


def without_content(logger: Any, _: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A program's own event without its fields; others as they are. A structlog processor."""
    if not isinstance(logger, ForeignLogger):
        return event
    said = {"message": event["event"]} if is_literal(event["event"]) else {}
    return {"event": "library_message", "logger": logger.name, **said, "exc_info": event.get("exc_info")}


def adopt_loggers() -> None:
    """Take their own handlers from the libraries' loggers, also from those imported since the last time."""
    for name in _WITH_HANDLERS:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True


class _QuietLogger(logging.Logger):
    """A logger made from now on. What it would write to the terminal itself, the root's handler makes an event of."""

    def addHandler(self, hdlr: logging.Handler) -> None:  # noqa: N802  # logging's name
        if not (isinstance(hdlr, logging.StreamHandler) and is_terminal(hdlr.stream)):
            super().addHandler(hdlr)


def is_terminal(stream: TextIO) -> bool:
    """Whether a stream is this process's standard output or error, or stands for it."""
    return stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)


class _EventHandler(logging.Handler):
    """Makes an event of each record."""

    def __init__(self, log: _Log, shows_content: bool) -> None:
        super().__init__()
        self._log = log
        self._shows_content = shows_content

    def emit(self, record: logging.LogRecord) -> None:
        level = next((level for level in _LEVELS if record.levelno >= level), logging.DEBUG)
        try:
            said = _said(record, self._shows_content)
            raised = record.exc_info if record.exc_info and record.exc_info[0] else None
            self._log.log(level, "library_message", logger=logger_name(record.name), **said, exc_info=raised)
        except Exception:  # noqa: BLE001, S110  # a line that cannot be made must stop nobody, nor be told to the terminal
            pass


def _said(record: logging.LogRecord, shows_content: bool) -> dict[str, str]:
    if shows_content:
        return {"message": record.getMessage()[:_LONGEST_TEXT]}
    if _is_one_of(record.name, _WITHOUT_CONTENT) and not _is_one_of(record.name, _WITH_CONTENT):
        return {"message": _filled(record)[:_LONGEST_TEXT]}
    place = {"at": place_of(record.pathname, record.lineno)}
    return {"message": record.msg, **place} if is_literal(record.msg) else place


def _filled(record: logging.LogRecord) -> str:
    """The record's text, with the types of errors in the place of what they say."""
    if not record.args or not isinstance(record.args, tuple):
        return record.getMessage()
    return str(record.msg) % tuple(type(a).__name__ if isinstance(a, BaseException) else a for a in record.args)


def _is_one_of(name: str, families: tuple[str, ...]) -> bool:
    return any(name == family or name.startswith(f"{family}.") for family in families)


def is_literal(text: object) -> bool:
    """Whether a text stands as it is in the code of a function that runs in this thread: then no data can be in it.

    Code that a program has put together, as programs of thought do, has no file, and its constants may be data.
    """
    frame: FrameType | None = sys._getframe(1) if type(text) is str else None  # noqa: SLF001  # as logging itself does
    while frame:
        if text in frame.f_code.co_consts and is_file(frame.f_code.co_filename):
            return True
        frame = frame.f_back
    return False


@lru_cache(maxsize=4096)
def is_file(path: str) -> bool:
    """Whether code comes from a file; else its path may be anything."""
    return Path(path).is_file()


def place_of(path: str, line: int) -> str:
    """Where in which file, if it is one."""
    return f"{path if is_file(path) else '<no file>'}:{line}"


def logger_name(name: str) -> str:
    """A logger's name, if it can be a module's or is a library's we know; else it may be anything."""
    return name if name in _WITH_HANDLERS or _MODULE.match(name) else "unnamed"


def class_name(kind: type) -> str:
    """A class's name; where nobody finds it under that, as it was made at run time, that of the next of its bases."""
    known = next(base for base in kind.__mro__ if _is_found(base))
    return f"{known.__module__}.{known.__qualname__}".removeprefix("builtins.")


def _is_found(kind: type) -> bool:
    """Whether a class stands in its module under its name, or is one of Python's own."""
    if not kind.__flags__ & _MADE_AT_RUN_TIME:
        return True
    found: Any = sys.modules.get(kind.__module__)
    for name in kind.__qualname__.split("."):
        if name == "<locals>":
            return False
        found = getattr(found, name, None)
    return found is kind


class _WarningTeller:
    """Takes the place of `warnings.showwarning`."""

    def __init__(self, log: _Log, shows_content: bool) -> None:
        self._log = log
        self._shows_content = shows_content

    def __call__(
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,  # noqa: ARG002  # what warnings gives
        line: str | None = None,  # noqa: ARG002
    ) -> None:
        text = str(message)
        said = {"message": text[:_LONGEST_TEXT]} if self._shows_content or is_literal(text) else {}
        self._log.warning("warning", category=class_name(category), at=place_of(filename, lineno), **said)


class _Uncaught:
    """Tells of errors that nobody caught."""

    log: _Log = None

    def of_process(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        """The process ends with this."""
        if issubclass(kind, KeyboardInterrupt):
            sys.__excepthook__(kind, error, trace)
        else:
            self.log.critical("process_broke", exc_info=(kind, error, trace))

    def of_thread(self, args: threading.ExceptHookArgs) -> None:
        """A thread ends with this."""
        if not issubclass(args.exc_type, SystemExit):
            self.log.error("thread_broke", exc_info=(args.exc_type, args.exc_value, args.exc_traceback))

    def of_cleanup(self, args: sys.UnraisableHookArgs) -> None:
        """Raised where it could not be passed on, as in `__del__`."""
        raised = (args.exc_type, args.exc_value, args.exc_traceback)
        self.log.error("error_ignored", of=class_name(type(args.object)), exc_info=raised)

    def of_loop(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """An event loop met this: a task failed and nobody asked for its result, or a callback did."""
        said = {"message": context["message"]} if is_literal(context["message"]) else {}
        self.log.error("task_broke", **said, exc_info=context.get("exception"))


_uncaught = _Uncaught()


def tell_uncaught() -> None:
    """Tell of errors that end the process or a thread, or are passed over, as events."""
    sys.excepthook = _uncaught.of_process
    threading.excepthook = _uncaught.of_thread
    sys.unraisablehook = _uncaught.of_cleanup


def watch_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Tell of errors that an event loop meets and nobody waits for."""
    loop.set_exception_handler(_uncaught.of_loop)
