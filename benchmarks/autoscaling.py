"""What a decision of the autoscaler costs, and how long the first job waits for which no worker is there."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from itertools import count

import orjson
import structlog

from autoscaler.backends.dry_run import DryRun
from autoscaler.decision import decide
from autoscaler.gauges import Gauges
from autoscaler.lease import NoLease
from autoscaler.ledger import DemandDocument
from autoscaler.loop import Autoscaler
from autoscaler.observer import direct_observer
from autoscaler.scaled_object import ScaledObject, read_scaled_object
from autoscaler.state import Observation, State
from benchmarks.figures import Spread, percentile
from benchmarks.http_client import HttpClient
from benchmarks.options import Options
from benchmarks.process import PATIENCE_SECONDS, Process
from benchmarks.report import Report, Target
from benchmarks.rig import Rig, rig
from dspy_jobs import names
from dspy_jobs.ids import new_job_id
from dspy_jobs.store import operations
from dspy_jobs.waiting import wait_until

#: Queues with a few waiting jobs each, and workers that say they live.
QUEUES, JOBS_EACH, WORKERS = 50, 20, 20
#: Decisions timed in a round.
DECISIONS = 500
#: Of the shipped ScaledObject, in seconds.
POLLING = 5

_SCALED_OBJECT = f"""
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata: {{name: worker}}
spec:
  scaleTargetRef: {{name: worker}}
  pollingInterval: {POLLING}
  cooldownPeriod: 1
  maxReplicaCount: 10
  advanced:
    horizontalPodAutoscalerConfig:
      behavior:
        scaleDown: {{stabilizationWindowSeconds: 0}}
  triggers:
    - type: metrics-api
      metadata: {{url: "http://api:8080/v1/autoscale", valueLocation: work, targetValue: "128"}}
"""
_MODEL = '[models.m{0}]\nmodel = "openai/m{0}"\nbase_url = "http://127.0.0.1:1/v1"\n'


def measure(options: Options) -> list[Report]:
    """Decisions over many queues, then the way from no worker to a running job."""
    return [_decisions(options), _first_job(options)]


def _decisions(options: Options) -> Report:
    """Every figure in milliseconds; each round's median."""
    rows: dict[str, list[float]] = {"deciding alone": [], "reading and deciding": [], "GET /v1/autoscale": []}
    slowest: dict[str, list[float]] = {name: [] for name in rows}
    number = options.size(DECISIONS)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with rig(more="".join(map(_MODEL.format, range(QUEUES)))) as here:
        _fill(here)
        _, port = here.start_api()
        client, target = HttpClient(here, port), read_scaled_object(_SCALED_OBJECT)
        alone, whole = _decision_of(target), _loop_of(here, target)
        for _ in options.each_round():
            for name, act in (("deciding alone", alone), ("reading and deciding", whole)):
                times = [_milliseconds(act) for _ in range(number)]
                rows[name].append(percentile(times, 50))
                slowest[name].append(percentile(times, 99))
            found = client.load("GET", "/v1/autoscale", number, 1)
            rows["GET /v1/autoscale"].append(found.p50_ms)
            slowest["GET /v1/autoscale"].append(found.p99_ms)
    report = Report(f"The autoscaler's decision: {QUEUES} queues, {WORKERS} workers", ["", "p50 ms", "p99 ms"])
    report.rows = [[name, Spread.of(rows[name]).text(2), Spread.of(slowest[name]).text(2)] for name in rows]
    report.targets = [Target("reading and deciding", Spread.of(rows["reading and deciding"]), 5, False, " ms")]
    report.samples = {"p50_ms": rows, "p99_ms": slowest}
    return report


def _fill(here: Rig) -> None:
    """Jobs that wait in every queue, and workers that hold none of them."""
    lifetimes = operations.Lifetimes.of(here.settings.jobs)
    request = orjson.dumps({"inputs": {"question": "Why?"}})
    for model in (f"m{number}" for number in range(QUEUES)):
        fields = {"program": "qa", "model": model, "max_attempts": 5}
        for _ in range(JOBS_EACH):
            queue = names.queue(model)
            here.store.run(operations.submit_job(new_job_id(), request, queue, 3, fields, lifetimes, 200_000))
    said = {"concurrency": 128, "queues": [], "running": 0, "draining": False, "host": "elsewhere", "pid": 1}
    for worker in (f"worker-{number}" for number in range(WORKERS)):
        here.store.run(operations.renew_worker(worker, 3600, orjson.dumps({"id": worker, **said}), []))


def _decision_of(target: ScaledObject) -> Callable[[], object]:
    """Decides on a metric that goes up and down, with the memory that leaves behind."""
    state, replicas, numbers = State(created=0.0), 0, count()

    def act() -> None:
        nonlocal state, replicas
        number = next(numbers)
        seen = Observation({"s0": 128.0 * (number % 10)}, replicas)
        state, replicas, _ = decide(target.scaling, state, seen, number * POLLING)

    return act


def _loop_of(here: Rig, target: ScaledObject) -> Callable[[], object]:
    """The whole loop with a backend that starts nothing; a poll is due whenever it is asked."""
    times = count(0, POLLING)
    observer = direct_observer(target, DemandDocument(here.store.redis, here.settings), here.store.redis)
    return Autoscaler(
        target.scaling, observer, DryRun(), NoLease(), Gauges(target), lambda: float(next(times)), lambda _: None
    ).step


def _milliseconds(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return (time.perf_counter() - began) * 1000


def _first_job(options: Options) -> Report:
    starts, waits = list[float](), list[float]()
    with rig() as here:
        for _ in options.each_round():
            starts.append(_start_of_a_worker(here))
        scaler = _start_autoscaler(here)
        for _ in options.each_round():
            waits.append(_wait_of_a_job(here, scaler))
    report = Report("From no worker to a running job", ["", "seconds"])
    report.rows = [
        ["a worker's start until it takes jobs", Spread.of(starts).text(1)],
        [f"a job submitted at any moment, until it runs (pollingInterval {POLLING} s)", Spread.of(waits).text(1)],
    ]
    bound = POLLING + Spread.of(starts).median
    report.targets = [
        Target("a worker's start", Spread.of(starts), 3, False, " s"),
        Target("a job's wait, of a poll and a start", Spread.of(waits), bound, False, " s"),
    ]
    report.samples = {"start_seconds": starts, "wait_seconds": waits}
    return report


def _start_of_a_worker(here: Rig) -> float:
    began = time.perf_counter()
    worker = here.start_worker()
    seconds = time.perf_counter() - began
    worker.stop()
    _await_none(here)
    return seconds


def _start_autoscaler(here: Rig) -> Process:
    path = here.folder / "scaledobject.yaml"
    path.write_text(_SCALED_OBJECT)
    environ = {**here.environ, "DSPY_JOBS_DATA_DIR": str(here.folder / "data")}
    scaler = here.start("autoscaler", "run", "--backend=process", f"--scaled-object={path}", **environ)
    scaler.find(r'("event":\s*"leading")')
    return scaler


def _wait_of_a_job(here: Rig, scaler: Process) -> float:
    """Seconds from submitting a job on a fleet of none until it runs; then the fleet is none again."""
    time.sleep(random.uniform(0, POLLING))  # polls must not always come at the same moment after a submission
    job, lifetimes = new_job_id(), operations.Lifetimes.of(here.settings.jobs)
    fields = {"program": "echo", "model": "sandbox", "max_attempts": 5}
    request = orjson.dumps({"inputs": {"text": "Why?"}})
    began = time.perf_counter()
    here.store.run(operations.submit_job(job, request, names.queue("sandbox"), 3, fields, lifetimes, 200_000))
    if not wait_until(lambda: _has_started(here, job), PATIENCE_SECONDS, every=0.02):
        raise RuntimeError(f"the job did not run:\n{scaler.written()[-2000:]}")
    seconds = time.perf_counter() - began
    _await_none(here)
    return seconds


def _has_started(here: Rig, job_id: str) -> bool:
    [job] = here.store.run(operations.read_jobs([job_id]))
    return job is not None and job.status != "queued"


def _await_none(here: Rig) -> None:
    if not wait_until(lambda: here.workers() == 0, PATIENCE_SECONDS):
        raise RuntimeError("a worker that was stopped is still there")
