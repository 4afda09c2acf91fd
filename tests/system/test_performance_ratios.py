"""Guards against large losses of speed: ratios of contenders that take turns, with generous bounds.

`python -m benchmarks` measures properly; `docs/performance.md` has the figures and the targets, which are about
twice as strict as these bounds.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks import http_requests, memory, run_rate, scaling
from benchmarks.contenders import BareDspy, DspyJobs
from benchmarks.options import Options
from benchmarks.report import Report
from benchmarks.rig import Rig, rig

pytestmark = [pytest.mark.system, pytest.mark.slow]

SHORT = Options(rounds=3, quick=True)


@pytest.fixture
def here() -> Iterator[Rig]:
    """A Redis and a sandbox of the test's own."""
    with rig() as started:
        yield started


def medians(report: Report) -> dict[str, float]:
    """What was measured, by target."""
    return {target.what: target.value.median for target in report.targets}


def test_a_queue_costs_less_than_the_jobs_it_runs(here: Rig) -> None:
    """A batch runs at three tenths at least of the rate of the same program in a thread pool without a queue."""
    threads = here.start("benchmarks.bare_dspy", **here.environ)
    threads.find("(ready)")
    contenders = [BareDspy(threads, "bare", run_rate.BARE), DspyJobs(here)]
    turns = run_rate.compare(contenders, "sandbox", 600, SHORT)
    found = run_rate.targets(turns, "0 ms")[0].value
    assert found.median >= 0.3, found


def test_submitting_and_polling_cost_little_over_http_itself() -> None:
    """Submitting and polling reach a fifth and a quarter at least of the rate of requests that do nothing."""
    submit, *polls = medians(http_requests.measure(SHORT)[0]).values()
    assert submit >= 0.2
    assert min(polls) >= 0.25


def test_ten_times_the_jobs_take_at_most_twice_ten_times_as_long() -> None:
    """Neither accepting nor running grows much faster than the number of jobs, and a waiting job stays small."""
    times, sizes = scaling.measure(Options(rounds=2, quick=True))
    assert max(medians(times).values()) <= 20
    assert max(medians(sizes).values()) <= 2048


def test_delayed_jobs_cost_a_worker_no_memory() -> None:
    """Jobs that wait for their next attempt are in Redis and nowhere else."""
    grown = memory.delayed(5_000).targets[0].value
    assert grown.median <= 4, grown
