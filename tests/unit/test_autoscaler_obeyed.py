"""The ScaledObject's file: edits are obeyed while the autoscaler runs, and mistakes in them are not."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import structlog
from autoscaler_doubles import SCALED_OBJECT, Clock, PlayedBackend, PlayedLease, PlayedMetric

from autoscaler.gauges import Gauges
from autoscaler.loop import Autoscaler
from autoscaler.obeyed import Edits, Plan, ScaledObjectFile, bounded
from autoscaler.scaled_object import ScaledObject
from dspy_jobs.settings import Settings

OPTIONS = {"scaled_object": None, "min": None, "max": None, "at_most": None, "scale_to_zero_from": None}


@dataclass
class ClosedMetric(PlayedMetric):
    """Knows whether it is still read."""

    is_closed: bool = False

    def close(self) -> None:
        """Not read any more."""
        self.is_closed = True


class Scene:
    """A running autoscaler over a file, whose metric always says 24."""

    def __init__(self, path: Path) -> None:
        self.path, self.clock, self.backend = path, Clock(), PlayedBackend()
        self.options = Namespace(**{**OPTIONS, "scaled_object": path, "at_most": 3})
        self.observers: list[ClosedMetric] = []
        path.write_text(SCALED_OBJECT)
        file = ScaledObjectFile(self.options, Settings())
        plan = self._plan(file.read())
        self.gauges = Gauges(plan.target)
        self.loop = Autoscaler(plan.scaling, plan.observer, self.backend, PlayedLease(), self.gauges, self.clock)
        self.edits = Edits(file, self._plan, plan, self.loop, self.gauges)

    def _plan(self, target: ScaledObject) -> Plan:
        self.observers.append(ClosedMetric(24.0))
        return Plan(target, bounded(target.scaling, self.options, "process"), self.observers[-1])

    def write(self, old: str, new: str) -> None:
        """Edit the file as most editors do: another one takes its place."""
        text = SCALED_OBJECT.replace(old, new)
        assert text != SCALED_OBJECT
        other = self.path.with_suffix(".new")
        other.write_text(text)
        other.replace(self.path)

    def tick(self, seconds: float = 5) -> int:
        """The size after the next step."""
        self.edits.take()
        self.loop.step()
        self.clock.pass_by(seconds)
        return self.backend.replicas


@pytest.fixture
def events() -> Iterator[list[Any]]:
    """What is logged."""
    with structlog.testing.capture_logs() as caught:
        yield caught


@pytest.fixture
def scene(tmp_path: Path, events: list[Any]) -> Scene:
    """At most 3 by the command line, 4 by the file."""
    return Scene(tmp_path / "so.yaml")


def _said(events: list[Any], *names: str) -> list[str]:
    return [event["event"] for event in events if event["event"] in names]


def test_the_bounds_that_hold_are_told_at_the_start(scene: Scene, events: list[Any]) -> None:
    """Those of the command line over the file's."""
    [told] = [event for event in events if event["event"] == "obeying"]
    assert (told["min_workers"], told["max_workers"], told["polling_seconds"]) == (0, 3, 5)
    assert told["file"] == str(scene.path)
    assert scene.tick() == 3


def test_an_edit_is_obeyed(scene: Scene, events: list[Any]) -> None:
    """The new bounds hold from the next step on, in the new rhythm; what was read before is closed."""
    assert scene.tick(1) == 3
    scene.write("maxReplicaCount: 4", "maxReplicaCount: 2")
    assert scene.tick(1) == 2
    assert scene.gauges.registry.get_sample_value("dspy_autoscaler_max_replicas") == 2
    assert [observer.is_closed for observer in scene.observers] == [True, False]
    scene.write("pollingInterval: 5", "pollingInterval: 1")
    assert [scene.tick(1) for _ in range(2)] == [3, 3]
    scene.observers[-1].value = 8
    assert scene.tick(1) == 1, "a second later, not five"
    assert _said(events, "obeying") == ["obeying"] * 3


def test_a_pause_and_its_end_are_told(scene: Scene, events: list[Any]) -> None:
    """`paused` by annotation holds the size, and both its ends are a line."""
    scene.write("namespace: jobs", 'namespace: jobs, annotations: {autoscaling.keda.sh/paused: "true"}')
    labels = {"namespace": "jobs", "scaledObject": "dspy-worker"}
    assert scene.tick() == 0
    assert scene.gauges.registry.get_sample_value("keda_scaled_object_paused", labels) == 1
    scene.path.write_text(SCALED_OBJECT)
    assert scene.tick() == 3
    assert scene.gauges.registry.get_sample_value("keda_scaled_object_paused", labels) == 0
    assert [event["by"] for event in events if event["event"] == "paused"] == [["paused"]]
    assert _said(events, "paused", "unpaused") == ["paused", "unpaused"]


def test_a_pause_found_at_the_start_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a fleet that never moves would be a riddle."""
    paused = SCALED_OBJECT.replace(
        "namespace: jobs", 'namespace: jobs, annotations: {autoscaling.keda.sh/paused-replicas: "0"}'
    )
    monkeypatch.setitem(globals(), "SCALED_OBJECT", paused)
    with structlog.testing.capture_logs() as events:
        Scene(tmp_path / "so.yaml")
    [told] = [event for event in events if event["event"] == "paused"]
    assert (told["by"], told["workers"]) == (["paused-replicas"], 0)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("pollingInterval", "pollInterval", "unknown field"),
        ("maxReplicaCount: 4", "maxReplicaCount: 4\n  minReplicaCount: 9", "exceeds maxReplicaCount"),
        ("name: dspy-worker", "name: other", "must stay as they are"),
        ("{name: worker}", "{name: other}", "must stay as they are"),
    ],
)
def test_a_mistake_changes_nothing(scene: Scene, events: list[Any], old: str, new: str, problem: str) -> None:
    """It is told once, and the settings before it are obeyed on, until the file is right again."""
    scene.write(old, new)
    assert {scene.tick() for _ in range(3)} == {3}
    [refused] = [event for event in events if event["event"] == "scaled_object_refused"]
    assert problem in refused["problem"]
    scene.write("maxReplicaCount: 4", "maxReplicaCount: 1")
    assert scene.tick() == 1


def test_a_file_that_is_gone_changes_nothing(scene: Scene, events: list[Any]) -> None:
    """It may be on its way back."""
    scene.path.unlink()
    assert {scene.tick() for _ in range(3)} == {3}
    assert _said(events, "scaled_object_refused") == ["scaled_object_refused"]
    scene.path.write_text(SCALED_OBJECT.replace("maxReplicaCount: 4", "maxReplicaCount: 1"))
    assert scene.tick() == 1
