"""How a worker that is of no use ends, whatever keeps it."""

from __future__ import annotations

import os
import signal
from types import SimpleNamespace
from typing import Any

import pytest

from worker import watchdog
from worker.watchdog import END_SECONDS, Watchdog


class Scene:
    """A watchdog of a worker whose threads are stuck, in time that passes when somebody sleeps."""

    def __init__(self, drain_seconds: float, runs_seconds: float) -> None:
        self.now, self.signals = 0.0, list[float]()
        self.drain_seconds, self.runs_seconds = drain_seconds, runs_seconds
        self.exits = list[tuple[float, int]]()

    @property
    def running(self) -> bool:
        """Whether a job runs."""
        return self.now < self.runs_seconds

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds

    def end(self) -> None:
        """Have the watchdog end the worker."""
        worker = SimpleNamespace(drain_seconds=self.drain_seconds)
        runner: Any = SimpleNamespace(settings=SimpleNamespace(worker=worker))
        chunks: Any = self
        self.runner = runner
        Watchdog(chunks, lambda: None)._end()


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Ends a worker that drains and runs for so many seconds, and does not go by itself."""

    def act(drain_seconds: float, runs_seconds: float) -> Scene:
        scene = Scene(drain_seconds, runs_seconds)

        def note(pid: int, number: int) -> None:
            assert (pid, number) == (os.getpid(), signal.SIGTERM)
            scene.signals.append(scene.now)

        monkeypatch.setattr(watchdog.os, "kill", note)
        monkeypatch.setattr(watchdog.os, "_exit", lambda code: scene.exits.append((scene.now, code)))
        monkeypatch.setattr(watchdog, "time", SimpleNamespace(sleep=scene.sleep, monotonic=lambda: scene.now))
        scene.end()
        monkeypatch.undo()
        return scene

    return act


@pytest.mark.parametrize(
    ("drain_seconds", "runs_seconds", "told_again"),
    [(3600, 0, END_SECONDS), (3600, 90, 90), (60, 10_000, 60), (1, 0, 1)],
)
def test_stuck_threads_do_not_keep_it(play: Any, drain_seconds: float, runs_seconds: float, told_again: float) -> None:
    """It is told again once nothing runs, at the latest when a drain is over; then it ends in any case."""
    scene = play(drain_seconds, runs_seconds)
    assert scene.signals == [0, told_again]
    assert scene.exits == [(told_again + END_SECONDS, os.EX_SOFTWARE)]
