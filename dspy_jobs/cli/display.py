"""What people see: jobs, batches, programs, queues, as tables on stdout. Foreign text is never taken for markup."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dspy_jobs.cli.failures import as_options
from dspy_jobs.models import (
    Autoscale,
    Batch,
    BatchEstimate,
    Budget,
    CostFigures,
    CostRange,
    Costs,
    Gate,
    Health,
    Job,
    Program,
    Queue,
    QueueDemand,
    Usage,
)
from dspy_jobs.money import format_dollars, nanos
from dspy_jobs.states import JobStatus

if TYPE_CHECKING:
    from dspy_jobs.comparison import Comparison, Difference

#: Control characters could move the cursor or recolor the terminal.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

_COLORS = {
    JobStatus.SUCCEEDED: "green",
    JobStatus.FAILED: "red",
    JobStatus.EXPIRED: "red",
    JobStatus.CANCELED: "yellow",
    JobStatus.RUNNING: "cyan",
}


def print_json(value: BaseModel | Any) -> None:
    """One JSON document on stdout."""
    if isinstance(value, BaseModel):
        print(value.model_dump_json(exclude_unset=True, indent=2))
    else:
        print(json.dumps(value, ensure_ascii=False, indent=2))


def print_job(job: Job) -> None:
    """A job with its output or problem."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in _job_rows(job):
        grid.add_row(text(name), value if isinstance(value, Text) else text(value))
    Console().print(grid)


def print_jobs(jobs: Iterable[Job]) -> None:
    """Jobs, one a row."""
    rows = [
        (job.id, job.status, job.program, job.model, f"{job.ended_at:%Y-%m-%d %H:%M:%S}" if job.ended_at else "",
         f"{job.error.code}: {job.error.detail}" if job.error else "")
        for job in jobs
    ]  # fmt: skip
    _print_table(("job", "status", "program", "model", "ended (UTC)", "error"), rows)


def print_batches(batches: Iterable[Batch]) -> None:
    """Batches, one a row."""
    counts = ("total", "queued", "running", "succeeded", "failed", "canceled", "expired")
    batches = list(batches)
    rows = [
        (
            batch.id,
            batch.program,
            batch.ended_reason or batch.status,
            _reason(batch.wait_reason, batch.until),
            *(getattr(batch.counts, name) for name in counts),
            _cached_share(batch),
            _tokens(batch.usage),
            _cost(batch.cost_usd) or "unknown",
            _cost(batch.saved_usd) or "unknown",
            _seconds(batch),
        )
        for batch in batches
    ]
    _print_table(
        ("batch", "program", "status", "waits for", *counts, "cached", "tokens", "cost", "saved", "time"), rows
    )
    for batch in batches:
        if batch.pause:
            Console(soft_wrap=True).print(text(f"{batch.id} is paused: {as_options(batch.pause.detail or '')}"))


def print_estimates(estimates: Iterable[BatchEstimate]) -> None:
    """What batches would come to, one a row."""
    counts = ("valid", "invalid", "cached", "repeated")
    rows = [
        (
            found.program or "(bad lines)",
            found.model,
            *(_known(getattr(found, name)) for name in counts),
            f"{_known(found.est_input_tokens)} in, {_known(found.est_output_tokens)} out",
            _range(found.est_cost_usd),
            "unknown" if found.est_seconds is None else f"{found.est_seconds:.1f} s",
        )
        for found in estimates
    ]
    _print_table(("program", "model", *counts, "tokens", "cost", "time"), rows)


def print_programs(programs: Iterable[Program]) -> None:
    """Programs, one a row."""
    rows = [
        (
            p.name,
            f"{p.version_name} ({p.version})" if p.version_name else p.version,
            p.model,
            _fields(p.input_schema),
            _fields(p.output_schema),
            p.description,
        )
        for p in programs
    ]
    _print_table(("program", "version", "model", "inputs", "outputs", "description"), rows)


def print_comparison(comparisons: Sequence[Comparison]) -> None:
    """Variants, one a row, then each one's differences to the baseline."""
    rows = [_variant_row(comparison) for comparison in comparisons]
    numbers = ("jobs", "failed", "cached", "cost", "cost per run", "mean", "p50", "p95")
    _print_table(("variant", "weight", "model", "version", *numbers), rows)
    differences = [row for comparison in comparisons for row in _difference_rows(comparison)]
    if differences:
        print()
        columns = ("variant", "what", "n", "value", "difference", "95 % interval", "p-value", "note")
        _print_table(columns, differences)


def _variant_row(comparison: Comparison) -> tuple[Any, ...]:
    variant = comparison.variant
    name = f"{variant.name} (baseline)" if comparison.is_baseline else variant.name
    cached = variant.cached / variant.jobs if variant.jobs else None
    times = variant.latency
    return (
        name, f"{variant.weight:g}", variant.model, variant.version_name or variant.version, variant.jobs,
        _share(variant.error_rate), _share(cached), _cost(variant.cost_usd) or "unknown", _cost(variant.cost_per_job),
        *(_run_time(seconds) for seconds in (times.mean_seconds, times.p50_seconds, times.p95_seconds)),
    )  # fmt: skip


def _difference_rows(comparison: Comparison) -> Iterable[tuple[Any, ...]]:
    name, errors = comparison.variant.name, comparison.error_rate
    if errors is not None:
        apart = "" if errors.difference is None else f"{100 * errors.difference:+.2f} points"
        ratio = "" if errors.ratio is None else f"times {errors.ratio:.2f}: {_interval(errors)}"
        value = _share(errors.value)
        yield name, "failed", _sizes(errors), value, apart, ratio, _number(errors.p_value), errors.note
    for score, found in comparison.scores.items():
        apart = "" if found.difference is None else f"{found.difference:+.4g}"
        row = (_sizes(found), _number(found.value), apart, _interval(found), _number(found.p_value), found.note)
        yield (name, score, *row)


def _sizes(difference: Difference) -> str:
    return f"{difference.n}, {difference.baseline_n}"


def _interval(difference: Difference) -> str:
    if difference.low is None or difference.high is None:
        return ""
    return f"{difference.low:.4g} to {difference.high:.4g}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f} %"


def _run_time(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.3g} s"


def print_queues(queues: Iterable[Queue]) -> None:
    """Queues, one a row."""
    rows = [(q.name, q.queued, q.running, _waited(q.oldest_wait_seconds), _gate(q.gate), q.workers) for q in queues]
    _print_table(("queue", "queued", "running", "oldest waits", "gate", "workers"), rows)


def print_autoscale(found: Autoscale) -> None:
    """The demand, a row a queue and one for the fleet, then the metric that is made of it."""
    rows = [
        (name, *_demand_row(queue), queue.max_concurrent or "", _gate(queue.gate))
        for name, queue in found.queues.items()
    ]
    columns = ("queue", "waiting", "running", "oldest waits", "run takes", "slots", "at most", "gate")
    _print_table(columns, [*rows, ("total", *_demand_row(found), "", "")])
    draining = f", {found.draining} jobs in draining workers left out" if found.draining else ""
    Console(soft_wrap=True).print(text(f"work {found.work:g}, {found.concurrency} a worker{draining}"))


def _demand_row(found: Autoscale | QueueDemand) -> tuple[Any, ...]:
    waited, takes = _waited(found.oldest_wait_seconds), _run_time(found.service_seconds) or "unknown"
    return found.waiting, found.inflight, waited, takes, f"{found.work_slots:g}"


def print_costs(costs: Costs) -> None:
    """What was spent, a row for each group and one for all of them."""
    figures = [*costs.data, costs.total]
    groups = [[getattr(row, group) for group in costs.group_by] for row in costs.data]
    labels = [*groups, ["total", *[""] * (len(costs.group_by) - 1)]]
    rows = [
        (
            *label, row.calls, row.input_tokens, row.output_tokens, _spent(row), row.jobs,
            row.failed, row.cached, _part(row.saved_nanos, not row.unsaved_jobs, row.unsaved_jobs < row.cached),
        )
        for label, row in zip(labels, figures, strict=True)
    ]  # fmt: skip
    numbers = ("calls", "tokens in", "tokens out", "cost", "jobs", "failed", "cached", "saved")
    _print_table((*costs.group_by, *numbers), rows)


def _spent(row: CostFigures) -> str:
    return _part(row.cost_nanos, row.complete, row.unpriced_calls < row.calls)


def _part(nanos: int, is_all: bool, is_some: bool) -> str:
    """A sum of which all, some or nothing is known: what nobody knows must not read as nothing."""
    if is_all:
        return format_dollars(nanos)
    return f"≥ {format_dollars(nanos)}" if is_some else "unknown"


def print_budgets(budgets: Iterable[Budget]) -> None:
    """Budgets, one a row."""
    rows = [
        (
            b.client or "all", b.period, _cost(b.limit_usd) or "none", _cost(b.spent_usd), _cost(b.left_usd),
            "used up" if b.exhausted else "", f"{b.resets_at:%Y-%m-%d}" if b.resets_at else "",
        )
        for b in budgets
    ]  # fmt: skip
    _print_table(("client", "period", "limit", "spent", "left", "", "resets on"), rows)


def print_health(health: Health) -> None:
    """How every part of the service is, one a row."""
    rows = [(name, part.status, part.detail) for name, part in health.components.by_name().items()]
    _print_table(("component", "status", "what is wrong, and what to do"), rows)
    Console(soft_wrap=True).print(text(f"{health.status}, version {health.version}"))


def text(value: Any) -> Text:
    """Foreign text, shown as it is but for control characters."""
    return Text(_CONTROL.sub("\N{REPLACEMENT CHARACTER}", "" if value is None else str(value)))


def _print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A table; away from a terminal it is as wide as its content, so that nothing is cut."""
    console = Console()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, no_wrap=number == 0, overflow="fold")
    for row in rows:
        table.add_row(*(text(value) for value in row))
    if not console.is_terminal:
        console.width = 10_000
    console.print(table)


def _job_rows(job: Job) -> Iterable[tuple[str, Any]]:
    yield "job", job.id
    yield "status", Text(job.status, style=_COLORS.get(job.status, ""))
    optional = {
        "waits for": _reason(job.wait_reason, job.until),
        "behind": job.behind,
        "program": f"{job.program} {job.program_version or ''}",
        "model": job.model,
        "custom id": job.custom_id,
        "batch": job.batch_id,
        "attempts": len(job.attempts) or None,
        "cache": _cache(job),
        "saved": _cost(job.saved_usd),
        "tokens": _tokens(job.usage),
        "cost": _cost(job.cost_usd),
        "time": _seconds(job),
    }
    yield from ((name, value) for name, value in optional.items() if value)
    if job.error:
        yield "error", f"{job.error.code}: {job.error.detail}"
    for name, value in (job.output or {}).items():
        yield f"→ {name}", value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)


def _cache(job: Job) -> str:
    aged = job.cache and job.cache_age_seconds is not None
    return f"{job.cache}, {job.cache_age_seconds:.0f} s old" if aged else job.cache or ""


def _cached_share(batch: Batch) -> str:
    """Jobs answered from the cache, and their share of those that have succeeded."""
    cached, succeeded = batch.counts.cached, batch.counts.succeeded
    return f"{cached} ({cached / succeeded:.0%})" if cached and succeeded else str(cached)


def _tokens(usage: Usage | None) -> str:
    if usage is None or usage.input_tokens is None or usage.output_tokens is None:
        return ""
    return f"{usage.input_tokens} in, {usage.output_tokens} out"


def _known(number: int | None) -> str:
    return "unknown" if number is None else str(number)


def _range(cost: CostRange) -> str:
    if cost.low is None or cost.high is None:
        return "unknown"
    return _cost(cost.low) if cost.low == cost.high else f"{_cost(cost.low)} to {_cost(cost.high)}"


def _cost(dollars: float | None) -> str:
    return "" if dollars is None else format_dollars(nanos(dollars))


def _waited(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.1f} s"


def _gate(gate: Gate | None) -> str:
    if gate is None or gate.open:
        return "open"
    return _reason(gate.reason, gate.until)


def _reason(reason: str | None, until: datetime | None) -> str:
    """Why something waits, and until when by the clock that budgets go by; with the day unless it is today."""
    if reason is None or until is None:
        return reason or ""
    until = until.astimezone(UTC)
    form = "%H:%M:%S" if until.date() == datetime.now(UTC).date() else "%Y-%m-%d %H:%M:%S"
    return f"{reason}, until {until:{form}} UTC"


def _seconds(done: Job | Batch) -> str:
    if done.created_at is None or done.ended_at is None:
        return ""
    return f"{(done.ended_at - done.created_at).total_seconds():.1f} s"


def _fields(schema: dict[str, Any] | None) -> str:
    return ", ".join((schema or {}).get("properties", {}))
