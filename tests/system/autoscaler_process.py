"""Runs `python -m autoscaler run` with the process backend, and tells what became of its workers."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import Any

import orjson

from dspy_jobs.pid_files import worker_pids
from dspy_jobs.waiting import wait_until
from tests.system.fleet import Fleet

#: Seconds any step may take on a busy machine.
BOUND = 90.0

#: Short times; `$target` is the load a worker carries and `$max` the most workers.
SCALED_OBJECT = """
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata: {name: dspy-worker}
spec:
  scaleTargetRef: {name: dspy-worker}
  pollingInterval: 1
  cooldownPeriod: 2
  minReplicaCount: 0
  maxReplicaCount: $max
  advanced:
    horizontalPodAutoscalerConfig:
      behavior:
        scaleUp: {stabilizationWindowSeconds: 0, policies: [{type: Pods, value: 4, periodSeconds: 1}]}
        scaleDown: {stabilizationWindowSeconds: 1, tolerance: "0", policies: [{type: Pods, value: 2, periodSeconds: 1}]}
  triggers:
    - type: metrics-api
      metadata: {url: "http://api:8080/v1/autoscale", valueLocation: work, targetValue: "$target"}
"""


class AutoscalerProcess:
    """One autoscaler over a fleet's Redis and configuration."""

    def __init__(self, fleet: Fleet, target: int, most: int) -> None:
        folder = fleet.settings.source.parent  # type: ignore[union-attr]
        self._fleet = fleet
        self._pids = worker_pids(fleet.settings.data_dir)
        self._log = folder / "autoscaler.log"
        self._file = folder / "scaledobject.yaml"
        self._file.write_text(SCALED_OBJECT.replace("$target", str(target)).replace("$max", str(most)))
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str, **environ: str) -> subprocess.Popen[bytes]:
        """Start it."""
        command = [sys.executable, "-m", "autoscaler", "run", "--backend=process", f"--scaled-object={self._file}"]
        own = {"DSPY_JOBS_LOG_FORMAT": "json", **environ}
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, *options], env={**self._fleet.environ, **own}, stdout=log, stderr=log, cwd=self._log.parent
            )
        return self.process

    def once(self) -> int:
        """Let it decide and act once; its exit code."""
        return self.start("--once").wait(BOUND)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Tell it to stop and wait; its exit code."""
        assert self.process
        self.process.send_signal(number)
        return self.process.wait(BOUND)

    def end(self) -> None:
        """Kill it and every worker it left."""
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait(BOUND)
        for mark in self._pids.read().values():
            mark.send(signal.SIGKILL)

    def events(self, name: str) -> list[dict[str, Any]]:
        """The events of that name so far, of it and of its workers."""
        lines = self.log().splitlines()
        return [event for line in lines if line.startswith("{") and (event := orjson.loads(line))["event"] == name]

    def wait_for(self, name: str, times: int = 1) -> list[dict[str, Any]]:
        """The events of that name, once there are so many."""
        assert wait_until(lambda: len(self.events(name)) >= times, BOUND), self.log()
        return self.events(name)

    def workers(self) -> dict[str, int]:
        """The process numbers of the workers that run, by name."""
        return {name: mark.pid for name, mark in self._pids.read().items()}

    def log(self) -> str:
        """What it and its workers said."""
        return self._log.read_text() if self._log.exists() else ""
