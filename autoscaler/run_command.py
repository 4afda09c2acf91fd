"""``python -m autoscaler run``: what the options and settings say, made into a running loop."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import redis
import structlog
from redis.exceptions import RedisError

from autoscaler.backends.compose import ComposeService
from autoscaler.backends.dry_run import DryRun
from autoscaler.backends.kubernetes import IN_CLUSTER_URL, SERVICE_ACCOUNT, KubernetesScale
from autoscaler.backends.local_worker import Launcher
from autoscaler.backends.memory import available_mib
from autoscaler.backends.process import Limits, ProcessBackend
from autoscaler.backends.registry import RedisRegistry, live_workers
from autoscaler.fleet import Backend, BackendError, Misconfigured
from autoscaler.gauges import Gauges
from autoscaler.lease import Lease, NoLease
from autoscaler.ledger import DemandDocument
from autoscaler.loop import Autoscaler, Leadership
from autoscaler.obeyed import Edits, Plan, ScaledObjectFile, bounded
from autoscaler.observer import direct_observer, remote_observer
from autoscaler.reading import Observer
from autoscaler.scaled_object import ScaledObject, ScaledObjectError
from autoscaler.sources import UnusableTrigger
from autoscaler.status_server import Pulse, serve_status
from dspy_jobs import error_reports, names
from dspy_jobs.line_writer import LineWriter
from dspy_jobs.logs import configure_logging
from dspy_jobs.pid_files import worker_pids
from dspy_jobs.redis_url import redis_url
from dspy_jobs.settings import LONGEST_SECONDS, AutoscalerSettings, ConfigurationError, Settings, load_settings, secret
from dspy_jobs.stack.inherited import inherited_environ
from dspy_jobs.stack.parts import WORKER_ENVIRON
from dspy_jobs.states import PRIORITY_STEPS
from dspy_jobs.store import connect

log = structlog.get_logger("autoscaler")

#: Exit codes: a wrong configuration; a single run in which nothing could be decided, and one that found no Redis.
WRONG_CONFIGURATION, UNDECIDED, NO_REDIS = 2, 1, 3

BACKENDS = get_args(AutoscalerSettings.model_fields["backend"].annotation)

#: Seconds between looks at workers and at the lease.
_STEP_SECONDS = 0.25
#: Seconds a worker gets beyond its own promise to end before it is killed.
_DRAIN_GRACE_SECONDS = 5.0
#: Seconds beyond the longest job for it to end: ten until a worker gives up one that is stuck, and a few to spare.
AFTER_LONGEST_JOB_SECONDS = 15.0


def add_arguments(command: argparse.ArgumentParser) -> None:
    """The options of ``run``."""
    add = command.add_argument
    add("--scaled-object", type=Path, metavar="FILE", help="KEDA ScaledObject to obey")
    add("--backend", choices=BACKENDS, help="what starts and stops workers")
    add("--once", action="store_true", help="decide and act once, then exit; workers are left running")
    add(
        "--direct",
        action=argparse.BooleanOptionalAction,
        help="read Redis, not the API; outside of a cluster the default",
    )
    add("--url", help="address of GET /v1/autoscale, in place of the one in the ScaledObject")
    add("--min", type=int, metavar="N", help="in place of minReplicaCount")
    add("--max", type=int, metavar="N", help="in place of maxReplicaCount")
    add("--at-most", type=int, metavar="N", help="lowers maxReplicaCount, never raises it")
    add("--scale-to-zero-from", type=int, metavar="N", help="the last step to 0 begins at N workers or fewer; 0: any")
    add("--metrics-port", type=int, metavar="PORT", help="serve Prometheus metrics on this port")
    add("--metrics-host", default="127.0.0.1", help="address the metrics are served on")
    add("--lease-name", help="autoscalers of the same name and Redis take turns; by default the ScaledObject's")
    add("--leave-workers", action="store_true", help="on exit leave the workers running for the next autoscaler")
    add("--compose-command", default="docker compose", help="Compose's command with its own options")
    add("--kubernetes-url", default=IN_CLUSTER_URL, help="address of the API server")
    add(
        "--kubernetes-account", type=Path, default=SERVICE_ACCOUNT, metavar="FOLDER", help="the service account's files"
    )
    add("--namespace", help="namespace of the workload, by default the ScaledObject's or else our own")


def main(options: argparse.Namespace) -> int:
    """Run until SIGTERM or SIGINT. Exits 0 after a clean stop, 2 when something must be put right first."""
    try:
        settings = load_settings()
        configure_logging(settings, "autoscaler", lines=LineWriter(sys.stdout))
        error_reports.start(settings, "autoscaler")
        run = Run.prepare(options, settings)
    except (ConfigurationError, ScaledObjectError, UnusableTrigger, BackendError, ValueError, OSError) as error:
        print(f"autoscaler: {error}", file=sys.stderr)
        return WRONG_CONFIGURATION
    try:
        return run.once() if options.once else run.until_stopped()
    finally:
        run.lease.give_up()


@dataclass
class Run:
    """Everything one run owns."""

    loop: Autoscaler
    backend: Backend
    lease: Leadership
    leave_workers: bool
    pulse: Pulse
    ledger: redis.Redis
    edits: Edits

    @classmethod
    def prepare(cls, options: argparse.Namespace, settings: Settings) -> Run:
        """Build it all; nothing is scaled yet.

        Raises:
            ScaledObjectError, UnusableTrigger, BackendError, ValueError, OSError: something must be put right first.
        """
        kind = options.backend or settings.autoscaler.backend
        file = ScaledObjectFile(options, settings)
        target = file.read()
        ledger = connect(redis_url(settings), timeout_seconds=3.0)
        gauges = Gauges(target)
        backend = _backend(kind, options, settings, target, ledger, gauges)

        def plan_of(target: ScaledObject) -> Plan:
            scaling = bounded(target.scaling, options, kind)
            _warn_of_other_concurrency(target, settings)
            return Plan(target, scaling, _observer(kind, options, settings, target, ledger))

        plan = plan_of(target)
        gauges.obey(target, plan.scaling)
        lease = _leadership(kind, options.lease_name or target.name, ledger, backend.place)
        port = settings.autoscaler.metrics_port if options.metrics_port is None else options.metrics_port
        pulse = Pulse()
        if port is not None:
            serve_status(port, options.metrics_host, gauges.registry, pulse)
        tell = backend.tell if isinstance(backend, DryRun) else None
        loop = Autoscaler(plan.scaling, plan.observer, backend, lease, gauges, time.monotonic, tell)
        edits = Edits(file, plan_of, plan, loop, gauges)
        return cls(loop, backend, lease, options.leave_workers, pulse, ledger, edits)

    def once(self) -> int:
        """Decide and act once; 0 if every metric could be read, 3 without Redis, which knows who leads."""
        if problem := self._redis_problem():
            print(f"autoscaler: Redis cannot be reached: {problem}; set REDIS_URL or start the stack", file=sys.stderr)
            return NO_REDIS
        if self.loop.step():
            return 0
        if not self.loop.leads:
            print(f"autoscaler: another one leads ({self.lease.holder}): it scales, this one does not", file=sys.stderr)
        return UNDECIDED

    def _redis_problem(self) -> str | None:
        try:
            self.ledger.ping()
        except RedisError as error:
            return str(error).rstrip(".")
        return None

    def until_stopped(self) -> int:
        """Step after step until told to stop, then drain the workers; a second signal makes them give back."""
        told = Told()
        code = self._step_until(told)
        log.info("stopping", leaves_workers=self.leave_workers)
        self.lease.give_up()
        # Whether it leads or not: while Redis is away nobody does, and nobody else will end them.
        if not self.leave_workers:
            self._stop_backend(told)
        return code

    def _step_until(self, told: Told) -> int:
        """Step after step until told to stop, 0, or until no worker can be had any more, 2."""
        try:
            while told.times == 0:
                self.pulse.beat()
                self.edits.take()
                self.loop.step()
                time.sleep(_STEP_SECONDS)
        except Misconfigured as error:
            log.error("worker_misconfigured", reason=str(error))
            print(f"autoscaler: workers cannot start: {error}", file=sys.stderr)
            return WRONG_CONFIGURATION
        return 0

    def _stop_backend(self, told: Told) -> None:
        seen = told.times
        while not self.backend.stop():
            self.pulse.beat()
            if told.times > seen:
                seen = told.times
                self.backend.hurry()
            time.sleep(_STEP_SECONDS)


class Told:
    """Counts the signals that ask this process to end."""

    def __init__(self) -> None:
        self.times = 0
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._again())

    def _again(self) -> None:
        self.times += 1


def _backend(
    kind: str,
    options: argparse.Namespace,
    settings: Settings,
    target: ScaledObject,
    ledger: redis.Redis,
    gauges: Gauges,
) -> Backend:
    make: dict[str, Callable[[], Backend]] = {
        "process": lambda: _process_backend(settings, ledger, gauges),
        "dry-run": lambda: DryRun(live_workers(ledger)),
        "compose": lambda: ComposeService(target.target.name, shlex.split(options.compose_command)),
        "kubernetes": lambda: KubernetesScale(
            target.target, options.namespace or target.namespace, options.kubernetes_url, options.kubernetes_account
        ),
    }
    return make[kind]()


def _process_backend(settings: Settings, ledger: redis.Redis, gauges: Gauges) -> ProcessBackend:
    drain_seconds = drain_seconds_of(settings)
    limits = Limits(
        drain_seconds=drain_seconds + _DRAIN_GRACE_SECONDS,
        stop_seconds=settings.worker.drain_seconds,
        give_back_seconds=_DRAIN_GRACE_SECONDS,
        startup_seconds=settings.autoscaler.startup_grace_seconds,
        memory_mib=settings.autoscaler.max_memory_mb_per_worker,
        starting=os.cpu_count() or 1,
        shows_content=settings.log_content,
    )
    environ = {**inherited_environ(), **WORKER_ENVIRON, "DSPY_JOBS_WORKER_DRAIN_SECONDS": str(drain_seconds)}
    launcher = Launcher((sys.executable, "-m", "worker"), worker_pids(settings.data_dir), environ)
    return ProcessBackend(launcher, RedisRegistry(ledger), limits, gauges, available_mib)


def drain_seconds_of(settings: Settings) -> float:
    """How long our workers may take to end their jobs: as long as any job, for scaling in must cut none short.

    `worker.drain_seconds` is a promise to whoever waits for the end of a worker, and here nobody does; it bounds the
    end of the autoscaler itself.
    """
    longest = min(settings.jobs.max_timeout_seconds + AFTER_LONGEST_JOB_SECONDS, LONGEST_SECONDS)
    return max(settings.worker.drain_seconds, longest)


def _leadership(kind: str, name: str, ledger: redis.Redis, place: str) -> Leadership:
    """A dry run takes no lease: the one that scales would stop, and nobody would scale."""
    return NoLease() if kind == "dry-run" else Lease(ledger, names.autoscaler_lease(name), place=place)


def _is_direct(kind: str, options: argparse.Namespace) -> bool:
    """Whether to read Redis: outside of a cluster nobody resolves the address in the ScaledObject."""
    if options.direct is not None:
        return bool(options.direct)
    is_in_cluster = kind != "process" and (kind == "kubernetes" or options.kubernetes_account.is_dir())
    return options.url is None and not is_in_cluster


def _observer(
    kind: str, options: argparse.Namespace, settings: Settings, target: ScaledObject, ledger: redis.Redis
) -> Observer:
    if _is_direct(kind, options):
        return direct_observer(target, DemandDocument(ledger, settings), ledger)
    _warn_of_uncounted_models(target, settings)
    return remote_observer(target, ledger, options.url, secret)


def _warn_of_other_concurrency(target: ScaledObject, settings: Settings) -> None:
    """The target is what one worker carries; a file made for other workers sizes the fleet wrongly."""
    given, concurrency = target.load_per_replica, settings.worker.concurrency
    if given != concurrency:
        log.warning("target_is_not_concurrency", target=given, concurrency=concurrency)


def _warn_of_uncounted_models(target: ScaledObject, settings: Settings) -> None:
    """While the API is away, jobs of a model whose lists no trigger names are no work to anybody."""
    counted = {source.metadata["listName"] for source in target.sources if source.type == "redis"}
    steps = PRIORITY_STEPS.values()
    missing = [
        model
        for model in settings.models
        if counted.isdisjoint(names.queue_waiting(names.queue(model), step) for step in steps)
    ]
    if counted and missing:
        log.warning("models_without_trigger", models=missing, note="their jobs do not count while the API is away")
