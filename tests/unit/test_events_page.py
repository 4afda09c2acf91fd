"""docs/events.md lists what the code logs: every event with its level and fields, and no other."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from dspy_jobs.job_lines import JobLine
from dspy_jobs.logs import OUR_LOGGERS
from tests.conftest import ROOT

PAGE = ROOT / "docs" / "events.md"
PACKAGES = ("api", "worker", "autoscaler", "dspy_jobs", "sandbox")
LEVELS = {"debug", "info", "warning", "error", "critical", "exception", "log"}

#: Fields that are spread into a call from a variable, by file and event.
SPREAD = {
    ("autoscaler/backends/process.py", "worker_died"): {"last_lines"},
    ("api/request_scope.py", "request"): set(),
    ("dspy_jobs/foreign_logs.py", "library_message"): {"message", "at"},
    ("dspy_jobs/foreign_logs.py", "task_broke"): {"message"},
    ("dspy_jobs/foreign_logs.py", "warning"): {"message"},
    ("dspy_jobs/printed_lines.py", "printed"): {"text"},
    ("dspy_jobs/stack/supervisor.py", "died"): {"last_lines"},
    ("dspy_jobs/stack/serve.py", "ready"): {"api", "docs", "flower", "sandbox", "metrics", "data"},
    ("worker/chunk.py", "outcome_refused"): set(),
}
#: The file whose events are told by the fields of a job's line.
JOB_LINES = "dspy_jobs/job_lines.py"
#: How the page names those.
A_JOBS_LINE = "a job's line"
#: Borne by each line about a request, job, batch or trace; the page names them once.
IDS = {"request_id", "job_id", "batch_id", "attempt", "trace_id", "span_id"}


@dataclass
class Event:
    """An event of one section: the levels and fields it is logged with."""

    levels: set[str] = field(default_factory=set)
    fields: set[str] = field(default_factory=set)


Events = dict[tuple[str, str], Event]


def _section(path: str) -> str:
    """Which processes log what stands in a file."""
    if path.startswith("dspy_jobs/"):
        return "stack" if path.startswith("dspy_jobs/stack/") else "every process"
    return path.partition("/")[0]


def _calls(tree: ast.AST) -> Iterator[tuple[ast.Call, str]]:
    """Calls of a logger of ours, and their methods."""
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LEVELS):
            continue
        called = node.func.value
        name = called.id if isinstance(called, ast.Name) else called.attr if isinstance(called, ast.Attribute) else ""
        if name.lstrip("_") == "log":
            yield node, node.func.attr


def _fields(path: str, name: str, call: ast.Call, method: str) -> set[str]:
    if path == JOB_LINES:
        assert {ast.unparse(keyword.value) for keyword in call.keywords} == {"ids", "line"}
        return {A_JOBS_LINE}
    fields = {"exception", "raised_at"} if method == "exception" else set()
    for keyword in call.keywords:
        if keyword.arg == "exc_info":
            fields |= {"exception", "raised_at"}
        elif keyword.arg:
            fields.add(keyword.arg)
        elif isinstance(keyword.value, ast.Dict):
            fields |= {ast.literal_eval(key) for key in keyword.value.keys if key}
        else:
            fields |= SPREAD[path, name]
    return fields - IDS


def _logged_in(path: str, source: str) -> Iterator[tuple[str, str, set[str]]]:
    """Names, levels ('' where the level is reckoned) and fields of a file's events."""
    for call, method in _calls(ast.parse(source)):
        name = call.args[1 if method == "log" else 0]
        assert isinstance(name, ast.Constant), f"{path}:{call.lineno}: an event's name must stand in the code"
        level = {"exception": "error", "log": ""}.get(method, method)
        yield name.value, level, _fields(path, name.value, call, method)


@pytest.fixture(scope="module")
def logged() -> Events:
    """What the code logs."""
    events: Events = defaultdict(Event)
    for file in (file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))):
        path = str(file.relative_to(ROOT))
        for name, level, fields in _logged_in(path, file.read_text()):
            event = events[_section(path), name]
            event.levels |= {level}
            event.fields |= fields
    return dict(events)


def _words(cell: str) -> set[str]:
    return set(re.findall(r"`([^`]+)`", cell))


@pytest.fixture(scope="module")
def listed() -> Events:
    """What the page lists."""
    events: Events = {}
    section = ""
    for line in PAGE.read_text().splitlines():
        if line.startswith("## "):
            section = line.removeprefix("## ").lower()
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `") and len(cells) == 5:
            name, level, meaning, fields, remedy = cells
            assert meaning, f"{name}: what does it mean?"
            assert remedy, f"{name}: what is to be done?"
            key = section, *_words(name)
            assert key not in events, f"{key} stands there twice"
            events[key] = Event(set(re.split(r", | or ", level)), {fields} if fields == A_JOBS_LINE else _words(fields))
    return events


def test_every_event_is_listed_and_every_listed_event_is_logged(logged: Events, listed: Events) -> None:
    """Neither side knows an event, of a kind of process, that the other does not."""
    assert logged.keys() - listed.keys() == set(), "not on the page"
    assert listed.keys() - logged.keys() == set(), "not in the code"


def test_levels_and_fields_are_those_of_the_code(logged: Events, listed: Events) -> None:
    """Of each event the page names every level and every field, and no other."""
    wrong = {
        key: (logged[key], event) for key, event in listed.items() if key in logged and not _agree(logged[key], event)
    }
    assert not wrong


def _agree(logged: Event, listed: Event) -> bool:
    is_reckoned = "" in logged.levels
    return logged.fields == listed.fields and (is_reckoned or logged.levels == listed.levels)


def test_the_fields_of_a_jobs_line_are_explained() -> None:
    """The page explains each of them, and no other."""
    _, _, section = PAGE.read_text().partition("## A job's line")
    rows = [row for row in section.partition("\n## ")[0].splitlines() if row.startswith("| `")]
    assert set().union(*(_words(row.split("|")[1]) for row in rows)) == JobLine.__annotations__.keys()


def test_an_event_whose_name_is_put_together_is_found() -> None:
    """Such a name could not be listed."""
    with pytest.raises(AssertionError, match=r"x\.py:1"):
        list(_logged_in("x.py", 'log.info("job_" + status)'))


def test_loggers_of_ours_are_known_as_such() -> None:
    """What is logged under any other name is taken for a program's, and its fields are left out."""
    sources = [file.read_text() for package in PACKAGES for file in (ROOT / package).rglob("*.py")]
    asked = {name for source in sources for name in re.findall(r"structlog\.get_logger\((.*?)\)", source)}
    assert {name.strip('"') for name in asked} <= OUR_LOGGERS
