"""What a process's log lines look like, seen from outside it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from dspy_jobs.logs import is_event_line

_PROGRAM = """
import logging, sys, warnings
import structlog
from dspy_jobs.logs import configure_logging
from dspy_jobs.settings import Settings

log = structlog.get_logger()
noisy = logging.getLogger("dspy")
noisy.addHandler(logging.StreamHandler(sys.stderr))
noisy.propagate = False
configure_logging(Settings(log_format=sys.argv[1], log_level=sys.argv[2]), "worker")
with structlog.contextvars.bound_contextvars(job="job_1"):
    log.info("job_finished", seconds=1.5, note='two "words"\\nand a line')
log.debug("detail")
noisy.warning("from %s", "dspy")
logging.getLogger("uvicorn.error").warning("two\\nlines")
logging.getLogger("httpx").info("chatter")
try:
    raise ValueError("the caller's secret")
except ValueError:
    log.exception("went_wrong")
    logging.getLogger("celery").exception("Task failed")
"""


def _run(log_format: str, level: str = "info") -> subprocess.CompletedProcess[bytes]:
    run = subprocess.run([sys.executable, "-c", _PROGRAM, log_format, level], capture_output=True, check=True)
    assert run.stderr == b""
    return run


def _events(level: str = "info") -> dict[str, dict[str, Any]]:
    lines = [json.loads(line) for line in _run("json", level).stdout.splitlines()]
    return {line["event"]: line for line in lines}


def test_every_event_is_one_json_line_of_one_shape() -> None:
    """Our events and the libraries' begin with the same four members and carry the bound context."""
    events = _events()
    assert set(events) == {"job_finished", "from dspy", "two\nlines", "went_wrong", "Task failed"}
    assert all(list(event)[:4] == ["time", "level", "process", "event"] for event in events.values())
    assert {event["process"] for event in events.values()} == {"worker"}
    assert events["job_finished"]["job"] == "job_1"
    assert (events["from dspy"]["level"], events["from dspy"]["logger"]) == ("warning", "dspy")


def test_every_event_is_one_readable_line() -> None:
    """The console format keeps an event on one line, whatever its text holds."""
    lines = _run("console").stdout.decode().splitlines()
    assert len(lines) == 5
    assert 'job_finished seconds=1.5 note="two \\"words\\"\\nand a line" job=job_1' in lines[0]
    assert all(" worker " in line for line in lines)


def test_both_formats_are_told_from_other_output() -> None:
    """A stack can tell event lines from what a library prints."""
    for log_format in ("json", "console"):
        assert all(is_event_line(line) for line in _run(log_format).stdout.splitlines())
    assert not any(map(is_event_line, (b"Traceback (most recent call last):", b"[I 260101 10:00:00 x:1] y", b"")))


def test_lines_hold_no_stack_trace_and_no_message_of_an_exception() -> None:
    """An exception is its type and place, for its message may hold a caller's data."""
    events = _events()
    for name in ("went_wrong", "Task failed"):
        assert events[name]["exception"] == "ValueError"
        assert events[name]["raised_at"].startswith("<string>:")
    assert b"secret" not in _run("json").stdout + _run("console").stdout


def test_the_level_holds_for_everything() -> None:
    """Events below the level are dropped, above it shown."""
    assert "detail" in _events("debug")
    assert set(_events("error")) == {"went_wrong", "Task failed"}
