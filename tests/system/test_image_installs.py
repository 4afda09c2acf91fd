"""What the Dockerfiles do, done without an engine: their install steps and their processes, in a clean environment."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from dspy_jobs.stack.ports import free_port
from dspy_jobs.waiting import wait_until
from tests.conftest import ROOT
from tests.dockerfile import lineage, read_dockerfile

# An install from an empty environment takes a minute, more on a busy machine.
pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(900)]

CONFIG = '[models.sandbox]\nmodel = "openai/sandbox"\n[programs.qa]\nsignature = "question -> answer"\n'


class Image:
    """A folder that holds what an image would: a virtual environment and `/app`."""

    def __init__(self, dockerfile: Path, folder: Path) -> None:
        self.stages = read_dockerfile(dockerfile)[1]
        self.folder, self.app = folder, folder / "app"
        self.app.mkdir()

    def install(self) -> None:
        """Run the steps of the stage with the dependencies, in the folder's own place of `/opt/venv`."""
        stage = self.stages["dependencies"]
        build = self.folder / "build"
        build.mkdir()
        for source, _ in stage.copied():
            shutil.copy(ROOT / source, build)
        for step in stage.all("RUN"):
            command = step.replace("/opt/venv", str(self.folder / "venv")).replace(
                "python -m venv", f"{sys.executable} -m venv"
            )
            subprocess.run(command, shell=True, check=True, cwd=build, env=self.environ(), timeout=800)

    def copy_code(self, stage: str) -> None:
        """What the stage and those before it copy."""
        for source, target in (pair for part in lineage(self.stages, stage) for pair in part.copied()):
            whole = shutil.ignore_patterns("__pycache__")
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, self.app / target, ignore=whole, dirs_exist_ok=True)

    def environ(self, **more: str) -> dict[str, str]:
        """What a process gets: pip's own settings of this machine, and nothing else of ours."""
        inherited = {
            name: value for name, value in os.environ.items() if name.startswith(("PIP_", "HTTP", "SSL", "http"))
        }
        path = f"{self.folder / 'venv' / 'bin'}:{os.defpath}"
        # A home that cannot be written to, as on a read-only file system.
        return {**inherited, "PATH": path, "HOME": "/proc", "PYTHONDONTWRITEBYTECODE": "1", **more}

    def run(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run the environment's Python in `/app`, to its end."""
        return subprocess.run(
            [str(self.folder / "venv" / "bin" / "python"), *arguments],
            cwd=self.app, env=self.environ(**environ), capture_output=True, text=True, timeout=120,
        )  # fmt: skip

    @contextmanager
    def running(self, words: list[str], **environ: str) -> Iterator[subprocess.Popen[bytes]]:
        """The image's process, ended with the block as an engine ends it."""
        python = str(self.folder / "venv" / "bin" / "python")
        process = subprocess.Popen([python, *words[1:]], cwd=self.app, env=self.environ(**environ))
        try:
            yield process
        finally:
            process.terminate()
            assert process.wait(60) == 0


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def test_the_api_runs_in_what_its_image_installs(tmp_path: Path, redis_url: str) -> None:
    """The API and the sandbox start from the pinned dependencies and answer their health checks; no dspy is there."""
    image = Image(ROOT / "Dockerfile.api", tmp_path)
    image.install()
    image.copy_code("api")
    absent = image.run(
        "-c", "import importlib.util as u; print([n for n in ('dspy', 'celery', 'pip') if u.find_spec(n)])"
    )
    assert absent.stdout.strip() == "[]", absent.stderr
    config = tmp_path / "dspy-jobs.toml"
    config.write_text(CONFIG)
    port = free_port()
    environ = {"DSPY_JOBS_CONFIG": str(config), "REDIS_URL": redis_url, "DSPY_JOBS_API_PORT": str(port)}
    with image.running(image.stages["api"].command(), **environ):
        assert wait_until(lambda: _answers(f"http://127.0.0.1:{port}/health/live"), 30)
    image.copy_code("sandbox")
    words = [str(port) if word == "8090" else word for word in image.stages["sandbox"].command()]
    with image.running(words):
        assert wait_until(lambda: _answers(f"http://127.0.0.1:{port}/health"), 30)


def test_the_worker_runs_in_what_its_image_installs(tmp_path: Path, redis_url: str) -> None:
    """The worker describes itself, starts, is ready for its own probe, and ends when told; so do its other commands."""
    image = Image(ROOT / "Dockerfile.worker", tmp_path)
    image.install()
    image.copy_code("worker")
    config = tmp_path / "dspy-jobs.toml"
    config.write_text(CONFIG)
    heartbeat = str(tmp_path / "heartbeat")
    environ = {"DSPY_JOBS_CONFIG": str(config), "REDIS_URL": redis_url}
    described = image.run("-m", "worker.describe", **environ)
    assert described.returncode == 0, described.stderr
    for words in (("-m", "celery", "flower", "--help"), ("-m", "autoscaler", "run", "--help")):
        done = image.run(*words, **environ)
        assert done.returncode == 0, done.stderr
    with image.running(image.stages["worker"].command(), DSPY_JOBS_WORKER_HEARTBEAT_FILE=heartbeat, **environ):
        assert wait_until(lambda: image.run("-m", "worker.probe", heartbeat, "--ready").returncode == 0, 60)
