"""Asks a running stack everything in a file: one batch for each program, with live progress."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from dspy_jobs.cli.items import Item
from dspy_jobs.client import AsyncClient
from dspy_jobs.models import Batch
from dspy_jobs.stack.answers import Answers

#: Told of a program and its batch whenever there is something new.
Tell = Callable[[str, Batch], None]


async def ask(client: AsyncClient, groups: dict[str, list[Item]], console: Console) -> dict[str, Answers]:
    """The answers to each program's items, once all are there."""
    with _bars(console) as bars:
        tell = _moving(bars, groups) if console.is_terminal else _line_by_line(console)
        answers = await asyncio.gather(*(_ask(client, name, items, tell) for name, items in groups.items()))
    return dict(zip(groups, answers, strict=True))


async def _ask(client: AsyncClient, program: str, items: list[Item], tell: Tell) -> Answers:
    submitted = await client.submit_batch(program, [item.fields for item in items])
    tell(program, submitted)
    batch = await client.wait_batch(submitted.id, lambda reading: tell(program, reading))
    return Answers(batch, items, [job async for job in client.results(batch.id, order="input")])


def _bars(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal)


def _moving(bars: Progress, groups: dict[str, list[Item]]) -> Tell:
    tasks = {program: bars.add_task(program, total=len(items)) for program, items in groups.items()}
    return lambda program, batch: bars.update(tasks[program], completed=batch.counts.done)


def _line_by_line(console: Console) -> Tell:
    shown: dict[str, int] = {}

    def tell(program: str, batch: Batch) -> None:
        if shown.get(program) != batch.counts.done:
            shown[program] = batch.counts.done
            console.print(f"{program}: {batch.counts.done} of {batch.counts.total} done", markup=False)

    return tell
