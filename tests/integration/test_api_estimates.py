"""What a batch would come to, over HTTP, against a real Redis."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
import redis

from dspy_jobs import names
from dspy_jobs.cache_key import cache_key, subject_of
from dspy_jobs.costs import book_day
from dspy_jobs.descriptions import ProgramDescription, VariantDescription
from dspy_jobs.redis_url import cache_url
from dspy_jobs.settings import ModelSettings, Settings
from dspy_jobs.store import SyncStore
from dspy_jobs.submissions import BatchSubmission
from dspy_jobs.waiting import wait_until
from tests.integration.conftest import running_api
from tests.integration.played_worker import MODEL, PlayedWorker

NDJSON = {"content-type": "application/x-ndjson"}
QUEUE = names.queue_numbers(names.queue(MODEL))
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"question": {"type": "string"}},
    "required": ["question"],
    "additionalProperties": False,
}
StartApi = Callable[..., httpx.Client]
CONFIGURATION = f"""
[models.{MODEL}]
model = "openai/sandbox"
base_url = "http://127.0.0.1:1/v1"
input_cost_per_1k = 0.001
output_cost_per_1k = 0.002
parameters = {{ temperature = 0.5 }}

[models.unpriced]
model = "openai/other"
base_url = "http://127.0.0.1:1/v1"
"""


@pytest.fixture(scope="module")
def configuration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a priced and an unpriced model."""
    path = tmp_path_factory.mktemp("estimates") / "dspy-jobs.toml"
    path.write_text(CONFIGURATION)
    return path


@pytest.fixture(scope="module")
def service_process(redis_server: str, configuration: Path) -> Iterator[httpx.Client]:
    """An API process with those models."""
    given = {"DSPY_JOBS_CONFIG": str(configuration), "DSPY_JOBS_CACHE_TIMEOUT_SECONDS": "5"}
    with running_api(redis_server, **given) as client:
        yield client


@pytest.fixture
def service(service_process: httpx.Client, programs: None) -> httpx.Client:
    """A client of that process over an empty Redis in which the program `qa` is described."""
    return service_process


@pytest.fixture
def cache_redis(redis_url: str) -> Iterator[redis.Redis]:
    """A client of the cache's Redis."""
    with redis.Redis.from_url(cache_url(Settings(redis_url=redis_url))) as client:
        yield client


def item(number: int, **more: Any) -> dict[str, Any]:
    """An item of a batch."""
    return {"inputs": {"question": f"number {number}"}, **more}


def lines(items: Iterable[Any]) -> bytes:
    """Items as NDJSON."""
    return b"".join(json.dumps(i).encode() + b"\n" for i in items)


def estimate(api: httpx.Client, items: Iterable[Any], **params: Any) -> dict[str, Any]:
    """What the service says of items."""
    given = {"program": "qa", "dry_run": "true", **params}
    answer = api.post("/v1/batches", params=given, content=lines(items), headers=NDJSON)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def store_answer(client: redis.Redis, number: int, age_seconds: float = 0, **changed: Any) -> None:
    """Put an answer to an item into the cache, under the key that a worker would use."""
    model = ModelSettings(model="openai/sandbox", base_url="http://127.0.0.1:1/v1", parameters={"temperature": 0.5})
    given = {"version": "v1", "variant": "", "namespace": "", "parameters": {}, **changed}
    subject = subject_of(MODEL, model, given["version"], given["variant"], given["namespace"], given["parameters"])
    key = names.cache_entry(cache_key(subject, {"question": f"number {number}"}, SCHEMA))
    client.set(key, b"an answer", px=int((7 * 86_400 - age_seconds) * 1000))


def write_books(store: SyncStore, days_ago: int = 0, of: str = f"{MODEL}||qa|default", **metrics: int) -> None:
    """Write the books of a day."""
    day = datetime.fromtimestamp(store.redis.time()[0], UTC).date() - timedelta(days=days_ago)
    key = names.costs(book_day(day))
    store.redis.hset(key, mapping={f"{of}|{metric}": value for metric, value in metrics.items()})
    store.redis.expire(key, 600)


RUNS = {"calls": 100, "input_tokens": 20_000, "output_tokens": 3_000, "cost": 26_000_000, "jobs": 120, "ran": 100}


def test_both_forms_are_estimated_and_nothing_is_stored(
    service: httpx.Client, store: SyncStore, cache_redis: redis.Redis
) -> None:
    """JSON and NDJSON say the same, and Redis holds what it held."""
    before = (sorted(store.redis.keys()), cache_redis.keys())
    items = [item(0), item(1, custom_id="a", metadata={"x": 1}), item(1)]
    found = estimate(service, items)
    as_json = service.post("/v1/batches?dry_run=true", json={"program": "qa", "items": items})
    assert (as_json.status_code, as_json.json()) == (200, found)
    assert (found["program"], found["model"], found["valid"], found["invalid"]) == ("qa", MODEL, 3, 0)
    assert (sorted(store.redis.keys()), cache_redis.keys()) == before
    assert service.get("/v1/batches").json()["data"] == []


def test_invalid_items_are_named_by_line_and_the_others_estimated(service: httpx.Client) -> None:
    """As a real upload names them; each bad item counts once, however many mistakes it has."""
    items = [item(0, custom_id="a"), {"inputs": {"q": 1, "x": 2}}, 7, item(2, custom_id="a"), item(3, custom_id="b")]
    body = lines(items) + b"{no json\n"
    url = "/v1/batches?program=qa"
    found = service.post(f"{url}&dry_run=true", content=body, headers=NDJSON).json()
    refused = service.post(url, content=body, headers=NDJSON).json()
    assert (found["valid"], found["invalid"]) == (2, 4)
    assert (found["errors"], found["error_count"]) == (refused["errors"], refused["error_count"])
    assert {mistake["line"] for mistake in found["errors"]} == {2, 3, 4, 6}
    assert found["error_count"] > found["invalid"]


def test_the_first_hundred_mistakes_are_named(service: httpx.Client) -> None:
    """All are counted."""
    found = estimate(service, [7] * 250)
    assert (found["valid"], found["invalid"], found["error_count"], len(found["errors"])) == (0, 250, 250, 100)
    assert found["est_cost_usd"] == {"low": 0, "high": 0}
    assert (found["est_input_tokens"], found["est_seconds"]) == (0, 0)


@pytest.mark.parametrize(
    ("url", "body", "status", "code"),
    [
        ("?dry_run=true", {"items": [item(0)]}, 422, "invalid_request_body"),
        ("?dry_run=true", {"program": "qa", "items": []}, 422, "invalid_request_body"),
        ("?dry_run=true", {"program": "qa"}, 422, "invalid_request_body"),
        ("?dry_run=true", {"program": "qa", "items": [item(0)], "x": 1}, 422, "invalid_request_body"),
        ("?dry_run=true", {"program": "no", "items": [item(0)]}, 422, "unknown_program"),
        ("?dry_run=true", {"program": "qa", "model": "no", "items": [item(0)]}, 422, "unknown_model"),
        ("?dry_run=maybe", {"program": "qa", "items": [item(0)]}, 400, "invalid_parameter"),
        ("?dry_run=true", {"program": "qa", "model": "unpriced", "limits": {"max_cost_usd": 1.0}, "items": [item(0)]},
         422, "invalid_request_body"),
    ],
)  # fmt: skip
def test_a_malformed_request_is_refused_as_an_upload_is(
    service: httpx.Client, url: str, body: dict[str, Any], status: int, code: str
) -> None:
    """With the same problem."""
    answers = [service.post("/v1/batches" + query, json=body) for query in (url, "" if "true" in url else url)]
    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(status, code)] * 2


def test_a_limit_that_the_batch_will_reach_is_told(service: httpx.Client, store: SyncStore) -> None:
    """If even the least it may cost is more."""
    write_books(store, **RUNS)
    low = estimate(service, [item(n) for n in range(10)])["est_cost_usd"]["low"]
    for limit, is_told in ((low * 0.9, True), (low * 1.1, False)):
        found = estimate(service, [item(n) for n in range(10)], max_cost_usd=repr(limit))
        assert any("paused before its end: max_cost_usd is $" in note for note in found["notes"]) is is_told


def test_without_dry_run_it_is_a_batch(service: httpx.Client) -> None:
    """`false` is what nothing is."""
    answer = service.post("/v1/batches?program=qa&dry_run=false", content=lines([item(0)]), headers=NDJSON)
    assert answer.status_code == 202, answer.text


def test_stored_answers_and_repeated_items_cost_nothing(
    service: httpx.Client, store: SyncStore, cache_redis: redis.Redis
) -> None:
    """Exactly those that a worker would find, in every spelling of an item; more than one round trip of them."""
    write_books(store, **RUNS)
    for number in range(600):
        store_answer(cache_redis, number)
    stored = [{"inputs": {"question": f"number {n}"}, "custom_id": f"c{n}"} for n in range(600)]
    found = estimate(service, [*stored, item(5), *[item(n) for n in range(1000, 1010)] * 2])
    assert (found["valid"], found["cached"], found["repeated"]) == (621, 601, 10)
    assert (found["est_input_tokens"], found["est_output_tokens"]) == (10 * 200, 10 * 30)
    assert found["notes"] != []  # no worker serves the model


@pytest.mark.parametrize(
    ("params", "stored", "cached"),
    [
        ({}, {}, 1),
        ({"model": "unpriced"}, {}, 0),
        ({"parameters": '{"temperature": 0.6}'}, {}, 0),
        ({"parameters": '{"temperature": 0.6}'}, {"parameters": {"temperature": 0.6}}, 1),
        ({"cache_namespace": "n"}, {}, 0),
        ({"cache_namespace": "n"}, {"namespace": "n"}, 1),
        ({"cache": "refresh"}, {}, 0),
        ({"cache": "only"}, {}, 1),
        ({"use_cache": "false"}, {}, 0),
        ({"cache_max_age_seconds": 100}, {"age_seconds": 50}, 1),
        ({"cache_max_age_seconds": 100}, {"age_seconds": 200}, 0),
        ({}, {"version": "v2"}, 0),
    ],
    ids=str,
)
def test_what_counts_as_stored_is_what_the_jobs_would_take(
    service: httpx.Client, cache_redis: redis.Redis, params: dict[str, Any], stored: dict[str, Any], cached: int
) -> None:
    """By program version, model, parameters, namespace, mode and age."""
    store_answer(cache_redis, 0, **stored)
    assert estimate(service, [item(0)], **params)["cached"] == cached


def test_jobs_that_share_nothing_all_run(service: httpx.Client, store: SyncStore) -> None:
    """Switched off or refreshed, equal items are paid each; with only stored answers wanted none is."""
    write_books(store, **RUNS)
    for mode, jobs in (("off", 3), ("refresh", 3), ("default", 1), ("only", 0)):
        found = estimate(service, [item(0)] * 3, cache=mode)
        assert (found["repeated"], found["est_output_tokens"]) == (2 if mode == "default" else 0, jobs * 30), mode
    assert any("3 jobs would fail as not_cached" in note for note in found["notes"])


def test_each_variant_has_its_own_answers_and_books(
    service: httpx.Client, store: SyncStore, cache_redis: redis.Redis
) -> None:
    """Assigned or named, an item is looked for under its variant and its version."""
    arms = {name: VariantDescription(weight=1, model=MODEL, version=f"v-{name}") for name in ("a", "b")}
    described = ProgramDescription(
        name="qa", version="v1", model=MODEL, variants=arms, input_schema=SCHEMA, output_schema={"type": "object"}
    )
    store.redis.hset(names.PROGRAMS, "qa", orjson.dumps(described.model_dump()))
    store.redis.publish(names.PROGRAMS_CHANNEL, "test")
    store_answer(cache_redis, 0, variant="a", version="v-a")
    write_books(store, of=f"{MODEL}|b|qa|default", **RUNS)
    write_books(store, of=f"{MODEL}|a|qa|default", **{**RUNS, "output_tokens": 9000})
    named = [{**item(0), "variant": "a"}, {**item(0), "variant": "b"}, {**item(1), "variant": "a"}]
    found = estimate(service, named)
    assert (found["valid"], found["cached"], found["repeated"]) == (3, 1, 0)
    assert found["est_output_tokens"] == 30 + 90
    assert estimate(service, [item(0)], variant="a")["cached"] == 1


def test_books_of_a_week_tell_tokens_and_cost(service: httpx.Client, store: SyncStore) -> None:
    """Of this program on this model, over all clients; older days and other programs do not count.

    Nor do other programs' clients and variants of its name.
    """
    for days_ago in range(7):
        write_books(store, days_ago, of=f"{MODEL}||qa|client{days_ago}", **RUNS)
    write_books(store, 7, **{**RUNS, "output_tokens": 10**9})
    write_books(store, of=f"{MODEL}||other|default", **{**RUNS, "output_tokens": 10**9})
    write_books(store, of="unpriced||qa|default", **{**RUNS, "output_tokens": 10**9})
    write_books(store, of=f"{MODEL}||other|qa", **{**RUNS, "output_tokens": 10**9})
    write_books(store, of=f"{MODEL}|qa|other|qa", **{**RUNS, "output_tokens": 10**9})
    found = estimate(service, [item(n) for n in range(1000)])
    assert (found["est_input_tokens"], found["est_output_tokens"]) == (200_000, 30_000)
    cost = found["est_cost_usd"]
    assert cost["low"] < 0.26 < cost["high"]
    assert cost["low"] + cost["high"] == pytest.approx(0.52)


def test_without_books_it_says_that_it_guesses(service: httpx.Client, store: SyncStore) -> None:
    """Prices come from the configuration, else from what workers found; without one the cost is not known."""
    found = estimate(service, [item(0)])
    assert 0 < found["est_cost_usd"]["low"] < found["est_cost_usd"]["high"]
    assert any("guessed" in note for note in found["notes"])
    unknown = estimate(service, [item(0)], model="unpriced")
    assert unknown["est_cost_usd"] == {"low": None, "high": None}
    assert any("price" in note for note in unknown["notes"])
    store.redis.hset(names.MODELS, "unpriced", b'{"input_cost_per_1k": 0.01, "output_cost_per_1k": 0.02}')
    assert estimate(service, [item(0)], model="unpriced")["est_cost_usd"]["low"] > found["est_cost_usd"]["low"]


def test_the_time_is_that_of_the_present_workers(service: httpx.Client, store: SyncStore, worker: PlayedWorker) -> None:
    """(Jobs to come + jobs before) * mean seconds / threads; unknown without a worker or a measured run."""
    items = [item(n) for n in range(100)]
    assert estimate(service, items)["est_seconds"] is None
    worker.appear(concurrency=8)
    assert service.post("/v1/batches?program=qa", content=lines([item(n) for n in range(20)]), headers=NDJSON)
    store.redis.hset(QUEUE, "service_ms", "2000.5")
    # How many threads there are is remembered for two seconds.
    assert wait_until(lambda: estimate(service, items)["est_seconds"] is not None, 20)
    assert estimate(service, items)["est_seconds"] == pytest.approx(120 * 2.0005 / 8, abs=0.1)


def test_a_cache_that_cannot_be_asked_is_said_and_waited_for_once(
    start_api: StartApi, configuration: Path, store: SyncStore
) -> None:
    """`cached` is null, and the cost begins at nothing, for all answers may be there."""
    write_books(store, **RUNS)
    accepted: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        threading.Thread(target=_accept, args=(deaf, accepted), daemon=True).start()
        api = start_api(DSPY_JOBS_CONFIG=str(configuration), CACHE_URL=f"redis://127.0.0.1:{deaf.getsockname()[1]}/0")
        found = estimate(api, [*(item(n) for n in range(5000)), item(0)])
        for connection in accepted:
            connection.close()
        deaf.shutdown(socket.SHUT_RDWR)
    assert (found["cached"], found["repeated"], found["valid"]) == (None, 1, 5001)
    assert (found["est_cost_usd"]["low"], found["est_output_tokens"]) == (0, 5000 * 30)
    assert any("cache could not be asked" in note for note in found["notes"])
    assert len(accepted) == 1


def _accept(server: socket.socket, accepted: list[socket.socket]) -> None:
    with suppress(OSError):
        while True:
            accepted.append(server.accept()[0])


def test_other_requests_are_answered_meanwhile(service: httpx.Client) -> None:
    """A large estimate does not hold up the others."""
    body = lines(item(n) for n in range(20_000))
    answers: list[httpx.Response] = []

    def ask() -> None:
        url, headers = f"{service.base_url}/v1/batches?program=qa&dry_run=true", NDJSON
        answers.append(httpx.post(url, content=body, headers=headers, timeout=60))

    thread = threading.Thread(target=ask)
    thread.start()
    polls = 0
    while thread.is_alive():
        polls += service.get("/health/live").status_code == 200
    thread.join()
    assert answers[0].json()["valid"] == 20_000
    assert polls > 10


def test_every_field_of_a_batch_is_taken(service: httpx.Client) -> None:
    """What can be submitted can be estimated."""
    given = {
        "model": MODEL, "parameters": '{"seed": 1}', "use_cache": "true", "timeout_seconds": "5", "request_id": "r",
        "expires_in_seconds": "5", "max_attempts": "2", "metadata": '{"a": 1}', "priority": "high",
        "max_cost_usd": "1.5",
    }  # fmt: skip
    assert set(given) - {"max_cost_usd"} <= set(BatchSubmission.model_fields)
    assert estimate(service, [item(0)], **given)["valid"] == 1
