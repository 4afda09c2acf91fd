"""How a run ends: what becomes of the workers, and with which exit code."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from autoscaler_doubles import PlayedBackend, PlayedLease

from autoscaler import run_command
from autoscaler.fleet import Misconfigured
from autoscaler.run_command import AFTER_LONGEST_JOB_SECONDS, WRONG_CONFIGURATION, Run, Told, drain_seconds_of
from autoscaler.status_server import Pulse
from dspy_jobs.settings import LONGEST_SECONDS, JobSettings, Settings, WorkerSettings
from worker.chunk import STUCK_SECONDS


@dataclass
class Signals(Told):
    """Those that arrived, without any handler."""

    times: int = 0


@dataclass
class PlayedLoop:
    """Leads until it is told to stop, or says that no worker can start."""

    signals: Signals
    is_misconfigured: bool = False
    leads: bool = True

    def step(self) -> bool:
        """One look, the last one."""
        self.signals.times += 1
        if self.is_misconfigured:
            raise Misconfigured("no such factory")
        return True


class PlayedEdits:
    """Nobody edits anything."""

    def take(self) -> None:
        """Nothing."""


@dataclass
class Scene:
    """A run whose parts are all played."""

    signals: Signals = field(default_factory=Signals)
    lease: PlayedLease = field(default_factory=PlayedLease)
    backend: PlayedBackend = field(default_factory=PlayedBackend)

    def __post_init__(self) -> None:
        self.loop = PlayedLoop(self.signals)

    def end(self, leave_workers: bool = False) -> int:
        """The exit code of a run that ends with its first step."""
        run = Run(
            self.loop,  # type: ignore[arg-type]
            self.backend,
            self.lease,
            leave_workers,
            Pulse(),
            None,  # type: ignore[arg-type]
            PlayedEdits(),  # type: ignore[arg-type]
        )
        return run.until_stopped()


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    """Told to stop after one step."""
    scene = Scene()
    monkeypatch.setattr(run_command, "Told", lambda: scene.signals)
    monkeypatch.setattr(run_command, "_STEP_SECONDS", 0.0)
    return scene


def test_workers_end_with_it_unless_they_are_to_stay(scene: Scene) -> None:
    """The lease is free for the next one either way."""
    assert scene.end() == 0
    assert scene.backend.calls == ["stop"]
    assert not scene.lease.is_held
    assert scene.end(leave_workers=True) == 0
    assert scene.backend.calls == ["stop"]


def test_workers_end_with_it_though_nobody_leads(scene: Scene) -> None:
    """While Redis is away no autoscaler leads; one that is told to stop still takes its workers along."""
    scene.loop.leads = scene.lease.is_held = False
    assert scene.end() == 0
    assert scene.backend.calls == ["stop"]


def test_a_wrong_configuration_ends_the_workers_first(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    """What still runs, if only until it is drained, is not left behind by an autoscaler that gives up."""
    scene.loop.is_misconfigured = True
    assert scene.end() == WRONG_CONFIGURATION
    assert scene.backend.calls == ["stop"]
    assert "workers cannot start: no such factory" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("own", "longest", "expected"),
    [
        (30, 3600, 3600 + AFTER_LONGEST_JOB_SECONDS),
        (7200, 3600, 7200),
        (30, LONGEST_SECONDS, LONGEST_SECONDS),
    ],
)
def test_a_drain_is_longer_than_any_job(own: float, longest: float, expected: float) -> None:
    """Scaling in cuts no job short, also none that is given up for being stuck; what is configured may be longer."""
    jobs = JobSettings(max_timeout_seconds=longest)
    settings = Settings(models={}, jobs=jobs, worker=WorkerSettings(drain_seconds=own))
    assert drain_seconds_of(settings) == expected
    assert WorkerSettings(drain_seconds=expected)
    assert AFTER_LONGEST_JOB_SECONDS > STUCK_SECONDS
