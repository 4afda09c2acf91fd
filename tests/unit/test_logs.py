"""What a process's log lines look like, seen from outside it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from functools import cache
from typing import Any

import pytest

from dspy_jobs.line_writer import LineWriter
from dspy_jobs.logs import is_event_line
from tests.conftest import ROOT

#: What a caller gave: it must stand in no line.
MARK = "the caller's secret"

_HEAD = """
import asyncio, logging, os, sys, threading, warnings
import structlog
from dspy_jobs.line_writer import LineWriter
from dspy_jobs.logs import adopt_loggers, bound_ids, carry_ids, configure_logging
from dspy_jobs.foreign_logs import watch_loop
from dspy_jobs.printed_lines import own_stdout, tell_prints
from dspy_jobs.settings import Settings

noisy = logging.getLogger("dspy")
noisy.addHandler(logging.StreamHandler(sys.stderr))
noisy.propagate = False
MARK = sys.argv[1]
settings = Settings(**eval(sys.argv[2]))
log = structlog.get_logger("worker")
"""

_EVENTS = """
configure_logging(settings, "worker")
with bound_ids({"job_id": "job_1"}):
    log.info("job_finished", seconds=1.5, note='two "words"\\nand a line')
log.debug("detail")
noisy.warning("from %s", "dspy")
logging.getLogger("uvicorn.error").warning("two\\nlines")
logging.getLogger("httpx").info("chatter")
try:
    raise ValueError(MARK)
except ValueError:
    log.exception("went_wrong")
    logging.getLogger("celery").exception("Task failed")
"""


def _run(code: str, **settings: Any) -> subprocess.CompletedProcess[str]:
    """Run it in a process whose log lines have that format."""
    return _finished(code, repr({"log_format": "json", **settings}))


@cache
def _finished(code: str, settings: str) -> subprocess.CompletedProcess[str]:
    with tempfile.NamedTemporaryFile("w", suffix=".py") as script:
        script.write(_HEAD + code)
        script.flush()
        command = [sys.executable, script.name, MARK, settings]
        return subprocess.run(
            command, capture_output=True, text=True, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}
        )


def _lines(code: str, **settings: Any) -> list[dict[str, Any]]:
    """The lines that code leads to; nothing else may be written."""
    run = _run(code, **settings)
    assert run.stderr == ""
    assert run.returncode in (0, 1)
    return [json.loads(line) for line in run.stdout.splitlines()]


def _names(**settings: Any) -> list[str]:
    return [line.get("message", line["event"]) for line in _lines(_EVENTS, **settings)]


# ---- shape -----------------------------------------------------------------------------------------------------


def test_every_event_is_one_json_line_of_one_shape() -> None:
    """Our events and the libraries' begin with the same four members and bear the bound ids."""
    lines = _lines(_EVENTS)
    assert [line["event"] for line in lines] == [
        "job_finished", "library_message", "library_message", "went_wrong", "library_message"
    ]  # fmt: skip
    assert all(list(line)[:4] == ["time", "level", "process", "event"] for line in lines)
    assert {line["process"] for line in lines} == {"worker"}
    assert [line.get("job_id") for line in lines] == ["job_1", None, None, None, None]
    assert [line.get("logger") for line in lines] == [None, "dspy", "uvicorn.error", None, "celery"]


def test_every_event_is_one_readable_line() -> None:
    """The console format keeps an event on one line, whatever its text holds."""
    lines = _run(_EVENTS, log_format="console").stdout.splitlines()
    assert len(lines) == 5
    assert 'job_finished seconds=1.5 note="two \\"words\\"\\nand a line" job_id=job_1' in lines[0]
    assert all(" worker " in line for line in lines)


def test_both_formats_are_told_from_other_output() -> None:
    """A stack can tell event lines from what a library prints."""
    for log_format in ("json", "console"):
        assert all(is_event_line(line.encode()) for line in _run(_EVENTS, log_format=log_format).stdout.splitlines())
    assert not any(map(is_event_line, (b"Traceback (most recent call last):", b"[I 260101 10:00:00 x:1] y", b"")))


def test_lines_hold_no_stack_trace_and_no_message_of_an_exception() -> None:
    """An exception is its type and place, for its message may hold a caller's data."""
    for line in _lines(_EVENTS)[-2:]:
        assert line["exception"] == "ValueError"
        assert re.fullmatch(r"/.*\.py:\d+", line["raised_at"])
    assert MARK not in _run(_EVENTS).stdout + _run(_EVENTS, log_format="console").stdout


def test_the_level_holds_for_everything_and_single_libraries_have_their_own() -> None:
    """Events below the level are dropped, above it shown; a library can be louder or quieter."""
    assert "detail" in _names(log_level="debug")
    assert _names(log_level="error") == ["went_wrong", "Task failed"]
    own = {"httpx": "info", "dspy": "error", "uvicorn": "error"}
    assert _names(log_levels=own) == ["job_finished", "chatter", "went_wrong", "Task failed"]


def test_text_that_is_no_unicode_stops_neither_the_line_nor_others() -> None:
    """It is replaced, in both formats."""
    code = 'configure_logging(settings, "w", lines=LineWriter(sys.stdout))\nlog.info("x", a="\\ud800")\nlog.info("y")'
    assert [line.get("a") for line in _lines(code)] == ["?", None]
    assert " x a=?" in _run(code, log_format="console").stdout


_CONTROLS = """
configure_logging(settings, "w")
log.info("x\\x1b[2J", plain="a\\x1b[31mb", c1="\\x9b", quoted="two \\x7f", turned="\\u202e", word="Zürich")
log.info("y", **{"k\\x07": "\\r"})
"""


def test_no_line_speaks_to_the_terminal() -> None:
    """Whatever callers put into a path or an id: it is escaped, and readable for machines as it was."""
    for log_format in ("json", "console"):
        lines = _run(_CONTROLS, log_format=log_format).stdout.splitlines()
        assert len(lines) == 2
        assert all(line.isprintable() for line in lines)
    assert "word=Zürich" in lines[0]
    assert list(_lines(_CONTROLS)[0].values())[3:] == ["x\x1b[2J", "a\x1b[31mb", "\x9b", "two \x7f", "\u202e", "Zürich"]


# ---- ids -------------------------------------------------------------------------------------------------------

_IDS = """
configure_logging(settings, "api")
carry_ids(lambda known: {"trace_id": "t1", "job_id": "other"} if "job_id" in known else {})

async def request(number):
    with bound_ids({"request_id": number}):
        await asyncio.sleep(0)
        log.info("seen")

async def requests():
    await asyncio.gather(request(1), request(2))

asyncio.run(requests())
with bound_ids({"job_id": "job_1"}), bound_ids({"attempt": 2}):
    logging.getLogger("dspy").warning("inside")
log.info("outside")
"""


def test_lines_bear_the_ids_of_their_own_request_or_job() -> None:
    """Tasks do not get into one another's ids, and what is known where the line is logged is added."""
    first, second, inside, outside = _lines(_IDS)
    assert [first["request_id"], second["request_id"]] == [1, 2]
    assert (inside["job_id"], inside["attempt"], inside["trace_id"]) == ("job_1", 2, "t1")
    assert not {"job_id", "trace_id", "request_id"} & outside.keys()


# ---- what others say -------------------------------------------------------------------------------------------

_OTHERS = """
configure_logging(settings, "worker", lines=LineWriter(own_stdout()))
tell_prints(settings)
logging.getLogger("mine").info("a constant with %s", MARK)
logging.getLogger("mine").info(f"put together with {MARK}")
logging.getLogger("mine").info("number %d", MARK)
logging.getLogger("kombu.connection").warning("cannot reach %s: %s", "redis://:pw@host", ValueError(MARK))
logging.getLogger("celery.app.trace").error("Task raised: %s", MARK)
lite = logging.getLogger("LiteLLM")
lite.addHandler(logging.StreamHandler())
lite.addHandler(logging.StreamHandler(sys.__stdout__))
lite.warning("its own handlers")
structlog.get_logger("program").info("a constant", text=MARK)
structlog.get_logger().info(MARK)
warnings.warn("a constant")
warnings.warn(f"odd value {MARK}")
print("here")
print("given", MARK)
print(MARK, file=sys.stderr)
sys.stdout.buffer.write(MARK.encode() + b"\\n")
sys.stdout.reconfigure(line_buffering=True)
assert (sys.stdout.fileno(), sys.stdout.isatty(), sys.stdout.encoding) == (2, False, "utf-8")
print("no end", end="")
print(f" of {MARK}")
"""


def _others(**settings: Any) -> list[tuple[Any, ...]]:
    told = ("event", "logger", "category", "stream", "message", "text")
    return [tuple(line[name] for name in told if name in line) for line in _lines(_OTHERS, **settings)]


def test_what_others_say_is_told_only_where_no_data_can_be_in_it() -> None:
    """Records, warnings and prints are lines like ours; texts put together at run time are left out."""
    assert _others() == [
        ("library_message", "mine", "a constant with %s"),
        ("library_message", "mine"),
        ("library_message", "mine", "number %d"),
        ("library_message", "kombu.connection", "cannot reach redis://:[redacted]@host: ValueError"),
        ("library_message", "celery.app.trace", "Task raised: %s"),
        ("library_message", "LiteLLM", "its own handlers"),
        ("library_message", "program", "a constant"),
        ("library_message", "structlog"),
        ("warning", "UserWarning", "a constant"),
        ("warning", "UserWarning"),
        ("printed", "stdout", "here"),
        ("printed", "stdout"),
        ("printed", "stderr"),
        ("printed", "stdout"),
        ("printed", "stdout"),
    ]
    assert MARK not in json.dumps(_lines(_OTHERS))


_DATA_AS_NAMES = """
configure_logging(settings, "worker")
logging.getLogger(MARK).error("named")
structlog.get_logger(MARK).info("named")
exec(compile("logging.getLogger('mine').error(%r)" % MARK, MARK, "exec"))
warnings.warn("x", type(MARK, (UserWarning,), {}))
try:
    exec(compile("raise type(MARK, (ValueError,), {})(MARK)", MARK, "exec"))
except ValueError:
    log.exception("went_wrong")
thread = threading.Thread(target=lambda: 1 / 0, name=MARK)
thread.start()
thread.join()
"""


def test_data_that_serves_as_a_name_is_told_no_more_than_other_data() -> None:
    """Of loggers, classes, threads and code that a program makes at run time."""
    lines = _lines(_DATA_AS_NAMES)
    assert len(lines) == 6
    assert MARK not in json.dumps(lines)
    assert (lines[3]["category"], lines[4]["exception"], lines[4]["raised_at"]) == (
        "UserWarning", "ValueError", "<no file>:1"
    )  # fmt: skip


def test_content_is_shown_where_the_operator_wants_it() -> None:
    """With `log_content` each of those texts is there, and the fields of a program's own events."""
    lines = _lines(_OTHERS.replace('"number %d", MARK', '"number"'), log_content=True)
    told = [line for line in lines if MARK in json.dumps(line)]
    assert len(told) == 11
    assert next(line for line in lines if line["event"] == "a constant")["text"] == MARK
    assert lines[-1]["text"] == f"no end of {MARK}"


def test_what_cannot_be_logged_stops_nobody() -> None:
    """A record whose text cannot be made is dropped, without a word past the log."""
    code = 'configure_logging(settings, "w")\nlogging.getLogger("kombu").error("%d", "x")\nlog.info("alive")'
    assert [line["event"] for line in _lines(code)] == ["alive"]


def test_output_past_python_does_not_get_between_the_lines() -> None:
    """Native code and child processes write to standard error."""
    run = _run(_OTHERS + 'os.write(1, b"native\\n"); os.system("echo child")')
    assert run.stderr == "native\nchild\n"
    assert all(is_event_line(line.encode()) for line in run.stdout.splitlines())


# ---- errors nobody caught --------------------------------------------------------------------------------------

_UNCAUGHT = """
configure_logging(settings, "worker", lines=LineWriter(sys.stdout))

def fail():
    raise ValueError(MARK)

thread = threading.Thread(target=fail, name="helper")
thread.start()
thread.join()

class Clumsy:
    def __del__(self):
        fail()

Clumsy()

async def loop():
    watch_loop(asyncio.get_running_loop())
    asyncio.get_running_loop().call_soon(fail)
    asyncio.create_task(later())
    await asyncio.sleep(0)
    await asyncio.sleep(0)

async def later():
    fail()

asyncio.run(loop())
fail()
"""


def test_errors_that_nobody_caught_are_lines_too() -> None:
    """Of a thread, a destructor, an event loop and the process: with type and place, without what they say."""
    run = _run(_UNCAUGHT)
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    names = ["thread_broke", "error_ignored", "task_broke", "task_broke", "process_broke"]
    assert [line["event"] for line in lines] == names
    assert {line["exception"] for line in lines} == {"ValueError"}
    assert len({line["raised_at"] for line in lines}) == 1
    assert (lines[1]["of"], lines[-1]["level"], run.returncode) == ("function", "critical", 1)
    assert MARK not in run.stdout + run.stderr


def test_an_interrupt_is_no_crash() -> None:
    """Ctrl-C ends a process as it always does."""
    run = _run('configure_logging(settings, "worker")\nraise KeyboardInterrupt')
    assert run.stdout == ""
    assert "KeyboardInterrupt" in run.stderr


# ---- secrets ---------------------------------------------------------------------------------------------------


def test_keys_are_taken_out_of_texts_even_with_content(monkeypatch: pytest.MonkeyPatch) -> None:
    """By what they look like, and by the values that the environment's telling names hold."""
    monkeypatch.setenv("ACME_API_KEY", "quite ordinary words")
    code = """
configure_logging(settings, "worker")
log.warning("a", error="refused: Bearer abcdefgh12345", inputs="quite ordinary words", key_count=3)
logging.getLogger("dspy").warning("refused quite ordinary words")
try:
    raise ValueError("quite ordinary words")
except ValueError:
    log.exception("b")
"""
    first, second, third = _lines(code, log_content=True)
    assert (first["error"], first["inputs"], first["key_count"]) == ("refused: [redacted]", "[redacted]", 3)
    assert second["message"] == "refused [redacted]"
    assert third["exception_message"] == "[redacted]"


# ---- writing ---------------------------------------------------------------------------------------------------


def test_a_reader_that_has_gone_stops_nobody() -> None:
    """The lines are lost, the writer goes on, and no more than so many are kept."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as nowhere:
        writer = LineWriter(nowhere)
        for number in range(30_000):
            writer.msg(str(number))
        assert writer.flush()
        writer.msg("more")
        assert writer.flush()
        assert len(writer._lines) <= 20_000


_LAST_LINES = """
import signal
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
configure_logging(settings, "worker", lines=LineWriter(sys.stdout))
for number in range(3000):
    log.info("counted", number=number)
print("logged", file=sys.stderr)
if {exits_by_signal}:
    signal.pause()
"""


def _start(exits_by_signal: bool) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", _HEAD + _LAST_LINES.format(exits_by_signal=exits_by_signal), MARK, "{}"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)


def test_a_reader_that_stands_still_keeps_nobody_from_logging_or_ending() -> None:
    """A terminal after Ctrl-S, a pager: the process does what it does, and ends when it is told to."""
    with _start(exits_by_signal=True) as process:
        assert process.stderr
        assert process.stderr.readline() == "logged\n"
        process.send_signal(signal.SIGTERM)
        try:
            assert process.wait(20) == 0
        finally:
            process.kill()
        assert process.stderr.read() == ""


def test_a_process_that_ends_leaves_no_line_unwritten() -> None:
    """More than a pipe holds, and the reader takes it."""
    with _start(exits_by_signal=False) as process:
        written, _ = process.communicate()
    assert len(written.splitlines()) == 3000


def test_whatever_runs_for_long_logs_through_a_writer_of_its_own() -> None:
    """Else who reads its lines could hold it up."""
    callers = [path for part in ("api", "autoscaler", "dspy_jobs", "worker") for path in (ROOT / part).rglob("*.py")]
    calls = re.findall(r"[^`]configure_logging\((settings.*)", "".join(path.read_text() for path in callers))
    assert len(calls) >= 6
    assert [call for call in calls if "lines=" not in call] == []
