"""Resident memory of the worker at 128 threads, and of the API, over the jobs they have seen."""

from __future__ import annotations

import time

from benchmarks.batch import Batch
from benchmarks.figures import Spread
from benchmarks.http_client import HttpClient
from benchmarks.options import Options
from benchmarks.report import Report, Target
from benchmarks.rig import Rig, rig

JOBS = 10_000
DELAYED = 100_000
#: A worker looks for due jobs twice a second, and for lost ones every three.
_HOUSEKEEPING_SECONDS = 4

_JOB = {"program": "qa", "inputs": {"question": "What is 1 plus 2?"}}


def measure(options: Options) -> list[Report]:
    """Two times the same number of jobs: what grows with jobs shows in the second half."""
    jobs = options.size(JOBS)
    report = Report("Resident memory", ["process", "MiB"])
    with rig() as here:
        worker = here.start_worker()
        api, port = here.start_api()
        client = HttpClient(here, port)
        client.post_job(_JOB, 100)
        report.rows.append(["API at start", f"{api.rss_mib():.0f}"])
        client.post_job(_JOB, jobs)
        api_after = api.rss_mib()
        report.rows.append([f"API after {jobs:,} submits", f"{api_after:.0f}"])
        # Model calls of 200 ms keep all 128 threads busy at once.
        Batch.put(here, options.size(2000), model="sandbox-slow").run()
        report.rows.append(["worker, 128 threads used", f"{worker.rss_mib():.0f}"])
        found = []
        for number in (1, 2):
            Batch.put(here, jobs).run()
            found.append(worker.rss_mib())
            report.rows.append([f"worker after {number * jobs:,} more jobs", f"{found[-1]:.0f}"])
    growth = (found[1] - found[0]) * 2**20 / jobs
    report.samples = {"api_mib": api_after, "worker_mib": found, "worker_bytes_a_job": growth}
    report.targets = [
        Target("API", Spread.of([api_after]), 90, False, " MiB"),
        Target("worker at 128 threads", Spread.of([max(found)]), 160, False, " MiB"),
        Target("worker's growth in the second half", Spread.of([found[1] - found[0]]), 5, False, " MiB"),
    ]
    return [report, delayed(options.size(DELAYED))]


def delayed(jobs: int) -> Report:
    """The memory of a worker beside jobs that wait for their next attempt, which are in Redis and nowhere else."""
    report = Report("A worker beside delayed jobs", ["delayed jobs", "worker, MiB"])
    with rig() as here:
        alone = _after_housekeeping(here)
        Batch.put(here, jobs).delay(3600)
        beside = _after_housekeeping(here)
    report.rows = [["0", f"{alone:.1f}"], [f"{jobs:,}", f"{beside:.1f}"]]
    report.samples = {"alone_mib": alone, "beside_mib": beside}
    report.targets = [Target("growth by delayed jobs", Spread.of([beside - alone]), 2, False, " MiB")]
    return report


def _after_housekeeping(here: Rig) -> float:
    """Memory of a fresh worker that has looked after delayed and lost jobs a few times."""
    worker = here.start_worker()
    Batch.put(here, 128, program="echo").run()
    time.sleep(_HOUSEKEEPING_SECONDS)
    resident = worker.rss_mib()
    worker.stop()
    return resident
