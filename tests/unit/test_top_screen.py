"""What `dspy-jobs top` draws, in terminals of every size."""

from __future__ import annotations

import io
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.console import Console

from dspy_jobs.models import Health
from dspy_jobs.top.frame import Frame, History, Reading
from dspy_jobs.top.samples import Samples
from dspy_jobs.top.screen import Lost, View, screen
from tests.unit.service_scene import HEALTH, health, metrics, queue, worker

NOW = datetime(2026, 1, 1, 3, 0, tzinfo=UTC)
CLOSED = {"open": False, "reason": "circuit_open", "until": "2026-01-01T03:00:23Z"}
TROUBLED = health(
    redis={"status": "unhealthy", "detail": "is full (maxmemory): raise it", "latency_ms": None},
    queues={
        "status": "degraded",
        "detail": "dspy.claude is closed (circuit_open): see circuits",
        "queues": [queue("fast"), queue("claude", queued=522, running=0, oldest_wait_seconds=341.0, gate=CLOSED)],
    },
    circuits={"status": "degraded", "detail": "claude is open: its provider fails", "models": {"claude": "open"}},
    workers={"live": 3, "draining": 1, "workers": [worker(1), worker(2, consuming=False), worker(3, draining=True)]},
)


def framed(document: dict[str, Any]) -> Frame:
    """A frame of a service that runs 50 jobs a second."""
    history, found = History(60), Health.model_validate(document)
    history.add(Reading(0, found, Samples(metrics(0))))
    return history.add(Reading(2, found, Samples(metrics(100, failed=10, dollars=0.01, unpriced=1, hits=25))))


def drawn(
    document: dict[str, Any] | None, width: int = 80, height: int | None = None, lost: Lost | None = None
) -> list[str]:
    """The lines of a screen."""
    console = Console(width=width, file=io.StringIO(), color_system=None)
    frame = None if document is None else framed(document)
    console.print(screen(frame, View("http://127.0.0.1:8080", NOW, lost, has_keys=True), console, height))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def line_with(lines: list[str], word: str) -> str:
    """The first line with a word."""
    return next(line for line in lines if word in line)


def test_the_figures_are_there() -> None:
    """Rates, what waits and runs, Redis, each queue, worker and program; what has no known price is not free."""
    lines = drawn(HEALTH)
    assert "HEALTHY" in lines[0]
    assert re.search(r"50\.0 jobs/s +10\.0% errors +25\.0% from cache +≥ \$0\.3000 a minute", lines[1])
    assert "1,204 queued   256 running   2 workers" in line_with(lines, "now")
    assert "0.3 ms latency   52 MiB of 768 MiB memory   healthy cache" in line_with(lines, "Redis")
    assert re.search(r"dspy\.fast +1,204 +128 +3\.2 s +2 +open", line_with(lines, "dspy.fast"))
    assert re.search(r"0\.3 s ago +96/128 +█+░+ +well", line_with(lines, "node-1"))
    assert re.search(r"deep +10 +3\.0 s +3\.9 s", line_with(lines, "deep"))
    assert "all 2 closed" in line_with(lines, "BREAKERS")
    assert "6%  $1.25 of $20.00 a day" in line_with(lines, "BUDGETS")


def test_what_is_wrong_comes_first_the_worst_before_all() -> None:
    """Each with what to do; closed queues and workers that need a look are on top of their tables."""
    lines = drawn(TROUBLED)
    text = "\n".join(lines)
    assert "UNHEALTHY" in lines[0]
    places = [text.index(word) for word in ("✗ redis", "! circuits", "! queues", "QUEUE ", "WORKER ")]
    assert places == sorted(places)
    assert text.index("dspy.claude  ") < text.index("dspy.fast  ")
    assert "circuit_open, 23 s left" in line_with(lines, "dspy.claude  ")
    assert text.index("takes nothing") < text.rindex("draining") < text.index(" well")
    assert "claude open" in line_with(lines, "BREAKERS")


@pytest.mark.parametrize("width", [40, 80, 100, 150, 200])
@pytest.mark.parametrize("document", [HEALTH, TROUBLED], ids=["well", "troubled"])
def test_no_line_is_wider_than_the_terminal(document: dict[str, Any], width: int) -> None:
    """Nor does a number get lost: the states of queues and workers stand whole from 80 columns on."""
    lines = drawn(document, width)
    assert max(map(len, lines)) <= width
    if width >= 80:
        assert document is HEALTH or "takes nothing" in "\n".join(lines)


@pytest.mark.parametrize("height", [24, 40, 60])
def test_long_tables_are_cut_to_the_terminal(height: int) -> None:
    """With a hundred workers and fifty queues the screen has as many lines as the terminal, and says what is left."""
    document = health(
        queues={"queues": [queue(f"model-{n}") for n in range(50)]},
        workers={"live": 130, "workers": [worker(n) for n in range(100)]},
    )
    lines = drawn(document, 80, height)
    assert height - 15 < len(lines) <= height
    assert "more" in "\n".join(lines)
    whole = "\n".join(drawn(document))
    assert all(f"node-{n}-" in whole for n in range(100))
    assert "… and 30 more, not listed" in whole


def test_a_service_that_went_away_is_told_of_with_what_was_known() -> None:
    """Since when, why, and that it goes on by itself."""
    lost = Lost(NOW - timedelta(seconds=73), "Connection refused")
    lines = drawn(HEALTH, lost=lost)
    assert "UNREACHABLE" in lines[0]
    assert re.search(r"no answer since \d\d:58:47 \(73 s\): Connection refused", lines[1])
    assert line_with(lines, "dspy.fast")
    assert "no answer since" in drawn(None, lost=lost)[1]


def test_a_service_without_anything_is_drawn_too() -> None:
    """No workers, no queues, no budgets, Redis away from the start."""
    bare = health(
        redis={"status": "unhealthy", "detail": "cannot be reached: start it", "latency_ms": None},
        workers={"status": "unknown", "live": None, "draining": None, "lost": None, "workers": []},
        queues={"status": "unknown", "queues": []},
        circuits={"status": "unknown", "models": {}},
        budgets={"status": "unknown", "budgets": []},
    )
    text = "\n".join(drawn(bare))
    for words in ("no answer latency", "? workers", "no queue is known", "not known", "none set"):
        assert words in text


def test_foreign_text_moves_no_cursor() -> None:
    """Names and details are shown as they are, without markup and control characters."""
    odd = health(workers={"workers": [worker(1, id="[red]w\x1b[2J")]}, cache={"status": "degraded", "detail": "[bold]"})
    text = "\n".join(drawn(odd))
    assert "[red]w\N{REPLACEMENT CHARACTER}[2J" in text
    assert "[bold]" in text


def test_words_of_another_release_are_shown_without_what_moves_the_cursor() -> None:
    """A version, a status, why a queue is closed."""
    closed = queue("fast", gate={"open": False, "reason": "moon\x1b[2J", "until": None})
    odd = health(queues={"queues": [closed]}, cache={"enabled": True, "status": "odd\x1b[3J"}, redis={"status": "new"})
    text = "\n".join(drawn({**odd, "version": "1\x1b]0;x\x07", "status": "new\x1b[1J"}))
    assert "\x1b" not in text
    for words in ("moon\\u001b", "odd\\u001b", "1\\u001b", "NEW\\u001b"):
        assert words in text


def test_failing_programs_have_a_table_of_their_own() -> None:
    """Which program, on which model, how many of how many, and by which codes; none where none fails."""
    naps = {"program": "naps", "model": "slow", "ended": 200, "failed": 150, "codes": {"program_error": 150}}
    failing = {"status": "degraded", "detail": "150 of 200", "programs": [naps | {"failing": True}]}
    lines = drawn(health(failures=failing))
    assert re.search(r"naps +slow +150 +200 +75\.0% +program_error", "\n".join(lines))
    assert not any("FAILURES" in line for line in drawn(HEALTH))
    calm = drawn(health(failures={"status": "healthy", "programs": [naps]}))
    assert not any("FAILURES" in line for line in calm)


def test_a_budget_used_up_is_the_first_thing_said_on_a_small_screen() -> None:
    """The cause before its effects, each in a line or two, and the tables are still there."""
    closed = [queue(f"m{n}", gate=CLOSED | {"reason": "budget_exhausted"}) for n in range(8)]
    told = "8 queues are closed (budget_exhausted): a budget is used up; see `dspy-jobs budgets`" + ", and so on" * 30
    document = health(
        budgets={
            "status": "degraded",
            "detail": "the budget of all clients is used up, and jobs wait: " + "raise " * 30,
        },
        queues={"status": "degraded", "detail": told, "queues": closed},
    )
    lines = drawn(document, 80, 24)
    assert len(lines) <= 24
    assert next(line for line in lines if line.startswith("!")).startswith("! budgets")
    assert sum("so on" in line for line in lines) <= 2
    assert any(line.startswith("QUEUE") for line in lines)
    assert any("BUDGETS" in line for line in lines)
    assert sum("so on" in line for line in drawn(document, 80, 60)) > 2


def test_workers_that_went_without_notice_stay_in_the_table() -> None:
    """With when they were heard of last."""
    gone = [{"id": "node-9-4711-ab", "host": "node-9", "pid": 4711, "heard_at": "2026-01-01T02:58:00Z"}]
    line = line_with(drawn(health(workers={"gone": gone}), 100), "node-9")
    assert "gone without notice" in line
