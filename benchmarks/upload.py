"""Accepting a batch over HTTP: its rate, the first result against the last job, and the API's memory meanwhile."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import orjson

from benchmarks.batch import question
from benchmarks.figures import Spread
from benchmarks.http_client import HttpClient
from benchmarks.options import Options
from benchmarks.process import Process
from benchmarks.report import Report, Target
from benchmarks.rig import Rig, rig
from dspy_jobs import names
from dspy_jobs.waiting import wait_until

ITEMS = 10_000
MEMORY_ITEMS = (1_000, 10_000, 50_000)


def write_items(folder: Path, items: int, program: str = "qa") -> Path:
    """A file of so many different items, one a line."""
    name = "question" if program == "qa" else "text"
    path = folder / f"{program}-{items}.ndjson"
    lines = ({"inputs": {name: question(n)}, "custom_id": f"item-{n}"} for n in range(items))
    path.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    return path


class PeakMemory(threading.Thread):
    """Looks at a process's resident memory often while a block runs. MiB."""

    def __init__(self, process: Process) -> None:
        super().__init__(daemon=True)
        self._process, self._ended = process, threading.Event()
        self.before = self.peak = process.rss_mib()

    def run(self) -> None:
        """Look until the block has ended."""
        while not self._ended.wait(0.01):
            self.peak = max(self.peak, self._process.rss_mib())

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join()


@dataclass(frozen=True, slots=True)
class Flow:
    """Seconds after the first byte of an upload was sent."""

    accepted: float
    first_result: float
    last_result: float
    left_at_first: int
    """Jobs that still waited when the first result could be read."""


def measure(options: Options) -> list[Report]:
    """Rate and memory without workers, then the flow with one."""
    report = Report("Accepting a batch over HTTP, one API process", ["measurement", "value"])
    with rig() as here:
        worker = here.start_worker()
        _, port = here.start_api()
        client = HttpClient(here, port)
        client.load("GET", "/v1/programs", 50)
        flow = _flow(here, client, options.size(ITEMS))
        worker.stop()
        _rate(report, here, client, options)
    _memory(report, options)
    report.rows += [
        [f"{options.size(ITEMS):,} items with a worker: accepted after", f"{flow.accepted:.2f} s"],
        ["first result readable after", f"{flow.first_result:.2f} s"],
        ["jobs that still waited then", f"{flow.left_at_first:,}"],
        ["last result after", f"{flow.last_result:.2f} s"],
    ]
    return [report]


def _rate(report: Report, here: Rig, client: HttpClient, options: Options) -> None:
    items = options.size(ITEMS)
    lines = write_items(here.folder, items)
    rates = []
    for number in range(-1, options.rounds):
        _forget_jobs(here)
        found = client.upload(lines, "qa")
        if number >= 0:
            rates.append(items / found.seconds)
    report.rows.append([f"items/s ({items:,} items a batch)", Spread.of(rates).text()])
    report.samples["items_per_second"] = rates
    report.targets.append(Target("items/s accepted", Spread.of(rates), 10_000))


def _forget_jobs(here: Rig) -> None:
    """Empty the ledger between rounds, except for what workers said of their programs."""
    programs = here.store.redis.hgetall(names.PROGRAMS)
    here.store.redis.flushdb()
    here.store.redis.hset(names.PROGRAMS, mapping=programs)  # type: ignore[arg-type]


def _memory(report: Report, options: Options) -> None:
    with rig() as here:
        here.start_worker().stop()
        api, port = here.start_api()
        client = HttpClient(here, port)
        client.load("GET", "/v1/programs", 50)
        for items in map(options.size, MEMORY_ITEMS):
            lines = write_items(here.folder, items)
            with PeakMemory(api) as memory:
                client.upload(lines, "qa")
            growth = memory.peak - memory.before
            after = api.rss_mib()
            row = f"{memory.before:.0f} MiB before, +{growth:.0f} at most, {after:.0f} after"
            report.rows.append([f"API memory, upload of {items:,}", row])
            report.samples[f"growth_mib_{items}"] = growth
        report.targets.append(Target("API memory after all uploads", Spread.of([api.rss_mib()]), 90, False, " MiB"))


def _flow(here: Rig, client: HttpClient, items: int) -> Flow:
    """Upload with a worker at work, looking at the ledger meanwhile."""
    lines = write_items(here.folder, items)
    first: list[tuple[float, int]] = []
    began = time.perf_counter()

    def watch() -> None:
        wait_until(lambda: bool(_results(here)), 60, every=0.005)
        first.append((time.perf_counter() - began, _queued(here)))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    accepted = client.upload(lines, "qa")
    watcher.join()
    if not wait_until(lambda: _results(here) == items, 300):
        raise RuntimeError(f"{_results(here)} of {items} jobs ended")
    return Flow(accepted.seconds, first[0][0], time.perf_counter() - began, first[0][1])


def _results(here: Rig) -> int:
    """Results that can be read of the only batch."""
    batches = here.store.redis.zrange(names.BATCHES, 0, -1)
    if not batches:
        return 0
    return int(here.store.redis.llen(names.batch_results(batches[-1].decode())))  # type: ignore[union-attr]


def _queued(here: Rig) -> int:
    return int(here.store.redis.hget(names.TOTALS, "queued") or 0)
