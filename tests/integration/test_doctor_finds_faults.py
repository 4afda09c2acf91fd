"""`dspy-jobs doctor` against a real Redis and API, into which faults are put one by one."""

from __future__ import annotations

import json
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from dspy_jobs import names
from dspy_jobs.cli import app
from dspy_jobs.doctor import survey
from dspy_jobs.states import WaitReason
from dspy_jobs.store import SyncStore, connect
from dspy_jobs.store.gates import close_gate
from dspy_jobs.store.workers import renew_worker
from dspy_jobs.waiting import wait_until
from tests.integration.conftest import running_api
from tests.integration.test_api_process import describe
from tests.system.own_redis import OwnRedis

CONFIG = """[models.sandbox]
model = "openai/sandbox"
[models.paid]
model = "openai/gpt-4.1-mini"
api_key_env = "DOCTORS_KEY"
[programs.qa]
signature = "question -> answer"
"""
#: Nobody listens there.
NOWHERE = "http://127.0.0.1:1"


class Patient:
    """An installation: a Redis of its own, an API, a configuration."""

    def __init__(self, own_redis: OwnRedis, api: httpx.Client, store: SyncStore) -> None:
        self.redis, self.api, self.store = own_redis, api, store

    def diagnosis(self, *options: str) -> tuple[int, dict[str, dict[str, Any]]]:
        """Exit code and the findings that are not ok or skipped, by check."""
        line = ["--url", str(self.api.base_url), "doctor", "--json", "--prometheus", NOWHERE, *options]
        result = CliRunner().invoke(app, line, catch_exceptions=False)
        found = json.loads(result.stdout)["findings"]
        return result.exit_code, {f["check"]: f for f in found if f["verdict"] in ("warn", "fail")}


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Patient, Path]]:
    """A service in which all is well, and its configuration. Whoever breaks something mends it."""
    source = tmp_path_factory.mktemp("doctor") / "dspy-jobs.toml"
    source.write_text(CONFIG)
    with tempfile.TemporaryDirectory(prefix="dj-") as folder:
        own_redis = OwnRedis(Path(folder))
        with connect(own_redis.url) as client, running_api(own_redis.url, DSPY_JOBS_CONFIG=str(source)) as api:
            yield Patient(own_redis, api, SyncStore(client)), source
        own_redis.end()


@pytest.fixture
def patient(installation: tuple[Patient, Path], monkeypatch: pytest.MonkeyPatch) -> Patient:
    """An installation in which all is well; dspy is played not to be there, which saves its import."""
    patient, source = installation
    environ = {"DSPY_JOBS_CONFIG": str(source), "REDIS_URL": patient.redis.url, "DOCTORS_KEY": "hunter2"}
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(survey, "find_spec", lambda _: None)
    describe(patient.store.redis)
    patient.store.run(renew_worker("w1", 60, b'{"concurrency": 4, "host": "here"}', ["dspy.sandbox"]))
    assert wait_until(lambda: patient.api.get("/ready").status_code == 200, 20)
    return patient


def test_each_fault_is_found_and_told_with_its_mending(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    """All is well; then one fault after the other is put in, found and taken out again."""
    assert patient.diagnosis() == (0, {})

    patient.store.redis.config_set("maxmemory-policy", "allkeys-lru")
    code, found = patient.diagnosis()
    assert (code, found["Redis"]["verdict"]) == (1, "fail")
    assert "config set maxmemory-policy noeviction" in found["Redis"]["remedy"]
    patient.store.redis.config_set("maxmemory-policy", "noeviction")

    patient.store.redis.config_set("maxmemory", "1mb")
    found = patient.diagnosis()[1]
    assert "is full" in found["Redis"]["detail"]
    assert "is full" in found["API ready"]["remedy"]
    patient.store.redis.config_set("maxmemory", "0")

    patient.store.redis.config_set("appendonly", "no")
    code, found = patient.diagnosis()
    assert (code, found["Redis persistence"]["verdict"]) == (0, "warn")
    patient.store.redis.config_set("appendonly", "yes")

    patient.store.run(close_gate("dspy.sandbox", WaitReason.PAUSED))
    code, found = patient.diagnosis()
    assert (code, found.keys()) == (0, {"queues"})
    assert "dspy-jobs queue resume dspy.sandbox" in found["queues"]["detail"]
    patient.api.post("/v1/queues/dspy.sandbox/resume")

    monkeypatch.delenv("DOCTORS_KEY")
    code, found = patient.diagnosis()
    assert (code, found["model paid"]["verdict"]) == (0, "warn")
    assert "DOCTORS_KEY" in found["model paid"]["remedy"]
    monkeypatch.setenv("DOCTORS_KEY", "hunter2")

    monkeypatch.setenv("DSPY_JOBS_JOBS_MAX_ATTEMPTS", "9")
    assert "jobs.max_attempts" in patient.diagnosis()[1]["API configuration"]["detail"]
    monkeypatch.delenv("DSPY_JOBS_JOBS_MAX_ATTEMPTS")

    patient.store.redis.delete(names.PROGRAMS)
    assert wait_until(lambda: patient.api.get("/ready").status_code == 503, 20)
    code, found = patient.diagnosis()
    assert (code, {"API ready", "programs"} <= found.keys()) == (1, True)


def test_jobs_without_a_worker_are_found(patient: Patient) -> None:
    """Once one has waited longer than a worker takes to start, it fails with how to start one."""
    patient.store.redis.zrem(names.WORKERS, "w1")
    patient.store.redis.delete(names.queue_workers("dspy.sandbox"))
    assert patient.diagnosis() == (0, {})
    job = patient.api.post("/v1/jobs", json={"program": "qa", "inputs": {"question": "?"}, "model": "sandbox"}).json()
    waiting = names.queue_waiting("dspy.sandbox", 3)
    assert wait_until(lambda: patient.store.redis.zcard(waiting) == 1, 10)
    patient.store.redis.zincrby(waiting, -3_600_000, patient.store.redis.zrange(waiting, 0, 0)[0])
    code, found = patient.diagnosis()
    assert (code, found["workers"]["verdict"]) == (1, "fail")
    assert "dspy-jobs up" in found["workers"]["remedy"]
    assert patient.api.post(f"/v1/jobs/{job['id']}/cancel").status_code == 200


def test_a_redis_that_hangs_or_is_gone_is_found(patient: Patient) -> None:
    """Told from each other, in a few findings: what depends on Redis is not looked at."""
    patient.redis.signal(signal.SIGSTOP)
    code, found = patient.diagnosis()
    patient.redis.signal(signal.SIGCONT)
    assert (code, found.keys()) == (1, {"Redis", "API ready"})
    assert "too long" in found["Redis"]["detail"]
    patient.redis.end()
    code, found = patient.diagnosis()
    patient.redis.start()
    assert (code, found["Redis"]["detail"]) == (1, "cannot be reached")


def test_people_get_lines(patient: Patient) -> None:
    """For people: a sign and a line for each finding, no key, and the sum at the end."""
    line = ["--url", str(patient.api.base_url), "doctor", "--prometheus", NOWHERE]
    result = CliRunner().invoke(app, line, catch_exceptions=False)
    assert result.exit_code == 0
    assert "✓ Redis " in result.stdout
    assert "hunter2" not in result.stdout
    assert result.stdout.splitlines()[-1].endswith("not looked at")
