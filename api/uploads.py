"""A batch on its way in: checked items are staged in groups while the rest still arrives.

Nothing of it is a batch until `commit`; whatever happens before that, the staged part is discarded. Memory stays
bounded by a group of items and the set of their custom ids, however long the upload is.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field

from api.idempotency import Reservation
from api.items import CheckedItem, ItemChecker, no_items
from api.resources import Resources
from api.routing import Routing
from dspy_jobs import chores
from dspy_jobs.problems import ProblemError, fail
from dspy_jobs.store.operations import BatchHead, Route, commit_batch, stage_items

#: Items, and bytes of them, staged in one step.
_GROUP = 500
_GROUP_BYTES = 1_000_000


@dataclass(slots=True)
class Upload:
    """Items of one batch, so far."""

    resources: Resources
    head: BatchHead
    routing: Routing
    version: str
    """The program's version that the batch as a whole shows."""
    reservation: Reservation | None = None
    items: ItemChecker = field(init=False)
    _group: list[tuple[str, bytes]] = field(default_factory=list)
    _routes: list[Route] = field(default_factory=list)
    """The routes of the group's items."""
    _queued: Counter[str] = field(default_factory=Counter)
    """Items staged, by queue."""
    _group_bytes: int = 0
    _staging: asyncio.Task[int] | None = None

    def __post_init__(self) -> None:
        self.items = ItemChecker(self.resources.settings.limits, self.routing, self.version, self._gather)

    def _gather(self, item: CheckedItem) -> None:
        if not self.items.error_count:
            self._group.append((item.job_id, item.record))
            self._routes.append(item.route)
            self._group_bytes += len(item.record)

    async def stage_full(self) -> None:
        """Stage what has gathered, if it is worth a step; nothing more once a mistake was found."""
        if self.items.error_count:
            return
        if self._group_bytes >= _GROUP_BYTES or len(self._group) >= _GROUP:
            await self._stage()

    async def _stage(self) -> None:
        # One step at a time keeps the order; it travels while the next items are being checked.
        await self._staged()
        group, routes, self._group, self._routes, self._group_bytes = self._group, self._routes, [], [], 0
        if group:
            self._queued.update(route.queue for route in routes)
            step = stage_items(self.head, group, routes=routes)
            self._staging = asyncio.create_task(self.resources.store.run(step))

    async def _staged(self) -> None:
        step, self._staging = self._staging, None
        if step is not None:
            await step

    async def commit(self, request: bytes) -> None:
        """Make it a batch and send its jobs.

        Raises:
            ProblemError: an item is wrong, there is none, or too many jobs are queued.
        """
        total = self.items.total
        if self.items.error_count:
            raise self._refusal()
        if not total:
            raise no_items()
        await self._stage()
        await self._staged()
        if self.reservation:
            await self.reservation.seal()
        limit = self.resources.settings.limits.queued_jobs
        step = commit_batch(self.head, request, total, limit, queued=self._queued)
        answer, number = await self.resources.store.run(step)
        if answer == "queue_full":
            detail = f"{number} jobs are queued, {total} more would exceed {limit}; try again when some have run."
            raise ProblemError(fail("queue_full", detail).problem, {"retry-after": "5"})
        if answer == "lost":
            raise fail("unavailable", "The upload paused for too long and was discarded; send it again.")

    def _refusal(self) -> ProblemError:
        items, first = self.items, self.items.errors[0]
        param = f" {first['param']}:" if first["param"] else ""
        detail = (
            f"Line {first['line']}:{param} {first['detail']}. Mistakes in all: {items.error_count}. Nothing was queued."
        )
        return fail("invalid_input", detail, errors=items.errors, error_count=items.error_count)

    async def discard(self) -> None:
        """Remove what was staged; does nothing once it is a batch."""
        if self._staging is not None:
            await asyncio.wait({self._staging})
            self._staging.exception()
        await self.resources.store.follow(chores.discard(self.head.id))
