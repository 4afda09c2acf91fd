"""Reads what is outstanding and who works on it: one round trip, whatever the number of jobs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from dspy_jobs import names
from dspy_jobs.demand import Demand, QueueLoad, WorkerLoad, demand_of
from dspy_jobs.settings import Settings
from dspy_jobs.store.records import gate_of
from dspy_jobs.store.script import Operation, script
from dspy_jobs.store.wire import text, time_of


@dataclass(frozen=True, slots=True)
class Outstanding:
    """What is outstanding, read at one moment."""

    queues: list[QueueLoad]
    workers: list[WorkerLoad]
    """All that live or still hold jobs."""


def read_outstanding(queues: Sequence[str], now_ms: int | None = None) -> Operation[Outstanding]:
    """Read queues, and all workers."""

    def read(raw: list[Any]) -> Outstanding:
        loads = [_queue(name, row) for name, row in zip(queues, raw[0], strict=True)]
        return Outstanding(loads, [_worker(row) for row in raw[1]])

    return Operation(script("read_demand"), (time_of(now_ms), *queues), read)


def read_demand(settings: Settings, now_ms: int | None = None) -> Operation[Demand]:
    """Read what the queues of all configured models ask for."""
    outstanding = read_outstanding([names.queue(model) for model in sorted(settings.models)], now_ms)

    def read(raw: list[Any]) -> Demand:
        found = outstanding.read(raw)
        return demand_of(found.queues, found.workers, settings)

    return Operation(outstanding.script, outstanding.args, read)


def _queue(name: str, row: list[Any]) -> QueueLoad:
    queued, waiting, taken, running, waited, service_ms, samples, most, gate, until, half_open, probed, paused = row
    return QueueLoad(
        name=name,
        queued=queued,
        waiting=waiting,
        taken=max(0, taken),
        running=running,
        oldest_wait_seconds=max(0, waited) / 1000,
        service_seconds=float(service_ms) / 1000,
        samples=samples,
        most=most or None,
        gate=gate_of(gate, until),
        is_half_open=bool(half_open),
        is_probed=bool(probed),
        paused=paused,
    )


def _worker(row: list[Any]) -> WorkerLoad:
    worker_id, lease_left, held, raw = row
    said = _description(raw)
    age = None if said.lease_seconds is None else max(0.0, said.lease_seconds - lease_left / 1000)
    return WorkerLoad(
        id=text(worker_id),
        is_alive=lease_left > 0,
        is_draining=said.draining,
        held=held,
        running=said.running,
        concurrency=said.concurrency,
        host=said.host,
        pid=said.pid,
        queues=said.queues,
        version=said.version,
        config=said.config,
        heartbeat_age_seconds=age,
        silent_seconds=said.silent_seconds,
        stuck_threads=said.stuck_threads,
        metrics_port=said.metrics_port,
    )


class _Description(BaseModel):
    """What a worker says of itself, as far as it is of use here."""

    lease_seconds: float | None = None
    draining: bool = False
    running: int = 0
    concurrency: int = 0
    host: str = ""
    pid: int = 0
    queues: tuple[str, ...] = ()
    version: str = ""
    config: str = ""
    silent_seconds: float | None = None
    stuck_threads: int = 0
    metrics_port: int | None = None


def _description(raw: bytes | None) -> _Description:
    """A description. One that cannot be read says nothing, and its worker is shown all the same."""
    try:
        return _Description.model_validate_json(raw or b"{}")
    except ValidationError:
        return _Description()
