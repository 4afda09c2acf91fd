"""Operations that read jobs, batches and queues."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from dspy_jobs.descriptions import ProgramDescription
from dspy_jobs.store.records import (
    QueueNumbers,
    StoredBatch,
    StoredJob,
    gate_of,
    stored_job,
    text_fields,
)
from dspy_jobs.store.script import Operation, script
from dspy_jobs.store.wire import text, texts, time_of


def read_rows(ids: Sequence[str]) -> Operation[list[list[Any]]]:
    """Read jobs as the script gives them, for `stored_job` to make something of."""
    return Operation(script("read_jobs"), ("", "1", *ids), lambda raw: raw)


def read_jobs(
    ids: Sequence[str], shared: dict[str, Any] | None = None, now_ms: int | None = None
) -> Operation[list[StoredJob | None]]:
    """Read jobs whole. `shared` is what their common batch shares, if the caller has read it already."""

    def read(raw: list[Any]) -> list[StoredJob | None]:
        return [stored_job(job_id, job, shared) for job_id, job in zip(ids, raw, strict=True)]

    return Operation(script("read_jobs"), (time_of(now_ms), "0" if shared is not None else "1", *ids), read)


def read_batch(batch_id: str, now_ms: int | None = None) -> Operation[StoredBatch | None]:
    """Read a batch whole."""

    def read(raw: list[Any]) -> StoredBatch | None:
        if not raw:
            return None
        request = orjson.loads(raw[1]) if raw[1] else None
        return StoredBatch(batch_id, text_fields(raw[0]), request, int(raw[2]), int(raw[3]), gate_of(raw[4], raw[5]))

    return Operation(script("read_batch"), (time_of(now_ms), batch_id), read)


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs a listing wants; an empty string means any."""

    status: str = ""
    program: str = ""
    model: str = ""
    variant: str = ""
    batch: str = ""


def list_jobs(after: str, limit: int, wanted: JobFilter, scan: int = 2000) -> Operation[tuple[str, list[str]]]:
    """Look through at most `scan` of the newest jobs before `after`. Answers (where to go on or '', matching ids)."""
    args = (after, limit, scan, wanted.status, wanted.program, wanted.model, wanted.variant, wanted.batch)
    return Operation(script("list_jobs"), args, lambda raw: (text(raw[0]), texts(raw[1:])))


def read_queues(queues: Sequence[str], now_ms: int | None = None) -> Operation[list[QueueNumbers]]:
    """Read the numbers of queues."""

    def read(raw: list[Any]) -> list[QueueNumbers]:
        return [
            QueueNumbers(
                name, int(q[0]), int(q[1]), None if q[2] is None else int(q[2]), int(q[3]), gate_of(q[4], q[5])
            )
            for name, q in zip(queues, raw, strict=True)
        ]

    return Operation(script("read_queues"), (time_of(now_ms), *queues), read)


def description_of(raw: bytes) -> ProgramDescription:
    """A program's description as a worker published it."""
    return ProgramDescription.model_validate_json(raw)
