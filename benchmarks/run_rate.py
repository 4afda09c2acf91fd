"""Jobs a second of one worker process, against the same program without a queue and against plain Celery."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.contenders import BareDspy, Contender, DspyJobs, PlainCelery
from benchmarks.figures import Spread, paired_ratios
from benchmarks.options import Options
from benchmarks.report import Report, Target
from benchmarks.rig import Rig, rig

JOBS = 5000
#: Jobs of a turn before the first round: connections and pools are built, every path has run once.
WARM_UP = 400

BARE, BY_HAND = "bare DSPy in a thread pool", "… over an engine object of one's own"
GUARDED, ATTEMPT = "… over the guarded engine", "… a worker's whole attempt"


@dataclass(frozen=True, slots=True)
class Turn:
    """What a contender needed for its jobs."""

    jobs: int
    seconds: float
    cpu_seconds: float

    @property
    def rate(self) -> float:
        """Jobs a second."""
        return self.jobs / self.seconds

    @property
    def cpu_ms(self) -> float:
        """Milliseconds of processor time a job, of the process that runs it."""
        return self.cpu_seconds / self.jobs * 1000


def take_turn(contender: Contender, jobs: int, model: str) -> Turn:
    """Let a contender run jobs."""
    before = contender.process.cpu_seconds()
    seconds = contender.run(jobs, model)
    return Turn(jobs, seconds, contender.process.cpu_seconds() - before)


def contenders_of(rig: Rig) -> list[Contender]:
    """Everyone, started and waiting."""
    threads = rig.start("benchmarks.bare_dspy", **rig.environ)
    threads.find("(ready)")
    ways = (("bare", BARE), ("by_hand", BY_HAND), ("guarded", GUARDED), ("attempt", ATTEMPT))
    return [
        *(BareDspy(threads, way, name) for way, name in ways),
        PlainCelery(rig, "early", 2, 3),
        PlainCelery(rig, "late", 4, 5),
        DspyJobs(rig),
    ]


def compare(contenders: Sequence[Contender], model: str, jobs: int, options: Options) -> dict[str, list[Turn]]:
    """Turns by contender; every round each has one, in an order that moves on from round to round."""
    for contender in contenders:
        take_turn(contender, min(jobs, WARM_UP), model)
    turns: dict[str, list[Turn]] = {contender.name: [] for contender in contenders}
    for number in options.each_round():
        first = number % len(contenders)
        for contender in [*contenders[first:], *contenders[:first]]:
            turns[contender.name].append(take_turn(contender, jobs, model))
    return turns


def rates(turns: dict[str, list[Turn]], name: str) -> list[float]:
    """A contender's jobs a second, round by round."""
    return [turn.rate for turn in turns[name]]


def measure(options: Options) -> list[Report]:
    """Both models: one that answers at once, one that takes 200 ms."""
    with rig() as here:
        contenders = contenders_of(here)
        jobs = options.size(JOBS)
        fast = compare(contenders, "sandbox", jobs, options)
        slow = compare(contenders, "sandbox-slow", jobs, options)
    return [_report(fast, jobs, "0 ms"), _report(slow, jobs, "200 ms")]


def _report(turns: dict[str, list[Turn]], jobs: int, latency: str) -> Report:
    report = Report(
        f"Run rate of one worker process: {jobs:,} jobs, model latency {latency}, 128 at a time",
        ["contender", "jobs/s", "CPU ms a job", "of bare"],
    )
    bare = rates(turns, BARE)
    for name, taken in turns.items():
        report.rows.append(
            [
                name,
                Spread.of(rates(turns, name)).text(),
                Spread.of([turn.cpu_ms for turn in taken]).text(2),
                paired_ratios(rates(turns, name), bare).text(2),
            ]
        )
        report.samples[name] = [{"seconds": turn.seconds, "cpu_seconds": turn.cpu_seconds} for turn in taken]
    report.targets = targets(turns, latency)
    return report


def targets(turns: dict[str, list[Turn]], latency: str) -> list[Target]:
    """What this project promises against each."""
    ours, bare = rates(turns, DspyJobs.name), rates(turns, BARE)
    bound = 0.75 if latency == "0 ms" else 0.9
    found = [Target(f"against bare DSPy at {latency}", paired_ratios(ours, bare), bound, unit="×")]
    if latency == "0 ms":
        found += [
            Target(f"against {name}", paired_ratios(ours, rates(turns, name)), 2, unit="×")
            for name in turns
            if "Celery" in name
        ]
    return found
