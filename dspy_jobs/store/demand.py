"""Reads what is outstanding and who works on it: one round trip, whatever the number of jobs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

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
    said = orjson.loads(raw) if raw else {}
    lease_seconds = said.get("lease_seconds")
    age = None if lease_seconds is None else max(0.0, lease_seconds - lease_left / 1000)
    return WorkerLoad(
        id=text(worker_id),
        is_alive=lease_left > 0,
        is_draining=said.get("draining", False),
        held=held,
        running=said.get("running", 0),
        concurrency=said.get("concurrency", 0),
        host=said.get("host", ""),
        pid=said.get("pid", 0),
        queues=tuple(said.get("queues", ())),
        version=said.get("version", ""),
        config=said.get("config", ""),
        heartbeat_age_seconds=age,
        silent_seconds=said.get("silent_seconds"),
        stuck_threads=said.get("stuck_threads", 0),
        metrics_port=said.get("metrics_port"),
    )
