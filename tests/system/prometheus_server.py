"""A real Prometheus with the shipped configuration, scraping what a test runs."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

from dspy_jobs.stack.ports import free_port
from dspy_jobs.waiting import wait_until
from tests.conftest import ROOT


class PrometheusServer:
    """What a running Prometheus knows."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=30, trust_env=False)

    def is_ready(self) -> bool:
        """Whether it answers queries."""
        try:
            return self._client.get("/-/ready").status_code == 200
        except httpx.TransportError:
            return False

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series an expression gives now."""
        result: list[dict[str, Any]] = self._get("/api/v1/query", query=expression)["result"]
        return result

    def names(self) -> set[str]:
        """Names of all metrics it has scraped."""
        return set(self._get("/api/v1/label/__name__/values"))

    def targets(self) -> dict[str, str]:
        """The health of each job's target."""
        return {t["labels"]["job"]: t["health"] for t in self._get("/api/v1/targets")["activeTargets"]}

    def alerts(self) -> list[str]:
        """The alerts of the rules it has loaded."""
        return [rule["name"] for group in self._get("/api/v1/rules")["groups"] for rule in group["rules"]]

    def close(self) -> None:
        """Ask nothing more."""
        self._client.close()

    def _get(self, path: str, **params: str) -> Any:
        answer = self._client.get(path, params=params)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]


@contextmanager
def running_prometheus(folder: Path, targets: Mapping[str, list[str]]) -> Iterator[PrometheusServer]:
    """Prometheus as ops/prometheus.yml sets it up, with these addresses for its jobs, and faster."""
    config = yaml.safe_load((ROOT / "ops" / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(ROOT / "ops" / "prometheus-rules.yml")]
    for job in config["scrape_configs"]:
        job["static_configs"] = [{"targets": targets[job["job_name"]]}]
    path, port = folder / "prometheus.yml", free_port()
    path.write_text(yaml.safe_dump(config))
    command = [
        "prometheus", f"--config.file={path}", f"--storage.tsdb.path={folder / 'prometheus'}",
        f"--web.listen-address=127.0.0.1:{port}", "--log.level=error",
    ]  # fmt: skip
    process = subprocess.Popen(command)
    server = PrometheusServer(f"http://127.0.0.1:{port}")
    try:
        assert wait_until(server.is_ready, 60, every=0.1)
        yield server
    finally:
        server.close()
        process.terminate()
        process.wait(30)
