"""`python -m autoscaler run` as a process: what it refuses, and one dry run over a real Redis."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from dspy_jobs import names
from dspy_jobs.settings import Settings
from dspy_jobs.stack.ports import free_port
from dspy_jobs.store import SyncStore
from dspy_jobs.waiting import wait_until
from tests.conftest import ROOT

SCALED_OBJECT = """
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata: {name: dspy-worker}
spec:
  scaleTargetRef: {name: worker}
  pollingInterval: 1
  maxReplicaCount: 4
  triggers:
    - type: metrics-api
      metadata: {url: "http://api:8080/v1/autoscale", valueLocation: work, targetValue: "2"}
"""

Command = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def command(write_config: Callable[..., Settings], child_environ: dict[str, str], tmp_path: Path) -> Command:
    """Starts `python -m autoscaler run` with a configuration and a ScaledObject beside it."""
    settings = write_config('[autoscaler]\nscaled_object = "scaledobject.yaml"\n')
    (tmp_path / "scaledobject.yaml").write_text(SCALED_OBJECT)
    environ = {**child_environ, "DSPY_JOBS_CONFIG": str(settings.source), "DSPY_JOBS_LOG_FORMAT": "json"}

    def start(*options: str, **more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "autoscaler", "run", *options],
            env={**environ, **more},
            cwd=ROOT,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    return start


def outcome(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit code and both outputs, once it has ended."""
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def test_a_dry_run_says_what_it_would_do(command: Command, store: SyncStore) -> None:
    """One look at an idle service changes nothing, says so in a line and exits 0; no option is needed."""
    code, out, err = outcome(command("--backend", "dry-run", "--once"))
    assert (code, err) == (0, "")
    assert "would keep 0 workers: ScalerNotActive, work 0\n" in out
    code, out, err = outcome(command("--backend", "dry-run", "--once", "--min", "2"))
    assert (code, err) == (0, "")
    assert "would scale from 0 to 2 workers: TooFewReplicas, work 0\n" in out
    assert store.redis.get(names.autoscaler_lease("dspy-worker")) is None


def test_a_metric_that_cannot_be_read_is_told(command: Command) -> None:
    """A single run that could not read its metric exits 1, and would scale nothing."""
    code, out, _ = outcome(command("--backend", "dry-run", "--once", "--url", "http://127.0.0.1:1/v1/autoscale"))
    assert code == 1
    assert "metric_failed" in out
    assert "would keep 0 workers: TriggerError, s0 unknown\n" in out


def test_a_dry_run_leaves_the_one_that_scales_alone(command: Command, store: SyncStore) -> None:
    """It neither needs the lease nor takes it."""
    store.redis.set(names.autoscaler_lease("dspy-worker"), "another's", px=60_000)
    code, out, _ = outcome(command("--backend", "dry-run", "--once"))
    assert code == 0
    assert "would keep 0 workers" in out
    assert store.redis.get(names.autoscaler_lease("dspy-worker")) == b"another's"


def test_a_second_instance_waits(command: Command, store: SyncStore) -> None:
    """While another leads nothing is done, and who that is is told."""
    store.redis.set(names.autoscaler_lease("dspy-worker"), "elsewhere host/7/abc", px=60_000)
    code, out, err = outcome(command("--backend", "compose", "--compose-command", "/nowhere", "--once"))
    assert code == 1
    assert "another one leads (host process 7)" in err
    assert [event["leader"] for line in out.splitlines() if (event := _event(line)).get("event") == "standing_by"] == [
        "host process 7"
    ]


def test_a_model_that_the_fallback_does_not_count_is_told(command: Command, tmp_path: Path) -> None:
    """While the API is away only lists are counted that a trigger names, and that is no surprise then."""
    lists = (
        "    - {type: redis, metadata: {address: 'r:1', listName: 'dj:queue:dspy.gpt:waiting:3', listLength: '1'}}\n"
    )
    (tmp_path / "scaledobject.yaml").write_text(SCALED_OBJECT + lists)
    _, out, _ = outcome(command("--backend", "dry-run", "--once", "--no-direct"))
    assert [event["models"] for line in out.splitlines() if (event := _event(line)).get("models")] == [["sandbox"]]
    _, out, _ = outcome(command("--backend", "dry-run", "--once"))
    assert "models_without_trigger" not in out


@pytest.mark.parametrize("backend", ["dry-run", "process"])
def test_without_redis_it_says_so(command: Command, backend: str) -> None:
    """That is another thing than another leader, and has its own exit code."""
    code, out, err = outcome(command("--backend", backend, "--once", REDIS_URL="redis://127.0.0.1:1"))
    assert code == 3
    assert "would" not in out
    assert "metric_failed" not in out
    assert "Redis cannot be reached" in err
    assert "leads" not in err


def test_metrics_are_served(command: Command) -> None:
    """Prometheus finds KEDA's names and ours; SIGTERM ends the process with 0."""
    port = free_port()
    process = command("--backend", "dry-run", "--metrics-port", str(port))

    def served() -> str:
        try:
            return httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
        except httpx.TransportError:
            return ""

    try:
        assert wait_until(lambda: "keda_scaler_metrics_value{" in served(), 60)
        assert "dspy_autoscaler_leader 0.0" in served(), "it scales nothing"
    finally:
        process.terminate()
        code, _, _ = outcome(process)
    assert code == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("pollingInterval", "pollInterval"), "spec.pollInterval: unknown field"),
        (("metrics-api", "kafka"), "unknown trigger type 'kafka'"),
        (("valueLocation: work", 'valueLocation: "a|b"'), "valueLocation"),
        (("url: ", "format: xml, url: "), "is not read here"),
    ],
)
def test_mistakes_are_explained_at_the_start(
    command: Command, tmp_path: Path, change: tuple[str, str], words: str
) -> None:
    """Unknown fields, triggers and what cannot be read from here end the start with exit code 2."""
    text = SCALED_OBJECT.replace(*change)
    if "xml" in change[1]:
        text = text.replace("/v1/autoscale", "/elsewhere")
    (tmp_path / "scaledobject.yaml").write_text(text)
    code, _, err = outcome(command("--backend", "dry-run", "--once"))
    assert code == 2
    assert words in err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--scaled-object", "/nowhere.yaml"), "/nowhere.yaml: cannot be read"),
        (("--min", "9", "--max", "3"), "exceeds"),
        (("--backend", "kubernetes"), "this runs in a pod"),
    ],
)
def test_what_must_be_put_right_first(command: Command, options: tuple[str, ...], words: str) -> None:
    """Each ends with exit code 2 and a sentence, without a trace of Python."""
    code, _, err = outcome(command("--once", *options))
    assert code == 2
    assert words in err
    assert "Traceback" not in err


def _event(line: str) -> dict[str, Any]:
    return dict(orjson.loads(line)) if line.startswith("{") else {}
