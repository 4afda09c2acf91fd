"""What the response cache saves and what it costs: a finished batch run again, and a batch it does not know."""

from __future__ import annotations

from contextlib import ExitStack

from benchmarks.batch import Batch
from benchmarks.contenders import BOUND_SECONDS
from benchmarks.figures import Spread, paired_ratios
from benchmarks.options import Options
from benchmarks.process import Process
from benchmarks.report import Report, Target
from benchmarks.rig import Rig, rig

JOBS = 10_000
#: Jobs before the first round, so that connections and pools are built.
WARM_UP = 400

OFF, ON = "no cache", "with the cache, inputs it does not know"
FROM_REDIS, FROM_MEMORY = "again, from Redis", "again, from memory"

#: Settings of the cache by contender; the worker that must take everything from Redis keeps nothing in memory.
_SETTINGS = {OFF: "enabled = false", ON: "memory_bytes = 0", FROM_MEMORY: "memory_bytes = 64000000"}


class Worker:
    """One worker process, its Redis and how it uses the cache."""

    def __init__(self, here: Rig) -> None:
        self._rig = here
        self.process: Process = here.start_worker()
        self._first = 0
        self.run_new(WARM_UP)

    def run_new(self, jobs: int) -> float:
        """Jobs a second of questions never asked before."""
        self._first += jobs
        return self.run_again(jobs)

    def run_again(self, jobs: int) -> float:
        """Jobs a second of the last questions."""
        return jobs / Batch.put(self._rig, jobs, first=self._first).run(BOUND_SECONDS)


def measure(options: Options) -> list[Report]:
    """Rounds in which every contender has its turn."""
    jobs = options.size(JOBS)
    rates: dict[str, list[float]] = {name: [] for name in (OFF, ON, FROM_REDIS, FROM_MEMORY)}
    with ExitStack() as closing:
        workers = {name: Worker(closing.enter_context(rig(text))) for name, text in _SETTINGS.items()}
        for number in options.each_round():
            for name in (OFF, ON) if number % 2 else (ON, OFF):
                rates[name].append(workers[name].run_new(jobs))
            rates[FROM_REDIS].append(workers[ON].run_again(jobs))
            workers[FROM_MEMORY].run_new(jobs)
            rates[FROM_MEMORY].append(workers[FROM_MEMORY].run_again(jobs))
    return [_report(rates, jobs)]


def _report(rates: dict[str, list[float]], jobs: int) -> Report:
    title = f"The response cache: {jobs:,} jobs, one worker process, model latency 0 ms"
    report = Report(title, ["turn", "jobs/s", "of no cache"])
    for name, found in rates.items():
        report.rows.append([name, Spread.of(found).text(), paired_ratios(found, rates[OFF]).text(2)])
    report.targets = [
        Target("a finished batch again, from Redis", Spread.of(rates[FROM_REDIS]), 3000, unit=" jobs/s"),
        Target("… times as fast as uncached", paired_ratios(rates[FROM_REDIS], rates[ON]), 1),
        Target("run rate with lookup and store, of that without", paired_ratios(rates[ON], rates[OFF]), 0.95),
    ]
    report.samples = dict(rates)
    return report
