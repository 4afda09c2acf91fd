"""The backends whose workers somebody else keeps running: a cluster, Compose, nobody."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
from http_stand_in import StandIn, stand_in

from autoscaler.backends.compose import ComposeService
from autoscaler.backends.dry_run import DryRun
from autoscaler.backends.kubernetes import KubernetesScale
from autoscaler.fleet import BackendError, Fleet
from autoscaler.loop import Look
from autoscaler.reading import Reading
from autoscaler.scaled_object import ScaleTarget
from autoscaler.state import Decision, State
from dspy_jobs.waiting import wait_until

DEPLOYMENT = "/apis/apps/v1/namespaces/jobs/deployments/worker"


@pytest.fixture
def server() -> Iterator[StandIn]:
    """An API server with one Deployment of three, two of them ready."""
    with stand_in() as scene:
        scene.answer(DEPLOYMENT, {"spec": {"replicas": 3}, "status": {"readyReplicas": 2}})
        scene.answer(f"{DEPLOYMENT}/scale", {"spec": {"replicas": 5}}, method="PATCH")
        yield scene


@pytest.fixture
def account(tmp_path: Path) -> Path:
    """A service account's files."""
    (tmp_path / "token").write_text("first\n")
    (tmp_path / "namespace").write_text("jobs")
    return tmp_path


def test_a_deployment_is_read_and_scaled(server: StandIn, account: Path) -> None:
    """Its size and ready pods are read; the scale subresource is patched; the token is read anew each time."""
    backend = KubernetesScale(ScaleTarget(name="worker"), None, server.url, account)
    assert backend.fleet() == Fleet(3, 2)
    (account / "token").write_text("second")
    backend.scale(5)
    (_, _, first, _), (method, path, second, body) = server.asked
    assert (method, path, orjson.loads(body)) == ("PATCH", f"{DEPLOYMENT}/scale", {"spec": {"replicas": 5}})
    assert second["Content-Type"] == "application/merge-patch+json"
    assert (first["Authorization"], second["Authorization"]) == ("Bearer first", "Bearer second")


def test_a_deployment_at_zero_has_no_ready_pods(server: StandIn, account: Path) -> None:
    """The API leaves out what is 0."""
    server.answer(DEPLOYMENT, {"spec": {"replicas": 0}, "status": {}})
    assert KubernetesScale(ScaleTarget(name="worker"), "jobs", server.url, account).fleet() == Fleet(0, 0)


@pytest.mark.parametrize(("status", "body"), [(403, {}), (404, {}), (200, b"no json"), (200, {"spec": {}})])
def test_an_api_that_refuses_is_an_error(server: StandIn, account: Path, status: int, body: object) -> None:
    """Nothing is decided upon an answer that is none."""
    server.answer(DEPLOYMENT, body, status)
    with pytest.raises(BackendError):
        KubernetesScale(ScaleTarget(name="worker"), None, server.url, account).fleet()


def test_outside_of_a_cluster_it_says_so(tmp_path: Path) -> None:
    """Without a service account, and for kinds without a scale, nothing is started."""
    with pytest.raises(BackendError, match="pod"):
        KubernetesScale(ScaleTarget(name="worker"), None, "http://127.0.0.1:1", tmp_path / "none")
    with pytest.raises(BackendError, match="Deployment"):
        KubernetesScale(ScaleTarget(name="worker", kind="DaemonSet"), "jobs", "http://127.0.0.1:1", tmp_path)


RECORDER = """
import json, pathlib, sys
folder = pathlib.Path(sys.argv[1])
with (folder / "asked").open("a") as file:
    file.write(json.dumps(sys.argv[2:]) + "\\n")
if sys.argv[2] == "ps":
    print((folder / "containers").read_text())
if sys.argv[2] == "up" and (folder / "broken").exists():
    sys.exit(1)
"""


class Compose:
    """A command that records what it is given, in place of Docker's."""

    def __init__(self, folder: Path) -> None:
        (folder / "recorder.py").write_text(RECORDER)
        self._folder = folder
        self.backend = ComposeService("worker", [sys.executable, str(folder / "recorder.py"), str(folder)])

    def run(self, containers: int) -> None:
        """So many containers run."""
        (self._folder / "containers").write_text("\n".join(f"c{number}" for number in range(containers)))

    def break_it(self) -> None:
        """Changes fail from now on."""
        (self._folder / "broken").touch()

    def changes(self) -> list[list[str]]:
        """What it was told to change."""
        path = self._folder / "asked"
        asked = [orjson.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [arguments for arguments in asked if arguments[0] == "up"]


@pytest.fixture
def compose(tmp_path: Path) -> Compose:
    """Two containers run."""
    compose = Compose(tmp_path)
    compose.run(2)
    return compose


def test_a_service_is_counted_and_scaled(compose: Compose) -> None:
    """The containers are the size found; a change goes through `up --scale` and touches no other service."""
    assert compose.backend.fleet() == Fleet(2, 2, 0)
    compose.backend.scale(4)
    assert wait_until(lambda: bool(compose.changes()), 20)
    assert compose.changes() == [["up", "--detach", "--no-recreate", "--no-deps", "--scale", "worker=4", "worker"]]
    assert compose.backend.fleet() == Fleet(4, 2, 0)
    compose.run(5)
    assert compose.backend.fleet() == Fleet(4, 4, 1)


def test_a_failed_change_is_told(compose: Compose) -> None:
    """The next look says so, and the one after that counts anew."""
    compose.break_it()
    compose.backend.scale(4)

    def is_told() -> bool:
        try:
            compose.backend.fleet()
        except BackendError:
            return True
        return False

    assert wait_until(is_told, 20)
    assert compose.backend.fleet() == Fleet(2, 2, 0)


def test_without_compose_it_says_so() -> None:
    """A command that does not exist is an error of this look, not an end."""
    backend = ComposeService("worker", ["/nowhere/docker", "compose"])
    with pytest.raises(BackendError):
        backend.fleet()
    with pytest.raises(BackendError):
        backend.scale(1)


def _looks(backend: DryRun, *looks: tuple[int, float | None, dict[str, float | None]]) -> None:
    """Let it be told of decisions: the size wanted, the trigger's value, and the service's own numbers."""
    for wanted, value, details in looks:
        reading = Reading({"s0": value}, details=details)
        backend.tell(Look(backend.fleet(), reading, Decision(State(created=0), wanted, "ScalerNotActive")))
        backend.scale(wanted)


def test_a_dry_run_only_says(capsys: pytest.CaptureFixture[str]) -> None:
    """It imagines the size asked for, and says each time something else: what would be done, why, and on what."""
    backend = DryRun(1)
    _looks(backend, (1, 8, {"work": 8}), (1, 8, {"work": 8}), (3, 24, {"work": 20.5}), (3, None, {}))
    assert backend.fleet() == Fleet(3, 3)
    assert capsys.readouterr().out.splitlines() == [
        "would keep 1 worker: ScalerNotActive, work 8",
        "would scale from 1 to 3 workers: ScalerNotActive, work 20.5",
        "would keep 3 workers: ScalerNotActive, s0 unknown",
    ]
    assert backend.stop()
