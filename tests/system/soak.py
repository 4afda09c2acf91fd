"""A batch under faults: workers killed, Redis restarted, a provider that fails; then everything is counted.

`python -m tests.system.soak --jobs 20000 --seconds 600` is what `make soak` runs; a test runs a short one. The model
server's own ledger says how many calls were answered, and how many of them for a prompt it had answered before.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

import httpx
import redis
from redis.exceptions import RedisError

from dspy_jobs import names
from dspy_jobs.costs import Costs
from dspy_jobs.settings import load_settings
from dspy_jobs.store import SyncStore, connect
from dspy_jobs.waiting import wait_until
from tests.conftest import ROOT
from tests.system.fleet import Fleet
from tests.system.own_redis import OwnRedis

WORKERS = 2
THREADS = 16

CONFIG = f"""
[worker]
concurrency = {THREADS}
lease_seconds = 4
[jobs]
max_attempts = 20
max_worker_losses = 100
[models.sandbox]
model = "openai/sandbox;fail=500:0.03,429:0.02;retry_after=1;latency=LATENCY"
base_url = "SANDBOX/v1"
input_cost_per_1k = 0.0001
output_cost_per_1k = 0.0004
KEYS
[programs.qa]
signature = "question -> answer"
"""


@dataclass
class Report:
    """What a soak found."""

    submitted: int = 0
    succeeded: int = 0
    failed: dict[str, int] | None = None
    lost: int = 0
    """Jobs neither ended nor under way at the end: must be 0."""
    published_twice: int = 0
    """Results beyond one a job: must be 0."""
    calls_answered: int = 0
    calls_paid_twice: int = 0
    """Answered calls whose prompt had been answered before."""
    paid_nanos: int = 0
    """Nano-dollars of all answered calls, by the model server's ledger."""
    calls_replayed: int = 0
    """Repeated calls that the model server did not charge again, for they bore the key of the first."""
    paid_twice_nanos: int = 0
    """Nano-dollars of the calls paid twice: the first answer of each died with the worker that asked for it."""
    booked_nanos: int = 0
    """Nano-dollars in the books: must be what was paid, but for what nobody lived to hear of."""
    attempts_lost: int = 0
    """Attempts of which the books say that they may have cost more."""
    in_flight_at_kills: int = 0
    """Jobs that ran at the moment their worker was killed: the bound of what may be paid twice."""
    workers_killed: int = 0
    redis_restarts: int = 0
    redis_outage_seconds: float = 0.0
    """How long Redis was away in all, besides its restarts."""
    redis_stall_seconds: float = 0.0
    """How long Redis stood still without dying, in all."""
    wrong_counts: int = 0
    """Reads at which the batch's counts did not add up: must be 0."""
    longest_recovery_seconds: float = 0.0
    """Longest time from a kill until nothing was held by the dead worker."""
    seconds: float = 0.0


@dataclass(frozen=True)
class Faults:
    """What is done to Redis, one after the other at even shares of the batch, between kills of workers."""

    kill_every: float = 5
    """Seconds between two kills of a random worker."""
    outages: tuple[float, ...] = (0,)
    """Redis is killed and started again after so many seconds, each in its turn."""
    stalls: tuple[float, ...] = ()
    """Then Redis is stopped (SIGSTOP) and continued after so many seconds."""

    @property
    def redis_faults(self) -> list[tuple[str, float]]:
        """All of them in order."""
        return [*(("outage", seconds) for seconds in self.outages), *(("stall", seconds) for seconds in self.stalls)]


class Soak:
    """One run."""

    def __init__(self, fleet: Fleet, own_redis: OwnRedis, jobs: int, faults: Faults) -> None:
        self._fleet, self._redis = fleet, own_redis
        self._jobs, self._faults = jobs, faults
        self._left = faults.redis_faults
        self._report = Report(submitted=jobs)
        self._random = random.Random(1)
        self._batch = ""

    def run(self, seconds: float) -> Report:
        """Submit, disturb until the batch ends or the time is over, let it end, count."""
        started = time.monotonic()
        for _ in range(WORKERS):
            self._fleet.start()
        self._batch = self._fleet.submit_batch(
            "qa", [{"question": f"What is {n} times {n}?"} for n in range(self._jobs)]
        )
        next_kill = started + self._faults.kill_every
        while time.monotonic() < started + seconds and not self._ended():
            self._check_counts()
            if time.monotonic() >= next_kill:
                self._disturb()
                next_kill = time.monotonic() + self._faults.kill_every
            time.sleep(0.1)
        assert wait_until(self._ended, seconds), (self._fleet.batch(self._batch), self._fleet.log()[-3000:])
        self._report.seconds = time.monotonic() - started
        return self._count()

    def _ended(self) -> bool:
        return self._fleet.batch(self._batch)["status"] == "ended"

    def _disturb(self) -> None:
        done = self._fleet.count(self._batch, "succeeded") / self._jobs
        number, all_of_them = len(self._faults.redis_faults) - len(self._left), len(self._faults.redis_faults)
        if self._left and done > (number + 1) / (all_of_them + 2):
            self._trouble_redis(*self._left.pop(0))
        else:
            self._kill_a_worker()

    def _trouble_redis(self, kind: str, seconds: float) -> None:
        if kind == "stall":
            self._redis.signal(signal.SIGSTOP)
            time.sleep(seconds)
            self._redis.signal(signal.SIGCONT)
            self._report.redis_stall_seconds += seconds
            return
        self._redis.kill()
        time.sleep(seconds)
        self._redis.start()
        self._report.redis_restarts += 1
        self._report.redis_outage_seconds += seconds

    def _kill_a_worker(self) -> None:
        alive = [process for process in self._fleet.processes if process.poll() is None]
        victim = self._random.choice(alive)
        worker = self._fleet.worker_id(victim.pid)
        victim.kill()
        victim.wait()
        killed = time.monotonic()
        self._report.workers_killed += 1
        self._report.in_flight_at_kills += self._fleet.running_on(worker)
        threading.Thread(target=self._time_recovery, args=(worker, killed), daemon=True).start()
        self._fleet.start()

    def _time_recovery(self, worker: str, killed: float) -> None:
        store = SyncStore(connect(self._redis.url))
        with suppress(RedisError):  # its own outages are counted by themselves
            if wait_until(lambda: not store.redis.exists(f"dj:worker:{worker}:held"), 60):
                took = time.monotonic() - killed
                self._report.longest_recovery_seconds = max(self._report.longest_recovery_seconds, took)

    def _check_counts(self) -> None:
        fields = self._fleet.batch(self._batch)
        parts = ("queued", "running", "succeeded", "failed", "canceled", "expired")
        if sum(int(fields[part]) for part in parts) != int(fields["total"]):
            self._report.wrong_counts += 1

    def _count(self) -> Report:
        report, jobs = self._report, self._fleet.jobs_of(self._batch)
        report.succeeded = sum(job.status == "succeeded" for job in jobs)
        problems = [job.outcome["problem"]["code"] for job in jobs if job.status == "failed" and job.outcome]
        report.failed = dict(Counter(problems))
        report.lost = self._jobs - report.succeeded - len(problems)
        report.published_twice = self._fleet.results(self._batch) - len(jobs)
        ledger = httpx.get(f"{self._fleet.sandbox}/ledger", timeout=30).json()["total"]
        report.calls_answered, report.calls_paid_twice = ledger["completions"], ledger["duplicate_prompts"]
        report.calls_replayed = ledger["replays"]
        report.paid_nanos = _nanos(ledger["prompt_tokens"], ledger["completion_tokens"])
        report.paid_twice_nanos = _nanos(ledger["duplicate_prompt_tokens"], ledger["duplicate_completion_tokens"])
        books = self._books()
        report.booked_nanos, report.attempts_lost = books["cost_nanos"], books["lost_attempts"]
        return report

    def _books(self) -> dict[str, int]:
        costs = Costs(())
        for key in self._redis_client().scan_iter(names.costs("*")):
            costs.add(date.today(), self._redis_client().hgetall(key))  # noqa: DTZ011  # not told apart by day
        return costs.total()

    def _redis_client(self) -> redis.Redis:
        return self._fleet.store.redis


def _nanos(prompt_tokens: int, completion_tokens: int) -> int:
    """What tokens cost by the prices of `CONFIG`."""
    return 100 * prompt_tokens + 400 * completion_tokens


@contextmanager
def fleet_on_own_redis(folder: Path, latency: float, keys: bool = False) -> Iterator[tuple[Fleet, OwnRedis]]:
    """A fleet without workers yet, with its own Redis and model server; with `keys` each call carries its own."""
    with ExitStack() as stack:
        sandbox = subprocess.Popen(
            [sys.executable, "-m", "sandbox", "--port", "0"], stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        stack.callback(sandbox.wait, 10)
        stack.callback(sandbox.terminate)
        assert sandbox.stdout is not None
        stack.callback(sandbox.stdout.close)
        url = sandbox.stdout.readline().split()[-1]
        own_redis = OwnRedis(folder)
        stack.callback(own_redis.end)
        config = folder / "dspy-jobs.toml"
        header = 'idempotency_header = "Idempotency-Key"' if keys else ""
        config.write_text(CONFIG.replace("SANDBOX", url).replace("LATENCY", str(latency)).replace("KEYS", header))
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("DSPY_JOBS_")}
        environ = {"REDIS_URL": own_redis.url, "DSPY_JOBS_CONFIG": str(config)}
        store = SyncStore(connect(own_redis.url))
        settings = load_settings(config, environ)
        fleet = Fleet(settings, store, {**inherited, **environ, "PYTHONPATH": str(ROOT)}, folder / "worker.log", url)
        stack.callback(fleet.end)
        yield fleet, own_redis


def soak(jobs: int, seconds: float, faults: Faults, latency: float, keys: bool = False) -> Report:
    """Run one soak in a folder of its own.

    `latency` is the model's, in seconds. With `keys` the provider is one that charges a repeated call once.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dj-")))
        fleet, own = stack.enter_context(fleet_on_own_redis(folder, latency, keys))
        return Soak(fleet, own, jobs, faults).run(seconds)


def main() -> int:
    """Run and print; exit 1 if anything was lost, published twice, or paid twice without a kill to blame."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=600, help="after which nothing is disturbed any more")
    parser.add_argument("--latency", type=float, default=0.5, help="of the model, in seconds")
    parser.add_argument("--kill-every", type=float, default=5, help="seconds between kills of a random worker")
    parser.add_argument("--outages", type=float, nargs="*", default=[0, 60], help="seconds for which Redis is dead")
    parser.add_argument("--keys", action="store_true", help="a provider that charges a repeated call once")
    parser.add_argument("--stalls", type=float, nargs="*", default=[30], help="seconds for which Redis is stopped")
    options = parser.parse_args()
    faults = Faults(options.kill_every, tuple(options.outages), tuple(options.stalls))
    report = soak(options.jobs, options.seconds, faults, options.latency, options.keys)
    print(json.dumps(asdict(report), indent=2))
    broken = report.lost or report.published_twice or report.wrong_counts
    broken = broken or report.booked_nanos != report.paid_nanos - report.paid_twice_nanos
    return int(bool(broken) or report.calls_paid_twice > report.in_flight_at_kills)


if __name__ == "__main__":
    sys.exit(main())
