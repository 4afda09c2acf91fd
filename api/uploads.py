"""A batch on its way in: items are checked one by one and staged in groups while the rest still arrives.

Nothing of it is a batch until `commit`; whatever happens before that, the staged part is discarded. Memory stays
bounded by a group of items and the set of their custom ids, however long the upload is.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import orjson
from pydantic import ValidationError

from api.admission import MOST_ERRORS, explain
from api.catalogue import TOO_DEEP, Mistake
from api.idempotency import Reservation
from api.resources import Resources
from api.routing import Routing
from dspy_jobs import chores
from dspy_jobs.ids import new_job_id
from dspy_jobs.problems import ProblemError, fail
from dspy_jobs.store.operations import BatchHead, Route, commit_batch, stage_items
from dspy_jobs.submissions import BatchItem

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
    total: int = 0
    error_count: int = 0
    errors: list[Mistake] = field(default_factory=list)
    _group: list[tuple[str, bytes]] = field(default_factory=list)
    _routes: list[Route] = field(default_factory=list)
    """The routes of the group's items."""
    _queued: Counter[str] = field(default_factory=Counter)
    """Items staged, by queue."""
    _group_bytes: int = 0
    _lines: dict[str, int] = field(default_factory=dict)
    _staging: asyncio.Task[int] | None = None

    def read_line(self, number: int, line: bytes | None) -> None:
        """Take a line of NDJSON; None stands for one that is too long."""
        if line is None:
            self._refuse(number, None, [self._too_long()])
            return
        try:
            item = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            mistake = {
                "param": None,
                "code": "malformed_body",
                "detail": f"the line is not valid JSON: {error}; send one object a line (curl: --data-binary, not -d)",
            }
            self._refuse(number, None, [mistake])
        else:
            self.read_item(number, item)

    def read_item(self, number: int, item: Any) -> None:
        """Take an item that has been parsed.

        Raises:
            ProblemError: there are more items than allowed.
        """
        self.total += 1
        if self.total > self.resources.settings.limits.items_per_batch:
            most = self.resources.settings.limits.items_per_batch
            raise fail("payload_too_large", f"A batch may have {most} items at most; see GET /v1/limits.")
        job_id = new_job_id()
        record, route, mistakes = self._check(job_id, number, item)
        if mistakes or route is None:
            given = item.get("custom_id") if type(item) is dict else None
            self._refuse(number, given if type(given) is str else None, mistakes)
        elif not self.error_count:
            self._group.append((job_id, record))
            self._routes.append(route)
            self._group_bytes += len(record)

    def _check(self, job_id: str, number: int, item: Any) -> tuple[bytes, Route | None, list[Mistake]]:
        if type(item) is not dict:
            return b"", None, [_not_an_object()]
        record, mistakes = _record(item)
        mistakes += self._misfits(item, record) if not mistakes else []
        if mistakes or (mistakes := self._repeated(number, record.get("custom_id"))):
            return b"", None, mistakes
        route = self.routing.route(job_id, None, record.get("custom_id"), item.get("variant"))
        if (version := self.routing.version(route.variant)) != self.version:
            record = {**record, "program_version": version}
        try:
            encoded = orjson.dumps(record)
        except TypeError:
            return b"", None, [TOO_DEEP]
        if len(encoded) > self.resources.settings.limits.item_bytes:
            return b"", None, [self._too_long()]
        return encoded, route, []

    def _misfits(self, item: dict[str, Any], record: dict[str, Any]) -> list[Mistake]:
        unknown = self.routing.unknown(item.get("variant"))
        return [*self.routing.program.mistakes(record["inputs"]), *([unknown] if unknown else [])]

    def _repeated(self, number: int, custom_id: str | None) -> list[Mistake]:
        if custom_id is None:
            return []
        first = self._lines.setdefault(custom_id, number)
        if first == number:
            return []
        detail = f"the custom_id was already used on line {first}; each item needs its own"
        return [{"param": "custom_id", "code": "duplicate_custom_id", "detail": detail}]

    def _too_long(self) -> Mistake:
        most = self.resources.settings.limits.item_bytes
        detail = f"the item is larger than {most} bytes; see GET /v1/limits"
        return {"param": None, "code": "payload_too_large", "detail": detail}

    def _refuse(self, number: int, custom_id: str | None, mistakes: list[Mistake]) -> None:
        self.error_count += len(mistakes)
        room = MOST_ERRORS - len(self.errors)
        self.errors += [{"line": number, "custom_id": custom_id, **mistake} for mistake in mistakes[:room]]
        self._group.clear()
        self._routes.clear()

    async def stage_full(self) -> None:
        """Stage what has gathered, if it is worth a step."""
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
        if self.error_count:
            raise self._refusal()
        if not self.total:
            raise fail("invalid_request_body", "The batch has no items; send one at least.")
        await self._stage()
        await self._staged()
        if self.reservation:
            await self.reservation.seal()
        limit = self.resources.settings.limits.queued_jobs
        step = commit_batch(self.head, request, self.total, limit, queued=self._queued)
        answer, number = await self.resources.store.run(step)
        if answer == "queue_full":
            detail = f"{number} jobs are queued, {self.total} more would exceed {limit}; try again when some have run."
            raise ProblemError(fail("queue_full", detail).problem, {"retry-after": "5"})
        if answer == "lost":
            raise fail("unavailable", "The upload paused for too long and was discarded; send it again.")

    def _refusal(self) -> ProblemError:
        first = self.errors[0]
        param = f" {first['param']}:" if first["param"] else ""
        detail = (
            f"Line {first['line']}:{param} {first['detail']}. Mistakes in all: {self.error_count}. Nothing was queued."
        )
        return fail("invalid_input", detail, errors=self.errors, error_count=self.error_count)

    async def discard(self) -> None:
        """Remove what was staged; does nothing once it is a batch."""
        if self._staging is not None:
            await asyncio.wait({self._staging})
            self._staging.exception()
        await self.resources.store.follow(chores.discard(self.head.id))


def _not_an_object() -> Mistake:
    return {
        "param": None,
        "code": "invalid_request_body",
        "detail": "an item must be a JSON object with `inputs`",
    }


def _record(item: dict[str, Any]) -> tuple[dict[str, Any], list[Mistake]]:
    """What is kept of an item."""
    inputs, custom_id = item.get("inputs"), item.get("custom_id", "-")
    # Most items are of this shape; the model below is five times slower, and explains.
    if type(inputs) is dict and type(custom_id) is str and 0 < len(custom_id) <= 256 and item.keys() <= _PLAIN:
        return item, []
    try:
        checked = BatchItem.model_validate(item)
    except ValidationError as error:
        return {}, explain(error)
    record = {
        "inputs": checked.program_inputs(),
        "custom_id": checked.custom_id,
        "metadata": checked.metadata,
    }
    return {name: value for name, value in record.items() if value is not None}, []


_PLAIN = {"inputs", "custom_id"}
