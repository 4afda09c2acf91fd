"""What a worker's instruments cost: the same batch with all of them and with none, scraped while it runs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import httpx
import orjson

from benchmarks.batch import Batch
from benchmarks.contenders import BOUND_SECONDS
from benchmarks.figures import Spread, paired_ratios
from benchmarks.options import Options
from benchmarks.process import Process
from benchmarks.report import Report, Target
from benchmarks.rig import Rig, rig
from dspy_jobs import names

JOBS = 10_000
#: Jobs before the first round, so that connections and pools are built.
WARM_UP = 400
#: Seconds between scrapes; Prometheus as shipped takes fifteen.
_SCRAPE_SECONDS = 1.0

OFF, ON = "without instruments", "with all instruments"

#: Settings of the worker by contender.
_SETTINGS = {OFF: "instruments = false", ON: "instruments = true\nmetrics_port = 0"}


class Worker:
    """One worker process and its Redis, scraped in its turns if it can be."""

    def __init__(self, here: Rig) -> None:
        self._rig = here
        self.process: Process = here.start_worker()
        self._url = self._own_url()
        self.run(WARM_UP)

    def run(self, jobs: int) -> tuple[float, float]:
        """Jobs a second, and milliseconds of processor time a job."""
        before = self.process.cpu_seconds()
        with self._scraped():
            seconds = Batch.put(self._rig, jobs).run(BOUND_SECONDS)
        return jobs / seconds, (self.process.cpu_seconds() - before) / jobs * 1000

    def _own_url(self) -> str | None:
        """Where it serves its metrics, as it says itself."""
        (worker,) = self._rig.store.redis.zrange(names.WORKERS, 0, -1)
        assert isinstance(worker, bytes)
        described = self._rig.store.redis.get(names.worker(worker.decode()))
        assert isinstance(described, bytes)
        port = orjson.loads(described)["metrics_port"]
        return f"http://127.0.0.1:{port}/metrics" if port else None

    @contextmanager
    def _scraped(self) -> Iterator[None]:
        over = threading.Event()
        scraper = threading.Thread(target=self._scrape, args=(over,), daemon=True)
        scraper.start()
        yield
        over.set()
        scraper.join()

    def _scrape(self, over: threading.Event) -> None:
        while self._url and not over.wait(_SCRAPE_SECONDS):
            httpx.get(self._url, timeout=30).raise_for_status()


def measure(options: Options) -> list[Report]:
    """Rounds in which both have their turn, the first one taking turns, too."""
    jobs = options.size(JOBS)
    turns: dict[str, list[tuple[float, float]]] = {name: [] for name in (OFF, ON)}
    with ExitStack() as closing:
        workers = {name: Worker(closing.enter_context(rig(worker=text))) for name, text in _SETTINGS.items()}
        for number in options.each_round():
            for name in (OFF, ON) if number % 2 else (ON, OFF):
                turns[name].append(workers[name].run(jobs))
    return [report_of(turns, jobs)]


def report_of(turns: dict[str, list[tuple[float, float]]], jobs: int) -> Report:
    """The table: rates, and what of the rate without instruments is left with them."""
    title = f"A worker's instruments: {jobs:,} jobs, one worker process, model latency 0 ms"
    report = Report(title, ["turn", "jobs/s", "CPU ms a job", "of none"])
    rates = {name: [rate for rate, _ in taken] for name, taken in turns.items()}
    for name, taken in turns.items():
        cpu = Spread.of([cpu for _, cpu in taken]).text(2)
        report.rows.append([name, Spread.of(rates[name]).text(), cpu, paired_ratios(rates[name], rates[OFF]).text(2)])
    report.targets = [
        Target("run rate with all instruments, of that without", paired_ratios(rates[ON], rates[OFF]), 0.95)
    ]
    report.samples = dict(turns)
    return report
