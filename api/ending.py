"""How tasks end that run beside requests."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

#: Seconds after which a task that has not ended is told again, and how often it is told.
_PATIENCE_SECONDS, _TIMES = 0.5, 10


async def end_tasks(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks and wait for their end; what they failed with is nobody's business any more.

    Told once is not enough: while a client of Redis connects or gives its password, it takes the cancellation for a
    connection that failed, and the task goes on.
    """
    left = set(tasks)
    for _ in range(_TIMES):
        for task in left:
            task.cancel()
        if left:
            done, left = await asyncio.wait(left, timeout=_PATIENCE_SECONDS)
            for task in done:
                if not task.cancelled():
                    task.exception()
