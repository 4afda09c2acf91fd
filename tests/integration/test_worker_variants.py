"""A program in two variants, from the API to the worker: each arm runs its own version, model and parameters."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import httpx
import orjson
import pytest

from dspy_jobs import names
from dspy_jobs.retries import NOT_HERE_ATTEMPTS
from dspy_jobs.settings import Settings
from dspy_jobs.store import SyncStore
from tests.integration.conftest import StartApi
from tests.integration.test_worker_attempts import Bench
from tests.programs import candid
from worker.process import publish_programs

CONFIG = """
[models.other]
model = "openai/sandbox;latency=0.001"
base_url = "BASE"

[programs.candid]
factory = "tests.programs:candid"
version = "v1"
VERSIONS
[programs.candid.variants.a]
[programs.candid.variants.b]
model = "other"
version = "v2"
parameters = {temperature = 0.5}
"""


@pytest.fixture
def settings(write_config: Callable[..., Settings], sandbox_url: str, tmp_path: Path) -> Settings:
    """A configuration with two compiled versions of a program that tells its instructions."""
    versions = ""
    for name in ("v1", "v2"):
        module = candid()
        predictor = module.predictors()[0]
        predictor.signature = predictor.signature.with_instructions(f"Do as {name} does.")
        module.save(tmp_path / f"{name}.json")
        sha256 = hashlib.sha256((tmp_path / f"{name}.json").read_bytes()).hexdigest()
        versions += f'[programs.candid.versions.{name}]\nstate = "{name}.json"\nstate_sha256 = "{sha256}"\n'
    return write_config(CONFIG.replace("BASE", f"{sandbox_url}/v1").replace("VERSIONS", versions))


@pytest.fixture
def bench(settings: Settings, store: SyncStore) -> Bench:
    """A worker with it."""
    return Bench(settings, store)


@pytest.fixture
def api(bench: Bench, start_api: StartApi) -> httpx.Client:
    """A service that knows what the worker runs."""
    client = start_api(DSPY_JOBS_CONFIG=str(bench.settings.source))
    publish_programs(bench.store.redis, bench.chunks.runner.programs)
    return client


def test_a_split_batch_runs_each_arm_as_configured(api: httpx.Client, bench: Bench, store: SyncStore) -> None:
    """Version, model and parameters are the arm's, in the run and in what is on record of it."""
    items = [{"inputs": {"text": f"t{number}"}, "custom_id": f"u{number}"} for number in range(20)]
    batch = api.post("/v1/batches", json={"program": "candid", "items": items}).json()
    bench.chunks.run([raw.decode() for raw in store.redis.lrange(names.batch_jobs(batch["id"]), 0, -1)])
    lines = api.get(f"/v1/batches/{batch['id']}/results").text.splitlines()
    described = api.get("/v1/programs/candid").json()["variants"]
    seen = set()
    for job in map(orjson.loads, lines):
        assert job["status"] == "succeeded", job
        arm, model = {"a": ("v1", "sandbox"), "b": ("v2", "other")}[job["variant"]]
        assert job["output"]["answer"] == f"Do as {arm} does."
        assert (job["model"], job["attempts"][0]["model"]) == (model, model)
        assert job["program_version"] == described[job["variant"]]["version"]
        seen.add(job["variant"])
    assert (len(lines), seen) == (20, {"a", "b"})


def test_one_arm_is_never_given_the_others_answer(api: httpx.Client, bench: Bench) -> None:
    """The same inputs on the same model, asked of both arms: one run each, then each from the cache."""
    found = []
    for variant in ("a", "b", "a", "b"):
        body = {"program": "candid", "inputs": {"text": "same"}, "variant": variant, "model": "sandbox"}
        job = api.post("/v1/jobs", json=body).json()
        bench.chunks.run([job["id"]])
        job = api.get(f"/v1/jobs/{job['id']}").json()
        found.append((job["cache"], job["output"]["answer"]))
    assert found == [
        ("miss", "Do as v1 does."), ("miss", "Do as v2 does."), ("hit", "Do as v1 does."), ("hit", "Do as v2 does."),
    ]  # fmt: skip


def test_a_variants_parameters_lie_between_the_models_and_the_jobs(bench: Bench) -> None:
    """What the arm sets goes to the model, unless the job itself says otherwise."""
    arm = bench.chunks.runner.programs["candid"].arms["b"]
    assert bench.chunks.runner.models.get("other", arm.parameters).kwargs["temperature"] == 0.5


def test_a_variant_this_worker_does_not_know_fails_as_data_in_the_end(bench: Bench) -> None:
    """As after a change of the configuration with jobs in the queue; another worker may know it, so it is retried."""
    job_id = bench.submit("candid", inputs={"text": "t"})
    bench.store.redis.hset(names.job(job_id), mapping={"variant": "gone", "limited": NOT_HERE_ATTEMPTS})
    bench.chunks.run([job_id])
    job = bench.read(job_id)
    assert job.outcome is not None
    assert (job.status, job.outcome["problem"]["code"]) == ("failed", "unknown_variant")
