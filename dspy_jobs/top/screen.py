"""A frame as a terminal shows it: what is wrong first, then what waits, who works, what is slow, what it costs.

What is a matter of seconds to understand at night decides the order and the words; what is in order stays short.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.styled import Styled
from rich.table import Table
from rich.text import Text

from dspy_jobs.cli.display import text
from dspy_jobs.models import BudgetHealth, Component, Gate, Queue, WorkerHealth
from dspy_jobs.printable import printable
from dspy_jobs.top.frame import Frame, ProgramTimes, Rates

#: Columns from which tables stand side by side.
_WIDE = 150
#: How much room is taken, from the most to the least: rows of a table, and whether lines are left empty between tables.
_ROOMS = (*((rows, True) for rows in (100, 50, 30, 20, 15, 12, 10, 8, 6, 5, 4, 3)), (3, False), (2, False), (1, False))
#: From so many rows of a table on a problem has so many lines, of which the names of components take some columns.
_PROBLEM_LINES, _PROBLEM_MARGIN = ((20, 20), (5, 2)), 14
#: Seconds without a heartbeat that are worth a color: workers renew their leases twice a second.
_LATE_BEAT_SECONDS = 3.0

#: Share of failed jobs from which it is worth a color.
_MANY_ERRORS = 0.05
#: Share of a budget from which it is worth a color.
_NEARLY_SPENT = 0.8

_COLORS = {"healthy": "green", "degraded": "yellow", "unhealthy": "red", "unknown": "magenta"}
_SIGNS = {"degraded": "!", "unhealthy": "✗", "unknown": "?"}
_BLOCKS = "▁▂▃▄▅▆▇█"
_NOT_KNOWN = "–"


@dataclass(frozen=True)
class Lost:
    """The service does not answer."""

    since: datetime
    reason: str


@dataclass(frozen=True)
class View:
    """Who looks, at what, and when."""

    url: str
    now: datetime
    lost: Lost | None = None
    has_keys: bool = False
    """Whether keys are heard."""


def screen(frame: Frame | None, view: View, console: Console, height: int | None = None) -> RenderableType:
    """What to draw; of long tables as many rows as fit into so many lines, all of them if None."""
    if height is None:
        return _drawn(frame, view, console.width, *_ROOMS[0])
    for room in _ROOMS:
        drawn = _drawn(frame, view, console.width, *room)
        if len(console.render_lines(drawn, pad=False)) <= height:
            break
    return drawn


def _drawn(frame: Frame | None, view: View, width: int, rows: int, is_airy: bool) -> RenderableType:
    parts = [_head(frame, view)]
    if view.lost:
        parts.append(_unreachable(view.lost, view.now, frame is not None))
    if frame is not None:
        body = _body(frame, view.now, width, rows, is_airy)
        # What is no longer so must not be taken for what is.
        parts.append(Styled(body, "dim") if view.lost else body)
    if view.has_keys and is_airy:
        parts.append(Text("\nq quits", style="dim"))
    return Group(*parts)


def _body(frame: Frame, now: datetime, width: int, rows: int, is_airy: bool) -> RenderableType:
    top = [_figures(frame, width), *_problems(frame, width, rows), Text()]
    queues, workers = _queues(frame, now, rows), _workers(frame, rows)
    programs, spending = _programs(frame, rows), _spending(frame, now)
    top += _failures(frame, rows)
    if width < _WIDE:
        tables = [queues, workers, programs, spending]
        return Group(*top, *(_with_gaps(tables) if is_airy else tables))
    halves = Table.grid(expand=True, padding=(0, 3))
    halves.add_column(ratio=3)
    halves.add_column(ratio=2)
    halves.add_row(Group(queues, Text(), workers), Group(programs, Text(), spending))
    return Group(*top, halves)


def _with_gaps(tables: Sequence[RenderableType]) -> list[RenderableType]:
    """Tables with an empty line between each two."""
    return [part for table in tables for part in (table, Text())][:-1]


def _head(frame: Frame | None, view: View) -> RenderableType:
    status = "unreachable" if view.lost else frame.health.status if frame else "…"
    color = "red" if view.lost else _COLORS.get(status, "white")
    version = printable(f" {frame.health.version}") if frame else ""
    head = Table.grid(expand=True)
    head.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    head.add_column(justify="right", no_wrap=True)
    left = Text.assemble(("dspy-jobs top", "bold"), version, "  ", text(view.url))
    status = printable(status.upper())
    badge = Text.assemble(f"{view.now.astimezone():%H:%M:%S}  ", (f" {status} ", f"bold reverse {color}"))
    head.add_row(left, badge)
    return head


def _unreachable(lost: Lost, now: datetime, has_numbers: bool) -> Text:
    ago = _duration((now - lost.since).total_seconds())
    said = f"no answer since {lost.since.astimezone():%H:%M:%S} ({ago}): "
    rest = "\nBelow is what was last known; it goes on by itself when the service answers." if has_numbers else ""
    return Text.assemble((said, "bold red"), text(lost.reason), (rest, "dim"))


def _figures(frame: Frame, width: int) -> RenderableType:
    """The few numbers that tell whether anything moves."""
    rates, queues = frame.rates, frame.health.components.queues.queues
    moved = _line(
        ("jobs/s", _number(rates.jobs_per_second), ""),
        ("errors", _share(rates.error_share), "red" if (rates.error_share or 0) > _MANY_ERRORS else ""),
        ("from cache", _share(rates.cached_share), ""),
        ("a minute", _cost_rate(rates), ""),
    )
    stands = _line(
        ("queued", f"{sum(queue.queued for queue in queues):,}", ""),
        ("running", f"{sum(queue.running for queue in queues):,}", ""),
        ("workers", _fleet(frame), ""),
    )
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column()
    span = f"last {_duration(rates.seconds)}" if rates.seconds else "so far"
    spark = Text(_spark(frame.pace, width - len(span) - len(moved) - 6), style="cyan")
    grid.add_row(span, Text.assemble(moved, "   ", spark))
    grid.add_row("now", stands)
    grid.add_row("Redis", _redis(frame))
    return grid


def _line(*figures: tuple[str, str, str]) -> Text:
    """Names of numbers, the numbers and their colors."""
    pieces = [Text.assemble((value, f"bold {style}".strip()), (f" {name}", "dim")) for name, value, style in figures]
    return Text("   ").join(pieces)


def _fleet(frame: Frame) -> str:
    found = frame.health.components.workers
    more = [f"{number} {word}" for number, word in ((found.draining, "draining"), (found.lost, "lost")) if number]
    return f"{_known(found.live)}{' (' + ', '.join(more) + ')' if more else ''}"


def _redis(frame: Frame) -> Text:
    redis, cache = frame.health.components.redis, frame.health.components.cache
    figures = [
        (
            "latency",
            "no answer" if redis.latency_ms is None else f"{redis.latency_ms:.1f} ms",
            _COLORS.get(redis.status, ""),
        )
    ]
    if redis.used_memory_bytes is not None:
        limit = f" of {_bytes(redis.max_memory_bytes)}" if redis.max_memory_bytes else ""
        figures.append(("memory", f"{_bytes(redis.used_memory_bytes)}{limit}", ""))
    figures.append(("cache", printable(cache.status) if cache.enabled else "off", _COLORS.get(cache.status, "")))
    return _line(*figures)


def _problems(frame: Frame, width: int, rows: int) -> Iterator[RenderableType]:
    """What is wrong and what to do, the worst first; where tables have few rows this too has few lines."""
    lines = next((lines for least, lines in _PROBLEM_LINES if rows >= least), 1)
    order = ("unhealthy", "degraded", "unknown")
    parts = frame.health.components.by_name().items()
    found = [(order.index(part.status), name, part) for name, part in parts if part.status in order]
    # That all others are unknown while Redis is away is no news of theirs.
    shown = [entry for entry in found if entry[2].status != "unknown"]
    if not shown:
        return
    grid = Table.grid(padding=(0, 1))
    for no_wrap in (True, True, False):
        grid.add_column(no_wrap=no_wrap, overflow="fold")
    for _, name, part in sorted(shown, key=lambda entry: entry[0]):
        color = _COLORS[part.status]
        grid.add_row(
            Text(_SIGNS[part.status], f"bold {color}"),
            Text(name, f"bold {color}"),
            _cut(part.detail or "", lines * (width - _PROBLEM_MARGIN)),
        )
    yield Text()
    yield grid


def _cut(detail: str, room: int) -> Text:
    return text(detail if len(detail) <= room else f"{detail[: room - 1]}…")


def _table(title: str, columns: Sequence[tuple[str, bool]], part: Component | None = None) -> Table:
    """A table; each column has a name and whether it holds numbers. The first one takes what room is left."""
    since = f" (as of {part.as_of.astimezone():%H:%M:%S})" if part and part.as_of else ""
    table = Table(box=None, pad_edge=False, header_style="dim", expand=True, padding=(0, 1))
    for number, (name, is_numeric) in enumerate(columns):
        table.add_column(
            Text(f"{title}{since}", style="bold cyan not dim") if number == 0 else name,
            justify="right" if is_numeric else "left",
            no_wrap=True,
            overflow="ellipsis",
            ratio=1 if number == 0 else None,
        )
    return table


def _fill(table: Table, rows: Sequence[Sequence[Any]], limit: int, nothing: str) -> Table:
    limit = limit if len(rows) > limit + 1 else len(rows)  # the line that says so would take the last one's place
    for row in rows[:limit]:
        table.add_row(*row)
    if len(rows) > limit:
        table.add_row(Text(f"… and {len(rows) - limit} more", style="dim"))
    if not rows:
        table.add_row(Text(nothing, style="dim"))
    return table


def _failures(frame: Frame, limit: int) -> list[RenderableType]:
    """Programs that fail more often than by chance; nothing where there are none."""
    part = frame.health.components.failures
    failing = [found for found in part.programs if found.failing]
    if not failing:
        return []
    columns = (("model", False), ("failed", True), ("of", True), ("share", True), ("codes", False))
    table = _table("FAILURES", (("", False), *columns), part)
    rows = [
        (
            text(found.program), text(found.model), f"{found.failed:,}", f"{found.ended:,}",
            Text(_share(found.failed / found.ended if found.ended else None), "bold red"), text(", ".join(found.codes)),
        )
        for found in failing
    ]  # fmt: skip
    return [_fill(table, rows, min(limit, 5), ""), Text()]


def _queues(frame: Frame, now: datetime, limit: int) -> Table:
    """Closed ones first, then those that wait longest."""
    part = frame.health.components.queues
    numbers = (("queued", True), ("running", True), ("oldest", True), ("workers", True), ("state", False))
    table = _table("QUEUE", (("", False), *numbers), part)
    queues = sorted(part.queues, key=lambda q: (_is_open(q), -(q.oldest_wait_seconds or 0), -q.queued, q.name))
    rows = [
        (
            text(queue.name), f"{queue.queued:,}", f"{queue.running:,}", _duration(queue.oldest_wait_seconds),
            str(queue.workers or 0), _gate(queue.gate, now),
        )
        for queue in queues
    ]  # fmt: skip
    return _fill(table, rows, limit, "no queue is known")


def _is_open(queue: Queue) -> bool:
    return queue.gate is None or queue.gate.open


def _gate(gate: Gate | None, now: datetime) -> Text:
    if gate is None or gate.open:
        return Text("open", style="green")
    left = (gate.until - now).total_seconds() if gate.until else 0
    return Text(f"{printable(str(gate.reason))}{f', {_duration(left)} left' if left > 0 else ''}", style="bold red")


def _workers(frame: Frame, limit: int) -> Table:
    """Those that need a look first, then the busiest."""
    part = frame.health.components.workers
    table = _table("WORKER", (("", False), ("heard of", True), ("jobs", True), ("busy", False), ("state", False)), part)
    colors = ("bold red", "yellow", "green")
    workers = sorted(part.workers, key=lambda w: (colors.index(_worker_state(w)[1]), -w.running, w.id))
    rows = [
        (
            text(worker.id), _beat(worker.heartbeat_age_seconds), f"{worker.running}/{worker.concurrency}",
            _bar(worker.running / worker.concurrency if worker.concurrency else 0), Text(*_worker_state(worker)),
        )
        for worker in workers
    ]  # fmt: skip
    left = max(1, limit - len(rows))
    rows += [
        (text(gone.id), text(f"{gone.heard_at.astimezone():%H:%M:%S}" if gone.heard_at else _NOT_KNOWN), "–", Text(),
         Text("gone without notice", "bold red"))
        for gone in part.gone[:left]
    ]  # fmt: skip
    beyond = max(0, (part.live or 0) - len(part.workers))
    table = _fill(table, rows, limit, "no worker lives" if part.status != "unknown" else "not known")
    if beyond:
        table.add_row(Text(f"… and {beyond} more, not listed", style="dim"))
    return table


def _worker_state(worker: WorkerHealth) -> tuple[str, str]:
    """Words and their color."""
    if worker.draining:
        return "draining", "yellow"
    if not worker.consuming:
        return "takes nothing", "bold red"
    if worker.stuck_threads:
        return f"{worker.stuck_threads} threads stuck", "bold red"
    return "well", "green"


def _beat(age: float | None) -> Text:
    if age is None:
        return Text(_NOT_KNOWN)
    ago = f"{age:.1f} s" if age < 10 else _duration(age)
    return Text(f"{ago} ago", style="bold red" if age > _LATE_BEAT_SECONDS else "")


def _programs(frame: Frame, limit: int) -> Table:
    table = _table("SLOWEST PROGRAMS", (("", False), ("jobs", True), ("p50", True), ("p95", True)))
    rows = [_program(program) for program in frame.programs]
    return _fill(table, rows, min(limit, 10), "none has run a job in this time")


def _program(program: ProgramTimes) -> tuple[Any, ...]:
    return text(program.name), f"{program.jobs:,}", _duration(program.p50_seconds), _duration(program.p95_seconds)


def _spending(frame: Frame, now: datetime) -> RenderableType:
    """Circuits that are not closed, and budgets."""
    parts = frame.health.components
    grid = Table.grid(padding=(0, 2))
    open_ = {model: state for model, state in parts.circuits.models.items() if state != "closed"}
    words = [Text(f"{model} {state.replace('_', '-')}", style="bold red") for model, state in sorted(open_.items())]
    closed = Text(f"all {len(parts.circuits.models)} closed", style="green") if parts.circuits.models else Text("")
    grid.add_row(Text("BREAKERS", style="bold cyan"), Text(", ").join(words) if words else closed)
    for number, budget in enumerate(parts.budgets.budgets):
        title = Text("BUDGETS", style="bold cyan") if number == 0 else Text()
        grid.add_row(title, _budget(budget, now))
    if not parts.budgets.budgets:
        grid.add_row(Text("BUDGETS", style="bold cyan"), Text("none set", style="dim"))
    return grid


def _budget(budget: BudgetHealth, now: datetime) -> Text:
    share = budget.spent_usd / budget.limit_usd if budget.limit_usd else 1.0
    is_near = share > _NEARLY_SPENT
    whose = "all" if budget.scope == "all" else "fullest client"
    left = (budget.resets_at - now).total_seconds() if budget.resets_at and is_near else 0
    after = f", {_duration(left)} left" if left > 0 else ""
    spent = f" {share:>4.0%}  ${budget.spent_usd:,.2f} of ${budget.limit_usd:,.2f} a {budget.period}, {whose}{after}"
    return Text.assemble(_bar(share, "red" if budget.exhausted else "yellow" if is_near else "green"), spent)


def _bar(share: float, color: str = "cyan") -> Text:
    full = min(8, max(1 if share > 0 else 0, round(8 * share)))
    return Text.assemble(("█" * full, color), ("░" * (8 - full), "dim"))


def _spark(values: Sequence[float], room: int) -> str:
    """The last numbers as a row of little bars, the highest one full; nothing where there is little room."""
    shown = values[-min(room, 30) :] if room >= 8 else []
    top = max(shown, default=0)
    return "".join(_BLOCKS[min(7, int(8 * value / top))] for value in shown) if top else ""


def _number(value: float | None) -> str:
    return _NOT_KNOWN if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _known(number: int | None) -> str:
    return "?" if number is None else str(number)


def _share(value: float | None) -> str:
    return _NOT_KNOWN if value is None else f"{value:.1%}"


def _cost_rate(rates: Rates) -> str:
    if rates.dollars_per_minute is None:
        return _NOT_KNOWN
    # What has no known price must not read as free.
    return f"{'≥ ' if rates.unpriced_per_minute else ''}${rates.dollars_per_minute:,.4f}"


def _bytes(number: int) -> str:
    return f"{number / 2**30:.1f} GiB" if number >= 2**30 else f"{number / 2**20:.0f} MiB"


def _duration(seconds: float | None) -> str:
    """A time a person reads at a glance."""
    if seconds is None:
        return _NOT_KNOWN
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, hours = seconds / 60, seconds / 3600
    if minutes < 90:
        return f"{minutes:.0f} min"
    return f"{hours:.0f} h" if hours < 48 else f"{hours / 24:.0f} days"


def present() -> datetime:
    """The present time."""
    return datetime.now(UTC)
