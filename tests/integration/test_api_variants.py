"""A program that is split in variants, over HTTP: assignment, explicit choice, what jobs and batches then say."""

from __future__ import annotations

import json
import sys
from collections import Counter
from typing import Any

import httpx
import orjson
import pytest
from typer.testing import CliRunner

from api.variants import report
from dspy_jobs import Client, names
from dspy_jobs.cli import app
from dspy_jobs.descriptions import ProgramDescription, VariantDescription
from dspy_jobs.store import SyncStore
from tests.integration.conftest import StartApi
from tests.integration.played_worker import MODEL, PlayedWorker

OTHER = "sandbox-slow"
SCHEMA = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}


@pytest.fixture
def api(api: httpx.Client, store: SyncStore) -> httpx.Client:
    """A client of a service that also runs `split`: three parts of `a`, one of `b`, none of `off`."""
    variants = {
        "a": VariantDescription(weight=3, model=MODEL, version="va", version_name="v1"),
        "b": VariantDescription(weight=1, model=OTHER, version="vb", version_name="v2"),
        "off": VariantDescription(weight=0, model=MODEL, version="va", version_name="v1"),
    }
    description = ProgramDescription(
        name="split", version="va", model=MODEL, versions={"v1": "va", "v2": "vb"}, variants=variants,
        input_schema=SCHEMA, output_schema={"type": "object"},
    )  # fmt: skip
    store.redis.hset(names.PROGRAMS, "split", orjson.dumps(description.model_dump()))
    store.redis.publish(names.PROGRAMS_CHANNEL, "test")
    return api


def submit(api: httpx.Client, **more: Any) -> dict[str, Any]:
    """Submit a job of the program that is split."""
    answer = api.post("/v1/jobs", json={"program": "split", "inputs": {"text": "t"}, **more})
    assert answer.status_code == 202, answer.text
    return dict(answer.json())


def submit_batch(api: httpx.Client, items: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """Submit a batch of it."""
    whole = [{"inputs": {"text": "t"}, **item} for item in items]
    answer = api.post("/v1/batches", json={"program": "split", "items": whole, **more})
    assert answer.status_code == 202, answer.text
    return dict(answer.json())


def test_a_program_shows_its_variants(api: httpx.Client) -> None:
    """With weight, model and version of each."""
    shown = api.get("/v1/programs/split").json()
    assert shown["variants"]["b"] == {"weight": 1.0, "model": OTHER, "version": "vb", "version_name": "v2"}
    assert shown["versions"] == {"v1": "va", "v2": "vb"}


@pytest.mark.parametrize("stick", ["request_id", "custom_id"])
def test_a_job_sticks_to_its_variant_by_what_the_caller_gave(api: httpx.Client, stick: str) -> None:
    """The same id gets the same variant each time; many ids get both, each with its model and version."""
    seen = Counter[str]()
    for number in range(40):
        first, again = (submit(api, **{stick: f"u{number}"}) for _ in range(2))
        assert first["variant"] == again["variant"]
        assert (first["model"], first["program_version"]) == {"a": (MODEL, "va"), "b": (OTHER, "vb")}[first["variant"]]
        assert api.get(f"/v1/jobs/{first['id']}").json()["variant"] == first["variant"]
        seen[first["variant"]] += 1
    assert seen.keys() == {"a", "b"}
    assert seen["a"] > seen["b"]


def test_a_variant_can_be_chosen(api: httpx.Client) -> None:
    """Also one that gets nobody by itself; a model asked for goes before the variant's."""
    assert submit(api, variant="off")["variant"] == "off"
    job = submit(api, variant="b", model=MODEL)
    assert (job["variant"], job["model"], job["program_version"]) == ("b", MODEL, "vb")
    listed = api.get("/v1/jobs", params={"variant": "b"}).json()["data"]
    assert [found["id"] for found in listed] == [job["id"]]


@pytest.mark.parametrize("program", ["split", "qa"])
def test_an_unknown_variant_is_refused(api: httpx.Client, program: str) -> None:
    """Of a job, of a batch, of an item; also where the program is not split at all."""
    inputs = {"text": "t"} if program == "split" else {"question": "?"}
    job = {"program": program, "inputs": inputs, "variant": "c"}
    batch = {"program": program, "items": [{"inputs": inputs}], "variant": "c"}
    for path, body in (("/v1/jobs", job), ("/v1/predict", job), ("/v1/batches", batch)):
        refused = api.post(path, json=body)
        assert (refused.status_code, refused.json()["code"]) == (422, "unknown_variant")
        assert refused.json()["errors"][0]["param"] == "variant"
    items = [{"inputs": inputs}, {"inputs": inputs, "variant": "c", "custom_id": "x"}]
    refused = api.post("/v1/batches", json={"program": program, "items": items}).json()
    mistake = refused["errors"][0]
    assert (mistake["line"], mistake["custom_id"], mistake["param"], mistake["code"]) == (
        2, "x", "variant", "unknown_variant",
    )  # fmt: skip


def test_a_batch_is_split(api: httpx.Client, store: SyncStore, worker: PlayedWorker) -> None:
    """Items go where their ids send them, into several queues; results say which variant they are of."""
    items = [{"custom_id": f"u{number}"} for number in range(60)]
    batch = submit_batch(api, items, request_id="one for all")
    assert (batch["model"], batch["program_version"], batch["counts"]["total"]) == (MODEL, "va", 60)
    shown = {queue["model"]: queue["queued"] for queue in api.get("/v1/queues").json()["data"]}
    worker.succeed_all(worker.jobs_of(batch["id"]))
    results = api.get(f"/v1/batches/{batch['id']}/results", params={"order": "input"})
    jobs = [orjson.loads(line) for line in results.text.splitlines()]
    chosen = Counter((job["variant"], job["model"]) for job in jobs)
    assert chosen.keys() == {("a", MODEL), ("b", OTHER)}
    assert (shown[MODEL], shown[OTHER]) == (chosen["a", MODEL], chosen["b", OTHER])
    alone = submit(api, custom_id="u7")
    assert alone["variant"] == jobs[7]["variant"], "an item is the same item outside a batch"


def test_a_batch_can_choose_for_all_and_an_item_for_itself(api: httpx.Client, worker: PlayedWorker) -> None:
    """The item's own choice counts; what its arm runs is on record for it."""
    batch = submit_batch(api, [{}, {"variant": "a"}], variant="b")
    assert batch["program_version"] == "vb"
    shown = [api.get(f"/v1/jobs/{job_id}").json() for job_id in worker.jobs_of(batch["id"])]
    found = [(job["variant"], job["model"], job["program_version"]) for job in shown]
    assert found == [("b", OTHER, "vb"), ("a", MODEL, "va")]
    line = b'{"inputs": {"text": "t"}, "variant": "a"}\n'
    upload = {"content-type": "application/x-ndjson"}
    lines = api.post("/v1/batches?program=split&variant=b", content=line, headers=upload).json()
    assert api.get(f"/v1/jobs/{worker.jobs_of(lines['id'])[0]}").json()["variant"] == "a"


def test_jobs_of_a_client_stick_together(start_api: StartApi, api: httpx.Client, store: SyncStore) -> None:
    """Where a trusted proxy names clients, each client's jobs without ids of their own are of one variant."""
    client = start_api(DSPY_JOBS_API_CLIENT_HEADER="X-Client")
    job = {"program": "split", "inputs": {"text": "t"}}
    seen = {
        name: {client.post("/v1/jobs", json=job, headers={"x-client": name}).json()["variant"] for _ in range(4)}
        for name in (f"client-{number}" for number in range(12))
    }
    assert {len(variants) for variants in seen.values()} == {1}
    assert set.union(*seen.values()) == {"a", "b"}
    job_id = client.post("/v1/jobs", json=job, headers={"x-client": "acme"}).json()["id"]
    assert store.redis.hget(names.job(job_id), "client") == b"acme"
    refused = client.post("/v1/jobs", json=job, headers={"x-client": "a|b"})
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_parameter")


# ---- scores and comparison ---------------------------------------------------------------------------------------


def score(api: httpx.Client, job_id: str, name: str = "accuracy", value: Any = 0.9) -> httpx.Response:
    """Give a job a score."""
    return api.post(f"/v1/jobs/{job_id}/score", json={"name": name, "value": value})


def test_an_ended_job_can_be_scored(api: httpx.Client, worker: PlayedWorker) -> None:
    """Answered with what is kept; the same name again replaces it, and the job shows every name's."""
    job = submit(api, variant="b")
    assert "scores" not in job
    worker.succeed(job["id"])
    kept = {"object": "score", "job_id": job["id"], "program": "split", "variant": "b", "name": "accuracy"}
    for value in (0.5, -1e15, 7):
        answer = score(api, job["id"], value=value)
        assert (answer.status_code, answer.json()) == (200, {**kept, "value": value})
    assert score(api, job["id"], "style", 0.1).status_code == 200
    assert api.get(f"/v1/jobs/{job['id']}").json()["scores"] == {"accuracy": 7.0, "style": 0.1}


def test_a_job_without_a_variant_can_be_scored_too(api: httpx.Client, worker: PlayedWorker) -> None:
    """Its program may be split later."""
    job = api.post("/v1/jobs", json={"program": "qa", "inputs": {"question": "?"}}).json()
    worker.fail(job["id"])
    assert score(api, job["id"]).json()["variant"] is None
    assert api.get("/v1/programs/qa/variants").json() == {"data": []}


def test_what_cannot_be_scored_is_refused(api: httpx.Client, worker: PlayedWorker) -> None:
    """Unfinished, unknown and erased jobs, and what is no score."""
    job = submit(api)
    assert (score(api, job["id"]).status_code, score(api, job["id"]).json()["code"]) == (409, "conflict")
    assert score(api, "job_" + "0" * 26).status_code == 404
    worker.succeed(job["id"])
    for wrong in (
        {"name": "a", "value": "1"}, {"name": "a", "value": True}, {"name": "a", "value": None}, {"name": "a"},
        {"name": "", "value": 1}, {"name": "a b", "value": 1}, {"name": "x" * 65, "value": 1},
        {"name": "a", "value": 1, "more": 1},
    ):  # fmt: skip
        refused = api.post(f"/v1/jobs/{job['id']}/score", json=wrong)
        assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request_body"), wrong
    infinite = api.post(f"/v1/jobs/{job['id']}/score", content=b'{"name": "a", "value": 1e999}')
    assert infinite.status_code in (400, 422)
    for far in (1.1e15, -1.7e308):
        refused = score(api, job["id"], value=far)
        assert (refused.status_code, refused.json()["errors"][0]["param"]) == (422, "value")
        assert refused.json()["errors"][0]["detail"].endswith("1000000000000000")
    assert "scores" not in api.get(f"/v1/jobs/{job['id']}").json()
    api.delete(f"/v1/jobs/{job['id']}")
    assert score(api, job["id"]).status_code == 410


def test_variants_are_compared(api: httpx.Client, worker: PlayedWorker) -> None:
    """Each with what became of its jobs; what nothing is known of is null, not zero."""
    for number in range(4):
        job = submit(api, variant="a")
        worker.fail(job["id"]) if number == 0 else worker.succeed(job["id"])
        score(api, job["id"], value=number)
    worker.succeed(submit(api, variant="b")["id"])
    rows = {row["name"]: row for row in api.get("/v1/programs/split/variants").json()["data"]}
    assert list(rows) == ["a", "b", "off"]
    a = rows["a"]
    assert (a["weight"], a["model"], a["version"], a["version_name"]) == (3, MODEL, "va", "v1")
    assert (a["jobs"], a["failed"], a["error_rate"], a["cached"]) == (4, 1, 0.25, 0)
    assert (a["cost_usd"], a["cost_per_job"]) == (0.000006, 0.0000015)
    assert a["scores"] == {"accuracy": {"n": 4, "mean": 1.5}}
    assert 0 <= a["latency"]["p50_seconds"] <= a["latency"]["p95_seconds"] < 60
    assert (rows["b"]["jobs"], rows["b"]["scores"]) == (1, {})
    assert (rows["off"]["jobs"], rows["off"]["error_rate"], rows["off"]["cost_per_job"]) == (0, None, None)
    assert set(rows["off"]["latency"].values()) == {None}
    whole = api.get("/v1/programs/split/variants", params={"scores": "true", "score": "accuracy"}).json()["data"][0]
    assert sorted(whole["scores"]["accuracy"]["values"]) == [0, 1, 2, 3]
    other = api.get("/v1/programs/split/variants", params={"score": "other"}).json()["data"][0]
    assert other["scores"] == {}
    assert api.get("/v1/programs/absent/variants").status_code == 404


def test_scores_of_any_size_have_a_mean(api: httpx.Client, store: SyncStore, worker: PlayedWorker) -> None:
    """Also those kept before there was a largest one, whose sum no number can hold."""
    for value in (1, 2, 3):
        job = submit(api, variant="a")
        worker.succeed(job["id"])
        assert score(api, job["id"], value=value).status_code == 200
    kept = names.scores("split", "a", "accuracy")
    store.redis.hset(kept, mapping=dict.fromkeys(store.redis.hkeys(kept), repr(sys.float_info.max)))
    answer = api.get("/v1/programs/split/variants", params={"scores": "true"})
    assert answer.status_code == 200, answer.text
    assert answer.json()["data"][0]["scores"]["accuracy"]["mean"] == sys.float_info.max


def test_a_job_answered_from_the_cache_makes_runs_no_cheaper() -> None:
    """What a variant costs is told of the jobs that ran."""
    found = report({"jobs": 10, "hit": 5, "coalesced": 1, "cost": 4_000_000_000})
    assert (found["cached"], found["cost_usd"], found["cost_per_job"]) == (6, 4, 1)
    assert report({"jobs": 2, "hit": 2})["cost_per_job"] is None


def test_the_command_compares_what_was_scored(api: httpx.Client, worker: PlayedWorker) -> None:
    """From scores posted by a client to an interval on the command line."""
    with Client(str(api.base_url)) as client:
        for variant, values in (("a", (0.1, 0.2, 0.3)), ("b", (0.7, 0.8, 0.9))):
            for value in values:
                job = client.submit("split", {"text": "t"}, variant=variant)
                worker.succeed(job.id)
                assert client.score(job.id, "accuracy", value).value == value
        assert client.get(job.id).scores == {"accuracy": 0.9}
    command = ["--url", str(api.base_url), "variants", "compare", "split", "--json"]
    result = CliRunner().invoke(app, command, catch_exceptions=False)
    rows = {row["name"]: row for row in json.loads(result.stdout)}
    found = rows["b"]["versus"]["scores"]["accuracy"]
    assert (rows["a"]["is_baseline"], found["n"], found["baseline_n"]) == (True, 3, 3)
    assert 0 < found["low"] < 0.6 < found["high"]
    assert rows["off"]["versus"]["scores"]["accuracy"]["note"].startswith("too few scores: 0 and")
    assert rows["off"]["versus"]["error_rate"]["note"].startswith("no job has ended")
