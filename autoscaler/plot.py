"""Draws a simulation. Needs matplotlib, which nothing else here does: the extra `plot` brings it."""

from __future__ import annotations

from pathlib import Path

from autoscaler.simulation import Played


class NoPlotting(Exception):
    """matplotlib is not installed; the message says how to get it."""


def draw(played: Played, path: Path, title: str) -> None:
    """Write a picture of depth, replicas, wait and cost over time; the suffix of the path says in which format.

    Raises:
        NoPlotting: matplotlib is not installed.
        ValueError: the suffix is none of a picture.
    """
    try:
        import matplotlib as mpl

        mpl.use("Agg")  # no display needed
        from matplotlib import pyplot
    except ImportError:
        raise NoPlotting("a plot needs matplotlib: pip install 'dspy-jobs[plot]'") from None
    ticks = played.ticks
    times = [tick.t for tick in ticks]
    figure, (depth, replicas, wait, cost) = pyplot.subplots(4, 1, sharex=True, figsize=(10, 11))
    depth.plot(times, [tick.waiting for tick in ticks], label="waiting")
    depth.plot(times, [tick.inflight for tick in ticks], label="in flight")
    depth.plot(times, [tick.work for tick in ticks], label="work (the metric)", linestyle="--")
    depth.set_ylabel("jobs")
    replicas.step(times, [tick.replicas for tick in ticks], where="post", label="asked for")
    replicas.step(times, [tick.ready for tick in ticks], where="post", label="ready")
    replicas.step(times, [tick.draining for tick in ticks], where="post", label="draining")
    replicas.set_ylabel("workers")
    wait.plot(times, [tick.oldest_wait_seconds for tick in ticks], label="oldest wait")
    wait.set_ylabel("seconds")
    cost.plot(times, [tick.cost for tick in ticks], label="cost so far")
    cost.set_ylabel("cost")
    cost.set_xlabel("seconds")
    for axes in (depth, replicas, wait, cost):
        axes.legend(loc="upper right")
        axes.grid(alpha=0.3)
    figure.suptitle(title)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
