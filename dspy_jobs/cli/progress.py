"""A bar for each batch while its jobs run, on stderr: counts, rate and time left."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from dspy_jobs.client import BatchPaused, Client
from dspy_jobs.models import Batch


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.1f}/s" if speed else "", style="cyan")


def wait_with_progress(client: Client, batches: Sequence[Batch], timeout: float | None) -> list[Batch]:
    """The batches once each has ended, or is paused by one of its limits.

    Raises:
        WaitTimeout: they had not after `timeout` seconds.
    """
    last = {batch.id: batch for batch in batches}
    with _bars() as bars:
        tasks = {batch.id: bars.add_task(batch.program or "", total=batch.counts.total, note="") for batch in batches}

        def show(batch: Batch) -> None:
            last[batch.id] = batch
            bars.update(tasks[batch.id], completed=batch.counts.done, note=_note(batch))

        def show_all(batch: Batch) -> None:
            show(batch)
            for other in last.values():
                if other.id != batch.id and not other.is_done:
                    show(client.batch(other.id))

        end = None if timeout is None else bars.get_time() + timeout
        for batch in batches:
            left = None if end is None else max(0.0, end - bars.get_time())
            with suppress(BatchPaused):  # the others go on
                client.wait_batch(batch.id, show_all, left)
    return list(last.values())


def _bars() -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=Console(stderr=True),
    )


def _note(batch: Batch) -> str:
    counts = batch.counts
    numbers = {"failed": counts.failed, "canceled": counts.canceled, "expired": counts.expired, "cached": counts.cached}
    parts = [f"{number} {name}" for name, number in numbers.items() if number]
    return ", ".join([*parts, *([f"waits: {batch.wait_reason}"] if batch.wait_reason else [])])
