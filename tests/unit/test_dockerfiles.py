"""The Dockerfiles: linted, pinned, non-root, and with everything their process imports."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from dspy_jobs import __version__
from tests.conftest import ROOT
from tests.dockerfile import Stage, lineage, read_dockerfile

FILES = ("Dockerfile.api", "Dockerfile.worker")
#: Each image by the stage it is built from.
IMAGES = {"api": "Dockerfile.api", "sandbox": "Dockerfile.api", "worker": "Dockerfile.worker"}
OURS = {"dspy_jobs", "api", "worker", "autoscaler", "sandbox"}
#: What must never be in the image that only takes and hands out jobs.
HEAVY = {"dspy", "litellm", "celery", "kombu", "flower", "numpy"}


def _stages(image: str) -> list[Stage]:
    return lineage(read_dockerfile(ROOT / IMAGES[image])[1], image)


def _pinned(name: str) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9._-]+)(?:\[[a-z,]+\])?==(\S+)", (ROOT / name).read_text(), re.MULTILINE))


@pytest.mark.parametrize("name", FILES)
def test_the_linter_has_nothing_to_say(name: str) -> None:
    """Hadolint, with its shell rules, finds nothing, not even of the mildest kind."""
    linter = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([linter, "--no-color", ROOT / name], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("name", FILES)
def test_the_base_can_be_pinned(name: str) -> None:
    """Every stage begins with the same Python of ours or another stage; a build argument pins it by its digest."""
    arguments, stages = read_dockerfile(ROOT / name)
    assert arguments == {"PYTHON_TAG": "3.11-slim", "PYTHON_DIGEST": ""}
    bases = {stage.base for stage in stages.values()} - stages.keys()
    assert bases == {"python:${PYTHON_TAG}${PYTHON_DIGEST:+@${PYTHON_DIGEST}}"}


@pytest.mark.parametrize("image", IMAGES)
def test_the_process_is_nobody_and_number_one(image: str) -> None:
    """It runs as a user without a name, in exec form so that signals reach it, and tells its health."""
    stages = _stages(image)
    assert [user for stage in stages for user in stage.all("USER")] == ["10001:10001"]
    assert stages[-1].command()[:2] == ["python", "-m"]
    (health,) = stages[-1].all("HEALTHCHECK")
    assert re.search(r' CMD \["python", "-[mc]"', health)


def test_the_last_stage_is_the_image() -> None:
    """Without naming a stage one builds the API and the worker."""
    for name, image in (("Dockerfile.api", "api"), ("Dockerfile.worker", "worker")):
        assert list(read_dockerfile(ROOT / name)[1])[-1] == image


@pytest.mark.parametrize("image", ["api", "worker"])
def test_the_labels_tell_version_and_revision(image: str) -> None:
    """Labels come from build arguments; the version's default is the code's."""
    stage = _stages(image)[-1]
    assert f"VERSION={__version__}" in stage.all("ARG")
    (labels,) = stage.all("LABEL")
    assert 'org.opencontainers.image.version="${VERSION}"' in labels
    assert 'org.opencontainers.image.revision="${REVISION}"' in labels
    words = [word for word, _ in stage.instructions]
    assert words.index("ARG") > max(i for i, word in enumerate(words) if word in ("COPY", "RUN", "ENV", "CMD"))


@pytest.mark.parametrize("image", IMAGES)
def test_the_image_holds_what_its_process_imports(image: str) -> None:
    """Every package of ours that its packages import is copied, is in the build's context, and nothing else is."""
    copied = {source for stage in _stages(image) for source, _ in stage.copied()}
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert copied <= kept
    assert all((ROOT / source).exists() for source in copied)
    packages = copied & OURS
    imported = {name for package in packages for path in (ROOT / package).rglob("*.py") for name in _imports(path)}
    assert imported & OURS <= packages
    assert _stages(image)[-1].command()[2] in packages


@pytest.mark.parametrize("image", IMAGES)
def test_the_process_may_read_what_was_copied(image: str) -> None:
    """Files keep their modes when they are copied, and of a clone made with umask 077 only its owner may read them."""
    for stage in _stages(image):
        assert all(line.startswith(("--from", "--chmod=755 ")) for line in stage.all("COPY"))


def _imports(path: Path) -> set[str]:
    tree = ast.walk(ast.parse(path.read_text()))
    return {
        name.partition(".")[0]
        for node in tree
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom) and node.level == 0
            else []
        )
    }


@pytest.mark.parametrize("name", ["requirements-api.txt", "requirements-worker.txt"])
def test_images_have_the_versions_that_are_tested(name: str) -> None:
    """Each image's dependencies are a part of those that development and CI use, every one with its hashes."""
    pinned = _pinned(name)
    assert pinned
    assert pinned.items() <= _pinned("requirements.txt").items()
    assert (ROOT / name).read_text().count("==") == len(pinned)
    requirements = re.split(r"\n(?=\S)", (ROOT / name).read_text().strip())
    assert all("--hash=sha256:" in requirement for requirement in requirements)


def test_the_api_has_nothing_heavy() -> None:
    """No dspy, litellm or Celery in the API's image, and no development tools in either."""
    assert not HEAVY & _pinned("requirements-api.txt").keys()
    assert (
        not {"pytest", "mypy", "ruff"} & (_pinned("requirements-api.txt") | _pinned("requirements-worker.txt")).keys()
    )


@pytest.mark.parametrize("name", [*FILES, "docker-compose.yml", "quickstart.sh", "requirements-api.txt"])
def test_no_registry_is_named(name: str) -> None:
    """Nothing says where packages and images come from: that is for whoever builds to decide."""
    text = (ROOT / name).read_text()
    assert not re.search(r"--(extra-)?index|find-links|[a-z0-9-]+\.(io|org|com)/[a-z]", text.replace("github.com", ""))


@pytest.mark.parametrize(
    ("name", "extras"),
    [
        ("requirements.txt", None),
        ("requirements-api.txt", {"api"}),
        ("requirements-worker.txt", {"worker", "autoscaler"}),
    ],
)
def test_what_is_pinned_is_what_is_wanted(name: str, extras: set[str] | None) -> None:
    """`make lock` was run after the dependencies were changed: each wanted one is pinned to a version it allows."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(line for extra in extras or optional for line in optional[extra])]
    pinned = _pinned(name)
    for requirement in map(Requirement, wanted):
        assert canonicalize_name(requirement.name) in pinned, requirement
        assert pinned[canonicalize_name(requirement.name)] in requirement.specifier, requirement
