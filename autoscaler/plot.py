"""Draws a simulation. Needs matplotlib, which nothing else here does: the extra `plot` brings it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from autoscaler.simulation import Played, Tick


class NoPlotting(Exception):
    """matplotlib is not installed; the message says how to get it."""


def check_plot(path: Path) -> None:
    """See that a picture can be written there, before there is anything to draw.

    Raises:
        NoPlotting: matplotlib is not installed.
        ValueError: the suffix is none of a picture, or no file can be written there.
    """
    _pyplot()
    from matplotlib.backend_bases import FigureCanvasBase

    kinds = sorted(FigureCanvasBase.get_supported_filetypes())
    if path.suffix.removeprefix(".").lower() not in kinds:
        raise ValueError(f"--plot {path}: name a picture, such as step.png; the suffixes are {', '.join(kinds)}")
    if not path.parent.is_dir():
        raise ValueError(f"--plot {path}: there is no folder {path.parent}")
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ValueError(f"--plot {path}: cannot be written")


def draw(played: Played, path: Path, title: str, hourly_price: float) -> None:
    """Write a picture of depth, replicas, waits and cost over time; the suffix of the path says in which format.

    A trace of the metric alone tells nothing of jobs, so their waits have no place in its picture.

    Raises:
        NoPlotting: matplotlib is not installed.
    """
    pyplot = _pyplot()
    panels: list[Callable[[Any, Sequence[Tick]], None]] = [_draw_work, _draw_workers, _draw_cost(hourly_price)]
    if played.summary.jobs:
        panels.insert(2, _draw_waits)
    figure, rows = pyplot.subplots(len(panels), 1, sharex=True, figsize=(11, 2.6 * len(panels)), layout="constrained")
    for axes, panel in zip(rows, panels, strict=True):
        panel(axes, played.ticks)
        axes.legend(loc="upper left", bbox_to_anchor=(1.005, 1), borderaxespad=0, frameon=False)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    rows[-1].set_xlabel("seconds")
    figure.suptitle(title)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _pyplot() -> Any:
    try:
        import matplotlib as mpl

        mpl.use("Agg")  # no display needed
        from matplotlib import pyplot
    except ImportError:
        raise NoPlotting("a plot needs matplotlib: pip install 'dspy-jobs[plot]'") from None
    return pyplot


def _draw_work(axes: Any, ticks: Sequence[Tick]) -> None:
    if ticks[0].waiting is not None:
        _step(axes, ticks, "waiting", "waiting")
        _step(axes, ticks, "inflight", "in flight")
    _step(axes, ticks, "work", "work (the metric)", linestyle="--")
    axes.set_ylabel("jobs" if ticks[0].waiting is not None else "call slots")


def _draw_workers(axes: Any, ticks: Sequence[Tick]) -> None:
    _step(axes, ticks, "replicas", "asked for")
    _step(axes, ticks, "ready", "ready")
    _step(axes, ticks, "draining", "draining")
    axes.set_ylabel("workers")
    axes.yaxis.get_major_locator().set_params(integer=True)


def _draw_waits(axes: Any, ticks: Sequence[Tick]) -> None:
    """What jobs waited that started since the tick before: at the ticks themselves often none waits."""
    _step(axes, ticks, "longest_wait_seconds", "longest, of jobs\nstarted since the\ntick before", where="pre")
    _step(axes, ticks, "oldest_wait_seconds", "oldest that waits", linestyle="--")
    axes.set_ylabel("wait, seconds")


def _draw_cost(hourly_price: float) -> Callable[[Any, Sequence[Tick]], None]:
    def panel(axes: Any, ticks: Sequence[Tick]) -> None:
        axes.plot([tick.t for tick in ticks], [tick.cost for tick in ticks], label="so far")
        axes.set_ylabel("worker-hours" if hourly_price == 1 else f"cost, at {hourly_price:g}\na worker-hour")

    return panel


def _step(axes: Any, ticks: Sequence[Tick], field: str, label: str, where: str = "post", **style: str) -> None:
    times, values = [tick.t for tick in ticks], [getattr(tick, field) for tick in ticks]
    axes.step(times, values, where=where, label=label, **style)
