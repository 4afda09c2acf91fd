"""What the demo shows of a finished batch: its figures and a few of its answers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dspy_jobs.cli.items import Item
from dspy_jobs.models import Batch, Job

#: Answers shown of each program.
_SAMPLES = 3
#: Characters shown of an input or an output.
_LONGEST = 160


@dataclass(frozen=True)
class Answers:
    """A finished batch: what was asked and, in the same order, what came of it."""

    batch: Batch
    items: list[Item]
    jobs: list[Job]

    @property
    def failed(self) -> int:
        """Jobs without an answer."""
        return self.batch.counts.total - self.batch.counts.succeeded


def show_answers(program: str, answers: Answers, console: Console) -> None:
    """A table of the program's figures and first answers; of its first failures, if there are any."""
    table = Table(title=Text(f"{program} on {answers.batch.model}"), title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("input", ratio=1, overflow="fold")
    table.add_column("output", ratio=1, overflow="fold")
    for item, job in _samples(answers):
        table.add_row(Text(_fields(item.fields.get("inputs", item.fields))), _outcome(job))
    console.print(table)
    console.print(f"  {_figures(answers)}\n")


def _samples(answers: Answers) -> list[tuple[Item, Job]]:
    pairs = list(zip(answers.items, answers.jobs, strict=False))
    failed = [(item, job) for item, job in pairs if job.output is None]
    return [pair for pair in pairs if pair[1].output is not None][:_SAMPLES] + failed[:_SAMPLES]


def _figures(answers: Answers) -> str:
    batch, counts = answers.batch, answers.batch.counts
    cost = "cost unknown" if batch.cost_usd is None else f"${batch.cost_usd:.4f}"
    return f"{counts.succeeded} answers, {answers.failed} failed, {counts.cached} from the cache, {cost}{_time(batch)}"


def _time(batch: Batch) -> str:
    if batch.ended_at is None or batch.created_at is None:
        return ""
    return f", {(batch.ended_at - batch.created_at).total_seconds():.1f} s"


def _outcome(job: Job) -> Text:
    if job.output is not None:
        return Text(_fields(job.output))
    return Text(f"{job.error.code}: {job.error.detail}" if job.error else job.status, style="red")


def _fields(fields: dict[str, Any]) -> str:
    """One field alone as its value, several with their names."""
    if len(fields) == 1:
        return _value(next(iter(fields.values())))
    return "\n".join(f"{name}: {_value(value)}" for name, value in fields.items())


def _value(value: Any) -> str:
    text = " ".join((value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)).split())
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
