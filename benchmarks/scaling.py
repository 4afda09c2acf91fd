"""Whether ten times as many jobs take ten times as long, and what a waiting job costs in Redis."""

from __future__ import annotations

import time

import orjson

from benchmarks.batch import Batch, question
from benchmarks.figures import Spread
from benchmarks.http_client import HttpClient
from benchmarks.options import Options
from benchmarks.report import Report, Target
from benchmarks.rig import Rig, rig
from benchmarks.upload import write_items
from dspy_jobs import chores, names
from dspy_jobs.ids import new_job_id
from dspy_jobs.store import operations

SIZES = (1_000, 10_000)
FULL_SIZES = (*SIZES, 100_000)
#: Jobs whose memory is compared.
MEASURED_JOBS = 10_000


def measure(options: Options) -> list[Report]:
    """Time a job over sizes, then bytes a job."""
    return [_times(options), _bytes(options)]


def _times(options: Options) -> Report:
    report = Report(
        "Scaling: a batch over HTTP of a program without a model call, one worker",
        ["jobs", "accepting, µs a job", "until all have ended, µs a job"],
    )
    sizes = FULL_SIZES if options.full else SIZES
    submits: dict[int, float] = {}
    runs: dict[int, float] = {}
    with rig() as here:
        here.start_worker()
        _, port = here.start_api()
        client = HttpClient(here, port)
        client.load("GET", "/v1/programs", 50)
        Batch.put(here, 400, "echo").run()
        for jobs in map(options.size, sizes):
            submits[jobs], runs[jobs] = _submit_and_run(here, client, jobs, options.rounds if jobs < 100_000 else 1)
            report.rows.append([f"{jobs:,}", f"{submits[jobs] * 1e6 / jobs:.0f}", f"{runs[jobs] * 1e6 / jobs:.0f}"])
    report.samples = {"submit_seconds": [*submits.items()], "run_seconds": [*runs.items()]}
    for small, large in zip([*submits][:-1], [*submits][1:], strict=True):
        for what, seconds in (("accepting", submits), ("running", runs)):
            factor = seconds[large] / seconds[small]
            bound = large / small
            target = Target(f"{what} {large:,} over {small:,} jobs", Spread.of([factor]), bound, False, "×")
            report.targets.append(target)
    report.notes.append(
        "Both are counted from the first byte of the upload; jobs run while the last ones are still being sent."
    )
    return report


def _submit_and_run(here: Rig, client: HttpClient, jobs: int, rounds: int) -> tuple[float, float]:
    """Median seconds until accepted, and until all have ended."""
    submits, runs = [], []
    for _ in range(rounds):
        lines = write_items(here.folder, jobs, "echo")
        began = time.perf_counter()
        found = client.upload(lines, "echo")
        batch = Batch(here, found.body["id"], jobs)
        runs.append(batch.wait(began))
        submits.append(found.seconds)
    return Spread.of(submits).median, Spread.of(runs).median


def _bytes(options: Options) -> Report:
    jobs = options.size(MEASURED_JOBS)
    report = Report(f"Bytes in Redis of a waiting job beyond its own inputs ({jobs:,} jobs)", ["where", "bytes a job"])
    with rig() as here:
        before = _used(here)
        for number in range(jobs):
            _submit(here, number)
        single = (_used(here) - before) / jobs - _input_bytes(jobs)
        report.rows.append(["single job, all told", f"{single:.0f}"])
        report.rows += _where(here, _first_id(here), jobs)
        here.store.redis.flushdb()
        before = _used(here)
        batch = Batch.put(here, jobs)
        here.store.follow(chores.release(batch.id, here.settings.worker.chunk_size))
        in_batch = (_used(here) - before) / jobs - _input_bytes(jobs)
        report.rows.append(["job of a batch, all told", f"{in_batch:.0f}"])
        report.rows += _where(here, _first_id(here), jobs)
    report.samples = {"single": single, "batch": in_batch}
    report.targets = [
        Target("single job", Spread.of([single]), 1024, False, " B"),
        Target("job of a batch", Spread.of([in_batch]), 1024, False, " B"),
    ]
    return report


def _submit(here: Rig, number: int) -> None:
    lifetimes = operations.Lifetimes.of(here.settings.jobs)
    fields = {"program": "qa", "model": "sandbox", "max_attempts": 5}
    queue, request = names.queue("sandbox"), orjson.dumps({"inputs": {"question": question(number)}})
    here.store.run(operations.submit_job(new_job_id(), request, queue, 3, fields, lifetimes, 200_000))


def _input_bytes(jobs: int) -> float:
    """Mean bytes of a job's own inputs, as JSON."""
    return sum(len(orjson.dumps({"question": question(n)})) for n in range(jobs)) / jobs


def _used(here: Rig) -> int:
    return int(here.store.redis.info("memory")["used_memory"])


def _first_id(here: Rig) -> str:
    return here.store.redis.zrange(names.JOBS, 0, 0)[0].decode()  # type: ignore[union-attr]


def _where(here: Rig, job_id: str, jobs: int) -> list[list[str]]:
    """`MEMORY USAGE` of one job's keys, and its share of the keys all have in common."""
    queue = names.queue("sandbox")
    own = {"… its hash": names.job(job_id), "… its request, with its inputs": names.job_request(job_id)}
    batch = here.store.redis.hget(names.job(job_id), "batch") or b""
    assert isinstance(batch, bytes)
    shared = {"… index of all jobs": names.JOBS, "… index of the waiting": names.queue_waiting(queue, 6)}
    shared |= {"… messages": names.queue_list(queue, 6 if batch else 3)}
    if batch:
        shared["… the batch's list"] = names.batch_jobs(batch.decode())
    rows = [[name, f"{_usage(here, key):.0f}"] for name, key in own.items()]
    return rows + [[name, f"{_usage(here, key) / jobs:.0f}"] for name, key in shared.items()]


def _usage(here: Rig, key: str) -> int:
    return int(here.store.redis.memory_usage(key, samples=0) or 0)
