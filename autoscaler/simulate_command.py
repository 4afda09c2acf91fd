"""``python -m autoscaler simulate``: plays a trace to a ScaledObject and shows depth, workers, waits and cost."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from autoscaler.cadence import HPA_SYNC_SECONDS, Periods
from autoscaler.obeyed import ScaledObjectFile
from autoscaler.plot import NoPlotting, check_plot, draw
from autoscaler.scaled_object import ScaledObject, ScaledObjectError
from autoscaler.simulation import Played, SimulationError, Tick, World, simulate
from autoscaler.spec import ScalingSpec
from autoscaler.trace import TraceError, read_trace
from dspy_jobs.settings import ConfigurationError, Settings, load_settings

_OTHER_TARGET = "autoscaler: the target is {:g}, but a worker runs {} jobs at once; the fleet is sized for the target"

_HEADINGS = {
    "t": "t",
    "waiting": "waiting",
    "in flight": "inflight",
    "oldest": "oldest_wait_seconds",
    "longest": "longest_wait_seconds",
    "work": "work",
    "workers": "replicas",
    "ready": "ready",
    "draining": "draining",
    "cost": "cost",
    "reason": "reason",
}
_FORMATS = {"t": "g", "oldest": ".1f", "longest": ".1f", "work": ".3f", "cost": ".4f"}


def add_arguments(command: argparse.ArgumentParser) -> None:
    """The options of ``simulate``."""
    add = command.add_argument
    add("--trace", type=Path, required=True, metavar="FILE", help="CSV: t,arrivals,service_seconds or t,work")
    add("--scaled-object", type=Path, metavar="FILE", help="KEDA ScaledObject to obey")
    add("--plot", type=Path, metavar="FILE.png", help="draw depth, workers, wait and cost (needs matplotlib)")
    add("--json", action="store_true", help="print everything as JSON")
    add("--every-tick", action="store_true", help="print each tick, also those that change nothing")
    add(
        "--as",
        dest="like",
        choices=("local", "cluster"),
        default="local",
        help="whose rhythm: ours, or KEDA's and HPA's",
    )
    add(
        "--hpa-offset",
        type=float,
        metavar="SECONDS",
        help="with --as cluster: how much later than KEDA's first poll the HPA's first sync is",
    )
    add("--until", type=float, metavar="SECONDS", help="end then, in place of when all is done")
    add("--concurrency", type=int, help="jobs a worker runs at once; by default worker.concurrency")
    add("--startup-seconds", type=float, default=3.0, help="from a worker's start until it takes jobs")
    add("--target-wait-seconds", type=float, help="in place of autoscaler.target_wait_seconds")
    add("--target-utilization", type=float, help="in place of autoscaler.target_utilization")
    add("--provider-slots", type=int, help="in place of autoscaler.provider_slots")
    add("--hourly-price", type=float, default=1.0, help="what a worker costs an hour")
    add("--scale-to-zero-from", type=int, metavar="N", help="the last step to 0 begins at N workers or fewer; 0: any")


def main(options: argparse.Namespace) -> int:
    """Play, print, draw. Exits 0, or 2 when something must be put right first."""
    try:
        if options.plot:
            check_plot(options.plot)
        settings = load_settings()
        target = _target(options, settings)
        periods = _periods(options, target)
        world = _world(options, settings)
        if target.load_per_replica != world.concurrency:
            print(_OTHER_TARGET.format(target.load_per_replica, world.concurrency), file=sys.stderr)
        played = simulate(target, read_trace(options.trace), world, periods, options.until)
        if options.plot:
            draw(played, options.plot, f"{options.trace.name} under {target.name}", world.hourly_price)
    except (
        ConfigurationError,
        ScaledObjectError,
        TraceError,
        SimulationError,
        NoPlotting,
        ValueError,
        OSError,
    ) as error:
        print(f"autoscaler: {error}", file=sys.stderr)
        return 2
    sys.stdout.write(_json(played) if options.json else _table(played, options.every_tick))
    return 0


def _target(options: argparse.Namespace, settings: Settings) -> ScaledObject:
    """The ScaledObject, with the last step to zero as the rhythm's owner takes it."""
    target = ScaledObjectFile(options, settings).read()
    default = None if options.like == "cluster" else 1
    last = default if options.scale_to_zero_from is None else options.scale_to_zero_from or None
    fields = {name: getattr(target.scaling, name) for name in ScalingSpec.model_fields}
    scaling = ScalingSpec(**{**fields, "scale_to_zero_from": last})
    return replace(target, scaling=scaling)


def _periods(options: argparse.Namespace, target: ScaledObject) -> Periods:
    """Raises ValueError for an offset that no cluster has."""
    interval, offset = target.scaling.polling_interval, options.hpa_offset
    if options.like == "local":
        if offset is not None:
            raise ValueError("--hpa-offset is of a cluster's rhythm: add --as cluster")
        return Periods.local(interval)
    if offset is not None and not 0 <= offset < HPA_SYNC_SECONDS:
        raise ValueError(f"--hpa-offset {offset:g} must be from 0 to less than {HPA_SYNC_SECONDS:g}: the HPA's period")
    return Periods.cluster(interval, offset or 0.0)


def _world(options: argparse.Namespace, settings: Settings) -> World:
    scaling = settings.autoscaler
    given: dict[str, tuple[Any, Any]] = {
        "concurrency": (options.concurrency, settings.worker.concurrency),
        "target_wait_seconds": (options.target_wait_seconds, scaling.target_wait_seconds),
        "target_utilization": (options.target_utilization, scaling.target_utilization),
        "provider_slots": (options.provider_slots, scaling.provider_slots),
    }
    numbers = {name: default if option is None else option for name, (option, default) in given.items()}
    if any(number is not None and number <= 0 for number in numbers.values()):
        raise ValueError("concurrency, target wait, utilization and provider slots must be more than 0")
    return World(startup_seconds=options.startup_seconds, hourly_price=options.hourly_price, **numbers)


def _json(played: Played) -> str:
    return orjson.dumps(played.as_json(), option=orjson.OPT_INDENT_2).decode() + "\n"


def _table(played: Played, every_tick: bool) -> str:
    """A line for each tick, without columns that a trace of the metric alone has nothing for."""
    shown = [name for name, field in _HEADINGS.items() if getattr(played.ticks[0], field) is not None]
    rows = [shown, *(_row(tick, shown) for tick in (played.ticks if every_tick else _changes(played.ticks)))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(shown) - 1)]
    lines = ["  ".join([*(c.rjust(w) for c, w in zip(row, widths, strict=False)), row[-1]]) for row in rows]
    return "\n".join([*lines, "", *_summary(played), ""])


def _changes(ticks: Iterable[Tick]) -> Iterator[Tick]:
    """The ticks that change the number of workers asked for, ready or draining, and the first and last one."""
    ticks, before = list(ticks), None
    for index, tick in enumerate(ticks):
        now = (tick.replicas, tick.ready, tick.draining)
        if now != before or index == len(ticks) - 1:
            yield tick
        before = now


def _row(tick: Tick, shown: Iterable[str]) -> list[str]:
    return [format(getattr(tick, _HEADINGS[name]), _FORMATS.get(name, "")) for name in shown]


def _summary(played: Played) -> Iterator[str]:
    one, jobs = played.summary, played.summary.jobs
    if jobs:
        yield f"{jobs.jobs} jobs in {one.seconds:g} s, {jobs.unstarted} not started; at most {jobs.most_waiting} waited"
    else:
        yield f"{one.seconds:g} s; the trace tells the metric and nothing of jobs, so no waits are known"
    yield f"workers: at most {one.most_replicas}, {one.overshoot} more than any metric value asked for"
    if jobs:
        yield (
            f"wait: mean {jobs.wait_mean:.1f} s, p50 {jobs.wait_p50:.1f}, p95 {jobs.wait_p95:.1f}, "
            f"p99 {jobs.wait_p99:.1f}, longest {jobs.wait_max:.1f}"
        )
    yield f"cost: {one.replica_seconds:.0f} replica seconds = {one.cost:.4f}"
