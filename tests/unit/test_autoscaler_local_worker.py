"""Worker processes as the machine has them: started, noted, found again."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
import pytest
import structlog

from autoscaler.backends.local_worker import Launcher, LocalWorker
from autoscaler.backends.worker_errors import LONGEST_FILE, MOST_AT_ONCE
from dspy_jobs.pid_files import PidFolder, ProcessMark
from dspy_jobs.waiting import wait_until

#: Writes down its environment, says what it is told to on standard error, and never ends by itself.
SCRIPT = """
import json, os, sys, time
folder, name = sys.argv[1:3]
with open(f"{folder}/{name}.json.new", "w") as out: json.dump(dict(os.environ), out)
os.rename(f"{folder}/{name}.json.new", f"{folder}/{name}.json")
for line in range(int(os.environ.get("LINES_TO_SAY", "0"))): print(line, "x" * 1000, file=sys.stderr)
print("a last word", file=sys.stderr)
time.sleep(600)
"""

Start = Callable[..., LocalWorker]


class Scene:
    """A machine with workers of several folders on it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.started = folder, list[LocalWorker]()

    def launcher(self, folder: str = "workers", **environ: str) -> Launcher:
        """What starts workers from a folder."""
        command = (sys.executable, "-c", SCRIPT, str(self.folder))
        return Launcher(command, PidFolder(self.folder / folder), environ)

    def start(self, name: str, launcher: Launcher | None = None) -> LocalWorker:
        """A worker that runs."""
        worker = (launcher or self.launcher()).start(name, 0.0)
        self.started.append(worker)
        assert wait_until((self.folder / f"{name}.json").exists, 30)
        return worker

    def environ(self, name: str) -> dict[str, str]:
        """The environment a worker was started in."""
        found: dict[str, str] = orjson.loads((self.folder / f"{name}.json").read_bytes())
        return found

    def end(self) -> None:
        """Kill what still runs."""
        for worker in self.started:
            worker.send(signal.SIGKILL)
            assert worker.child
            worker.child.wait(10)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """No worker yet."""
    scene = Scene(tmp_path)
    yield scene
    scene.end()


def test_a_worker_has_the_environment_that_was_given(scene: Scene) -> None:
    """So that it can be told to drain for longer."""
    scene.start("worker-1", scene.launcher(DSPY_JOBS_WORKER_DRAIN_SECONDS="3615.0"))
    assert scene.environ("worker-1")["DSPY_JOBS_WORKER_DRAIN_SECONDS"] == "3615.0"


def test_a_worker_is_found_by_whoever_comes_next(scene: Scene) -> None:
    """By its file; and from the file alone nobody learns how it ended."""
    worker = scene.start("worker-1")
    [found] = scene.launcher().find(7.0)
    assert (found.name, found.mark, found.child) == ("worker-1", worker.mark, None)


def test_a_worker_that_was_never_noted_is_found(scene: Scene) -> None:
    """Its starter was killed in that very moment. It is noted now, under another name where its own is taken."""
    stray = scene.start("worker-1")
    (scene.folder / "workers" / "worker-1.pid").unlink()
    [found] = scene.launcher().find(7.0)
    assert (found.name, found.mark) == ("worker-1", stray.mark)
    assert PidFolder(scene.folder / "workers").read() == {"worker-1": stray.mark}
    second = scene.start("worker-1")
    names = {worker.name: worker.mark for worker in scene.launcher().find(7.0)}
    assert names == {"worker-1": second.mark, f"worker-1-{stray.mark.pid}": stray.mark}


def test_workers_of_others_are_left_alone(scene: Scene) -> None:
    """Those of another folder on the same machine are another autoscaler's, though they run the same command."""
    scene.start("worker-1", scene.launcher("elsewhere"))
    assert scene.launcher().find(7.0) == []


def test_a_place_is_a_machine_and_a_folder(scene: Scene) -> None:
    """Whoever starts workers from the same folder can see them."""
    assert scene.launcher().place == scene.launcher().place != scene.launcher("elsewhere").place


def test_only_its_own_file_is_removed(scene: Scene) -> None:
    """Two that watch one worker both see it end; by then its name may be a new one's."""
    pids, launcher = PidFolder(scene.folder / "workers"), scene.launcher()
    worker = scene.start("worker-1")
    ended = LocalWorker("worker-1", ProcessMark(1, 0.0), 0.0)
    launcher.forget(ended)
    assert pids.read() == {"worker-1": worker.mark}
    launcher.forget(worker)
    assert pids.read() == {}


def test_what_a_worker_says_is_passed_on(scene: Scene) -> None:
    """A few lines come to our log whole, and each but once; the last ones are at hand should the worker die."""
    launcher = scene.launcher(LINES_TO_SAY="3")
    with structlog.testing.capture_logs() as events:
        scene.start("worker-1", launcher)
        assert wait_until(lambda: launcher.last_lines("worker-1").endswith("a last word"), 30)
        launcher.listen("worker-1")
    assert [event["line"][:8] for event in events] == ["0 xxxxxx", "1 xxxxxx", "2 xxxxxx", "a last w"]
    assert {(event["event"], event["worker"]) for event in events} == {("worker_stderr", "worker-1")}


def test_a_flood_on_standard_error_fills_no_disk(scene: Scene) -> None:
    """Of 20 MB the file keeps one at most, our log what was read of it; the worker does not notice."""
    launcher, file = scene.launcher(LINES_TO_SAY="20000"), scene.folder / "workers" / "worker-1.err"
    with structlog.testing.capture_logs() as events:
        worker = scene.start("worker-1", launcher)
        assert wait_until(lambda: launcher.last_lines("worker-1").endswith("a last word"), 60, every=0.001)
    assert file.stat().st_size <= LONGEST_FILE + MOST_AT_ONCE
    assert worker.is_alive
    assert any("bytes left out" in event["line"] for event in events)


def test_a_successor_tells_what_is_said_from_then_on(scene: Scene) -> None:
    """What its predecessor has told is not told again, but is there to explain a death."""
    scene.start("worker-1")
    path = scene.folder / "workers" / "worker-1.err"
    assert wait_until(lambda: path.read_bytes().endswith(b"a last word\n"), 30)
    successor = scene.launcher()
    with structlog.testing.capture_logs() as events:
        assert successor.last_lines("worker-1") == "a last word"
        with path.open("ab") as file:
            file.write(b"and another\nhalf a")
        assert successor.last_lines("worker-1") == "a last word\nand another\nhalf a"
    assert [event["line"] for event in events] == ["and another"]
