"""`GET /metrics` of real API processes: the same exact totals from each, as many as batches and costs tell."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

import httpx
import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families

from dspy_jobs import names
from dspy_jobs.descriptions import ProgramDescription, VariantDescription
from dspy_jobs.measures import CACHE_USES
from dspy_jobs.outcomes import Attempt, Reused, success
from dspy_jobs.problems import CODES
from dspy_jobs.settings import BreakerSettings
from dspy_jobs.states import WaitReason
from dspy_jobs.store import SyncStore, gates, recovery
from dspy_jobs.store.books import Bill, BilledCall
from dspy_jobs.store.counted import fold_books
from dspy_jobs.store.flights import Answered, settle_answered
from dspy_jobs.store.operations import EXPIRED, recover_lost, renew_worker, retry_later, take_jobs
from dspy_jobs.store.records import Claim
from dspy_jobs.waiting import wait_until
from tests.conftest import ROOT
from tests.integration.conftest import StartApi
from tests.integration.played_worker import MODEL, PlayedWorker

QUEUE = names.queue(MODEL)
#: The id of the worker played by hand.
WORKER = "played-worker"
DAY = 86_400_000

#: Values of a metric by its labels' values, in the order of the labels' names.
Values = dict[tuple[str, ...], float]


def scrape(api: httpx.Client) -> dict[str, Values]:
    """Every metric, each of which comes once."""
    answer = api.get("/metrics")
    assert answer.status_code == 200, answer.text
    families = list(text_string_to_metric_families(answer.text))
    assert len({family.name for family in families}) == len(families)
    found: dict[str, Values] = {}
    for sample in (sample for family in families for sample in family.samples):
        key = tuple(sample.labels[label] for label in sorted(sample.labels))
        assert key not in found.setdefault(sample.name, {})
        found[sample.name][key] = sample.value
    return found


def some(values: Values) -> Values:
    """Those that are not 0."""
    return {labels: value for labels, value in values.items() if value}


def predictions(found: Mapping[str, Values]) -> Counter[str]:
    """Ended jobs by status."""
    sums = Counter[str]()
    for (_, _, status, _), value in found["dspy_predictions_total"].items():
        sums[status] += int(value)
    return +sums


def submit_batch(api: httpx.Client, count: int) -> str:
    """Submit a batch."""
    batch = {"program": "qa", "items": [{"inputs": {"question": f"q{n}"}} for n in range(count)]}
    return str(api.post("/v1/batches", json=batch).json()["id"])


def submit(api: httpx.Client, **more: Any) -> str:
    """Submit a job."""
    job = {"program": "qa", "inputs": {"question": "why?"}, **more}
    return str(api.post("/v1/jobs", json=job).json()["id"])


def now_ms() -> int:
    """The time."""
    return time.time_ns() // 1_000_000


def answer_from_cache(store: SyncStore, job_id: str, how: str) -> None:
    """End a queued job with an output made before."""
    attempt = Attempt(1, MODEL, now_ms(), now_ms())
    outcome = success(job_id, {"answer": "42"}, attempt, "v1", Reused(how, "0" * 40, 1.0, 1500))
    store.run(take_jobs(WORKER, [job_id]))
    assert store.run(settle_answered(WORKER, [Answered(job_id, outcome, how, 1500)], EXPIRED)) == ["finished"]


def lose(store: SyncStore, worker: PlayedWorker, job_id: str) -> None:
    """Start a job and take it back from its worker, whose lease is over."""
    worker.start(job_id)
    store.redis.zadd(names.WORKERS, {WORKER: 1})
    assert store.run(recover_lost(9)) == (1, 0)


def fall_back(store: SyncStore, claim: Claim, model: str) -> None:
    """End an attempt whose job goes to another model."""
    bill = Bill([BilledCall(None, None, None, None, None)])
    assert store.run(retry_later(WORKER, claim, b"{}", 0, "w", bill, "none", model)) == "delayed"
    assert wait_until(lambda: store.redis.hget(names.job(claim.id), "wait") is None, 20)


RULES = (ROOT / "ops" / "prometheus-rules.yml").read_text()


def test_whatever_alerts_and_dashboards_wait_for_is_there_before_it_happens(api: httpx.Client) -> None:
    """At 0, for every program on every model: where a series begins at 150 failures Prometheus sees no increase."""
    found = scrape(api)
    models, programs = (
        {model for (model,) in found["dspy_circuit_breaker_state"]},
        api.get("/config").json()["programs"],
    )
    assert len(models) > 2
    work = {(model, program, "") for model in models for program in programs}
    ends = ("succeeded", "failed", "canceled", "expired")
    wanted = {
        "dspy_predictions_total": {(model, program, end, "") for model, program, _ in work for end in ends},
        "dspy_prediction_cost_total": work,
        "dspy_unpriced_calls_total": work,
        "dspy_errors_total": {(code, model) for code in CODES for model in models},
        "dspy_attempts_total": {(m, outcome) for m in models for outcome in ("retried", "fell_back", "recovered")},
        "dspy_recovered_jobs_total": {(names.queue(model),) for model in models},
        "dspy_token_usage_total": {
            (model, kind) for model in models for kind in ("input", "output", "cached_input", "reasoning")
        },
        "dspy_cache_operations_total": {*CACHE_USES, ("flight", "coalesced")},
        "dspy_prediction_duration_seconds_count": {(model, program) for model, program, _ in work},
        "dspy_lm_call_duration_seconds_count": {(model, outcome) for model in models for outcome in ("ok", "error")},
        "dspy_queue_wait_seconds_count": {(model,) for model in models},
    }
    assert {name: found[name] for name in wanted} == {name: dict.fromkeys(keys, 0) for name, keys in wanted.items()}
    counters = set(re.findall(r"(dspy_\w+_(?:total|bucket))\b", RULES))
    assert len(counters) > 3
    assert {counter.replace("_bucket", "_count") for counter in counters} <= wanted.keys()


def test_every_total_is_what_batches_and_costs_tell(
    api: httpx.Client, start_api: StartApi, worker: PlayedWorker, store: SyncStore
) -> None:
    """After a mixed story, from each of two processes, before and after the books are folded."""
    other, before = start_api(), scrape(api)
    assert predictions(before) == {}
    assert before["dspy_predictions_total"][MODEL, "qa", "failed", ""] == 0
    batch_id = submit_batch(api, 16)
    ids = iter(worker.jobs_of(batch_id))
    assert wait_until(lambda: store.redis.zcard(names.queue_waiting(QUEUE, 6)) == 16, 20)
    worker.appear()
    worker.succeed_all([next(ids), next(ids)])
    worker.fail(next(ids))
    worker.fail(next(ids), "server")
    worker.fail(next(ids), "server")
    api.post(f"/v1/jobs/{next(ids)}/cancel")
    running = worker.start(next(ids))
    api.post(f"/v1/jobs/{running.id}/cancel")
    worker.end_failed(running, "canceled", "canceled")
    answer_from_cache(store, next(ids), "coalesced")
    answer_from_cache(store, next(ids), "coalesced")
    answer_from_cache(store, next(ids), "hit")
    retried, lost, fallen = next(ids), next(ids), next(ids)
    worker.fail_for_now(retried, 0)
    assert wait_until(lambda: store.redis.hget(names.job(retried), "wait") is None, 20)
    worker.succeed(retried)
    lose(store, worker, lost)
    worker.succeed(lost)
    fall_back(store, worker.start(fallen), "sandbox-slow")
    worker.succeed(fallen)
    store.run(recovery.expire_due(100, 0, [QUEUE], now_ms=now_ms() + 2 * DAY))
    found = scrape(api)

    batch = api.get(f"/v1/batches/{batch_id}").json()
    told = {status: batch["counts"][status] for status in ("succeeded", "failed", "canceled", "expired")}
    assert told == {"succeeded": 8, "failed": 3, "canceled": 2, "expired": 3}
    assert predictions(found) == told
    assert some(found["dspy_errors_total"]) == {("program_error", MODEL): 1, ("server", MODEL): 2}
    assert some(found["dspy_attempts_total"]) == {
        (MODEL, "retried"): 1, (MODEL, "recovered"): 1, (MODEL, "fell_back"): 1,
    }  # fmt: skip
    assert some(found["dspy_recovered_jobs_total"]) == {(QUEUE,): 1}
    assert some(found["dspy_cache_operations_total"]) == {("flight", "coalesced"): batch["cache"]["coalesced"]}
    assert batch["cache"]["coalesced"] == 2
    check_costs(api, found)
    totals = totals_of(found)
    assert totals_of(scrape(other)) == totals
    while store.run(fold_books(now_ms=now_ms() + DAY)):
        pass
    assert store.redis.hlen(names.COUNTED)
    assert totals_of(scrape(api)) == totals_of(scrape(other)) == totals
    check_costs(api, found)
    assert batch_id not in api.get("/metrics").text
    assert retried not in api.get("/metrics").text
    assert not any("{" in route for _, route, _ in scrape(other)["dspy_http_requests_total"]), "they are each one's own"


def check_costs(api: httpx.Client, found: Mapping[str, Values]) -> None:
    """Money, tokens and calls are those that `GET /costs` tells, whatever they are told apart by."""
    costs = api.get("/costs", params={"group_by": "model"}).json()
    assert round(sum(found["dspy_prediction_cost_total"].values()) * 10**9) == costs["total"]["cost_nanos"] > 0
    assert sum(found["dspy_unpriced_calls_total"].values()) == costs["total"]["unpriced_calls"] == 1
    for row in costs["data"]:
        for kind in ("input", "output", "cached_input", "reasoning"):
            assert found["dspy_token_usage_total"][row["model"], kind] == row[f"{kind}_tokens"]
    ended = predictions(found)
    assert ended["succeeded"] + ended["failed"] == costs["total"]["jobs"]
    assert ended["failed"] == costs["total"]["failed"]
    assert len(costs["data"]) == 2, "only canceled and expired jobs make no row"


def totals_of(found: Mapping[str, Values]) -> dict[str, Values]:
    """The whole service's totals."""
    own = ("process_", "python_", "dspy_http_", "dspy_redis_")
    return {name: values for name, values in found.items() if name.endswith("_total") and not name.startswith(own)}


def test_variants_are_told_apart_and_strangers_are_not(
    api: httpx.Client, worker: PlayedWorker, store: SyncStore
) -> None:
    """Programs and variants that workers have described bear their names, also where the API's own file has none."""
    arm = VariantDescription(weight=1, model=MODEL, version="v1")
    schema: dict[str, Any] = {"type": "object"}
    split = ProgramDescription(
        name="split", version="v1", model=MODEL, variants={"a": arm}, input_schema=schema, output_schema=schema
    )
    store.redis.hset(names.PROGRAMS, "split", orjson.dumps(split.model_dump()))
    store.redis.publish(names.PROGRAMS_CHANNEL, "test")
    assert wait_until(lambda: api.get("/v1/programs/split").status_code == 200, 20)
    worker.succeed(submit(api, program="split", inputs={}))
    store.redis.hset(names.COUNTED, f"{MODEL}|b|split|jobs", 2)
    store.redis.hset(names.COUNTED, "nobody|b|knows|jobs", 3)
    found = some(scrape(api)["dspy_predictions_total"])
    assert found == {
        (MODEL, "split", "succeeded", "a"): 1,
        (MODEL, "split", "succeeded", "other"): 2,
        ("other", "other", "succeeded", "other"): 3,
    }


def test_housekeeping_folds_the_books_of_past_days(api: httpx.Client, store: SyncStore) -> None:
    """By itself; costs are as before."""
    store.redis.hset(names.costs("20200102"), f"{MODEL}||qa|acme|cost", 5)
    store.redis.sadd(names.OPEN_BOOKS, "20200102")
    asked = {"from": "2020-01-01", "to": "2020-01-03", "group_by": "client"}
    costs = api.get("/costs", params=asked).json()
    assert wait_until(lambda: not store.redis.exists(names.costs("20200102")), 30)
    assert api.get("/costs", params=asked).json() == costs
    assert scrape(api)["dspy_prediction_cost_total"][MODEL, "qa", ""] == 5e-9
    assert b"program qa" in store.redis.smembers(names.KNOWN_NAMES)


def test_models_and_workers_are_shown(api: httpx.Client, worker: PlayedWorker, store: SyncStore) -> None:
    """Each circuit's state, though something else closes the queue too; what runs; who works and who leaves."""
    worker.appear()
    store.run(renew_worker("leaving", 60, b'{"draining": true, "concurrency": 8}', []))
    worker.start(submit(api))
    found = scrape(api)
    assert found["dspy_worker_slots"] == {(): 4}
    assert found["dspy_circuit_breaker_state"][MODEL,] == 0
    assert some(found["dspy_active_predictions"]) == {(MODEL,): 1}
    assert (some(found["dspy_workers"]), found["dspy_workers_draining"]) == ({(QUEUE,): 1}, {(): 1})
    assert found["dspy_workers"].keys() >= {(names.queue("sandbox-slow"),)}
    api.post(f"/v1/queues/{QUEUE}/pause")
    store.run(gates.report_calls(MODEL, BreakerSettings(reset_seconds=3600), 0, 1, fatal=True))
    assert some(scrape(api)["dspy_circuit_breaker_state"]) == {(MODEL,): 2}
    store.run(gates.open_gate(QUEUE, WaitReason.CIRCUIT_OPEN))
    store.run(gates.report_calls(MODEL, BreakerSettings(), 0, 1, fatal=True, now_ms=now_ms() - 600_000))
    assert some(scrape(api)["dspy_circuit_breaker_state"]) == {(MODEL,): 1}


def test_budgets_are_shown_without_names(start_api: StartApi, worker: PlayedWorker, store: SyncStore) -> None:
    """As configured here while no worker has published any; of clients the fullest. The cache need not be there."""
    api = start_api(
        DSPY_JOBS_BUDGETS_DAY_USD="2", DSPY_JOBS_API_CLIENT_HEADER="X-Client", CACHE_URL="redis://127.0.0.1:1/0"
    )
    job = {"program": "qa", "inputs": {"question": "why?"}}
    worker.succeed(api.post("/v1/jobs", json=job, headers={"x-client": "acme"}).json()["id"])
    found = scrape(api)
    assert found["dspy_budget_limit_usd"] == {("day", "all"): 2}
    assert found["dspy_budget_spent_usd"] == {("day", "all"): 1.5e-6, ("month", "all"): 1.5e-6}
    assert found["dspy_redis_memory_bytes"].keys() == {("queue",)}
    store.redis.hset(names.BUDGETS, mapping={"month *": 4 * 10**9, "day acme": 3000, "day idle": 1000, "kept": DAY})
    found = scrape(api)
    assert found["dspy_budget_limit_usd"] == {("month", "all"): 4, ("day", "client"): 3e-6}
    assert found["dspy_budget_spent_usd"]["day", "client"] == 1.5e-6
    assert "acme" not in api.get("/metrics").text


def test_the_memory_of_both_redises_is_shown(api: httpx.Client) -> None:
    """Used and allowed; 0 is no limit."""
    found = scrape(api)
    assert found["dspy_redis_memory_bytes"].keys() == {("queue",), ("cache",)}
    assert min(found["dspy_redis_memory_bytes"].values()) > 100_000
    assert found["dspy_redis_memory_limit_bytes"] == {("queue",): 0, ("cache",): 0}


def test_a_process_counts_its_own_requests(api: httpx.Client) -> None:
    """By method, template and status, with the time they took; and its round trips to Redis."""
    unknown, accepted = ("GET", "/v1/jobs/{job_id}", "404"), ("POST", "/v1/jobs", "202")
    before = scrape(api)["dspy_http_requests_total"]
    for _ in range(3):
        assert api.get("/v1/jobs/job_unknown").status_code == 404
    submit(api)
    found = scrape(api)
    requests = found["dspy_http_requests_total"]
    assert {key: requests[key] - before.get(key, 0) for key in (unknown, accepted)} == {unknown: 3, accepted: 1}
    assert found["dspy_http_request_duration_seconds_count"] == requests
    assert found["dspy_redis_duration_seconds_count"]["api",] > 4
    assert found["process_resident_memory_bytes"][()] > 10**7


def test_what_workers_have_measured_stands_beside_it(api: httpx.Client, store: SyncStore) -> None:
    """Two families come from both: each is shown once, with everybody's samples."""
    fields = {"dspy_redis_duration_seconds|worker|0.001": 3, "dspy_cache_operations|memory|hit|total": 4}
    store.redis.hset(names.METRICS, mapping=fields)
    submit(api)
    found = scrape(api)
    counts = found["dspy_redis_duration_seconds_count"]
    assert (counts["worker",], counts["api",] > 0) == (3, True)
    assert some(found["dspy_cache_operations_total"]) == {("memory", "hit"): 4}


@pytest.mark.parametrize("path", ["/metrics?name=x", "/metrics?"])
def test_metrics_take_no_parameters(api: httpx.Client, path: str) -> None:
    """A question that would be ignored is refused."""
    assert api.get(path).status_code == (400 if "=" in path else 200)
