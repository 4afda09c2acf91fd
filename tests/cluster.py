"""The Kubernetes objects in k8s/ and the example overlay, as files and as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.conftest import ROOT

BASE = ROOT / "k8s"
OVERLAY = ROOT / "examples" / "kubernetes"
BEHIND_INGRESS = OVERLAY / "flower"
NAMESPACE = "dspy-jobs"

#: Lists of what to apply, and changes to it, are no objects of a cluster.
_NO_OBJECTS = ("kustomization.yaml", ".patch.yaml")


def files() -> list[Path]:
    """Every file that holds an object."""
    found = [path for folder in (BASE, BASE / "monitoring", OVERLAY, BEHIND_INGRESS) for path in folder.glob("*.yaml")]
    return sorted(path for path in found if not path.name.endswith(_NO_OBJECTS))


def load(path: Path) -> dict[str, Any]:
    """The one object of a file."""
    loaded = yaml.safe_load(path.read_text())
    assert isinstance(loaded, dict), path
    return loaded


def objects(kind: str | None = None) -> list[dict[str, Any]]:
    """All objects, or those of a kind."""
    return [found for found in map(load, files()) if kind in (None, found["kind"])]


def named(kind: str, name: str) -> dict[str, Any]:
    """The object of that kind and name."""
    return next(found for found in objects(kind) if found["metadata"]["name"] == name)


def workloads() -> list[dict[str, Any]]:
    """Everything that makes pods."""
    return [found for found in objects() if "template" in found.get("spec", {})]


def pod(workload: dict[str, Any]) -> dict[str, Any]:
    """A workload's pod, as it is specified."""
    specified: dict[str, Any] = workload["spec"]["template"]["spec"]
    return specified


def container(workload: dict[str, Any]) -> dict[str, Any]:
    """A workload's only container."""
    (only,) = pod(workload)["containers"]
    assert isinstance(only, dict)
    return only


def labels_of_pods(workload: dict[str, Any]) -> dict[str, str]:
    """What selectors find a workload's pods by."""
    labels: dict[str, str] = workload["spec"]["template"]["metadata"]["labels"]
    return labels


def references(value: Any, key: str) -> Iterator[Any]:
    """Everything that stands under a key, at any depth."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if name == key:
                yield inner
            yield from references(inner, key)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner, key)


_UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "mb": 2**20, "gb": 2**30}


def bytes_of(quantity: str) -> int:
    """What an amount of memory comes to, in Kubernetes' spelling (`256Mi`) or Redis's (`256mb`)."""
    return int(quantity[:-2]) * _UNITS[quantity[-2:]]
