"""Batches over HTTP: uploads, results, pause, resume, cancel, retry."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import httpx
import orjson
import pytest

from dspy_jobs import names
from dspy_jobs.store import SyncStore
from dspy_jobs.store.operations import take_jobs
from dspy_jobs.waiting import wait_until
from tests.integration.played_worker import PlayedWorker

NDJSON = {"content-type": "application/x-ndjson"}
COUNTED = ("queued", "running", "succeeded", "failed", "canceled", "expired")


def item(number: int) -> dict[str, Any]:
    """An item of a batch."""
    return {"inputs": {"question": f"number {number}"}, "custom_id": f"c{number}"}


def lines(items: Iterable[Any]) -> bytes:
    """Items as NDJSON."""
    return b"".join(json.dumps(i).encode() + b"\n" for i in items)


def submit(api: httpx.Client, count: int) -> dict[str, Any]:
    """Upload a batch of that many items."""
    answer = api.post("/v1/batches?program=qa", content=lines(map(item, range(count))), headers=NDJSON)
    assert answer.status_code == 202, answer.text
    return dict(answer.json())


def read(api: httpx.Client, batch: dict[str, Any]) -> dict[str, Any]:
    """A batch, its counts adding up."""
    shown = dict(api.get(f"/v1/batches/{batch['id']}").json())
    assert sum(shown["counts"][name] for name in COUNTED) == shown["counts"]["total"]
    return shown


def results(api: httpx.Client, batch: dict[str, Any], **params: Any) -> tuple[list[dict[str, Any]], httpx.Headers]:
    """The result lines and the headers."""
    answer = api.get(f"/v1/batches/{batch['id']}/results", params=params)
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()], answer.headers


def test_both_forms_make_the_same_batch(api: httpx.Client, worker: PlayedWorker) -> None:
    """JSON and NDJSON uploads answer 202 with the batch and store the same shared and own parts."""
    shared = {"program": "qa", "metadata": {"a": 1}, "parameters": {"seed": 3}, "use_cache": False, "request_id": "r"}
    query = {name: value if isinstance(value, str) else json.dumps(value) for name, value in shared.items()}
    items = [{**item(0), "metadata": {"b": 2}}, {"inputs": {"question": "x"}}]
    for answer in (
        api.post("/v1/batches", json={**shared, "items": items}),
        api.post("/v1/batches", params=query, content=lines(items), headers=NDJSON),
    ):
        batch = answer.json()
        assert (answer.status_code, answer.headers["location"]) == (202, f"/v1/batches/{batch['id']}")
        assert (batch["counts"]["total"], batch["counts"]["queued"], batch["metadata"]) == (2, 2, {"a": 1})
        assert batch == {**read(api, batch), "eta_seconds": None}
        first, second = worker.jobs_of(batch["id"])
        assert worker.start(first).request == {
            "inputs": {"question": "number 0"},
            "custom_id": "c0",
            "metadata": {"b": 2},
        }
        assert worker.start(second).request == {"inputs": {"question": "x"}}
        job = api.get(f"/v1/jobs/{second}").json()
        assert (job["batch_id"], job["metadata"], job["request_id"]) == (batch["id"], {"a": 1}, "r")


def test_both_forms_say_the_same_to_the_cache(api: httpx.Client, store: SyncStore) -> None:
    """The query's parameters are the nested fields of JSON."""
    query = {"program": "qa", "cache": "refresh", "cache_namespace": "1", "cache_max_age_seconds": "0.5"}
    cache = {"mode": "refresh", "namespace": "1", "max_age_seconds": 0.5}
    for answer in (
        api.post("/v1/batches", params=query, content=lines([item(0)]), headers=NDJSON),
        api.post("/v1/batches", json={"program": "qa", "cache": cache, "items": [item(0)]}),
    ):
        assert answer.status_code == 202, answer.text
        assert orjson.loads(store.redis.get(names.batch_request(answer.json()["id"])) or b"")["cache"] == cache


def test_limits_are_kept_shown_and_replaced(api: httpx.Client, store: SyncStore) -> None:
    """Both forms of a batch take limits; a resumption replaces those it names."""
    limits = {"max_cost_usd": 0.000002, "max_error_rate": 0.25, "min_items": 5}
    query = {"program": "qa", **{name: str(value) for name, value in limits.items()}}
    for answer in (
        api.post("/v1/batches", params=query, content=lines([item(0)]), headers=NDJSON),
        api.post("/v1/batches", json={"program": "qa", "limits": limits, "items": [item(0)]}),
    ):
        assert answer.json()["limits"] == limits
    batch = answer.json()
    store.redis.hset(
        names.batch(batch["id"]), mapping={"status": "paused", "pause_reason": "max_cost", "paused_at": 1, "cost": 2500}
    )
    shown = read(api, batch)
    assert (shown["wait_reason"], shown["pause"]["reason"]) == ("budget_exhausted", "max_cost")
    resume = f"/v1/batches/{batch['id']}/resume"
    for body in ({}, {"limits": {"max_cost_usd": 0.0000025}}):
        refused = api.post(resume, json=body)
        assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
        assert "$0.000002501 or more" in refused.json()["detail"]
    going = api.post(resume, json={"limits": {"max_cost_usd": 0.1, "max_error_rate": None}}).json()
    assert (going["status"], "pause" in going) == ("in_progress", False)
    assert going["limits"] == {"max_cost_usd": 0.1, "max_error_rate": None, "min_items": 5}


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({"max_cost_usd": "abc"}, "max_cost_usd: must be a number"),
        ({"min_items": "2,5"}, "min_items: must be a number"),
        ({"use_cache": "no"}, "use_cache: must be true or false"),
        ({"parameters": "x=1"}, "parameters: must be a JSON object"),
        ({"min_items": "5"}, "`limits.min_items` says when `limits.max_error_rate` counts, which is not given"),
        ({"use_cache": "false", "cache_namespace": "n"}, "so `cache.namespace` has no meaning"),
    ],
)
def test_a_wrong_field_of_a_batch_is_explained(api: httpx.Client, query: dict[str, str], said: str) -> None:
    """In words that say what to give instead."""
    answer = api.post("/v1/batches", params={"program": "qa", **query}, content=lines([item(0)]), headers=NDJSON)
    assert answer.status_code in (400, 422)
    assert said in answer.json()["detail"]


@pytest.mark.parametrize("name", ["program", "model", "max_attempts"])
def test_a_field_of_the_batch_on_an_item_is_told_its_place(api: httpx.Client, name: str) -> None:
    """In the form the batch was sent in."""
    items = [{**item(0), name: "qa"}]
    lined = api.post("/v1/batches?program=qa", content=lines(items), headers=NDJSON).json()
    listed = api.post("/v1/batches", json={"program": "qa", "items": items}).json()
    said = f"there is no field '{name}' in an item; give it once: "
    assert lined["errors"][0]["detail"] == f"{said}?{name}=…"
    assert listed["errors"][0]["detail"] == f"{said}{name} beside `items`"


@pytest.mark.parametrize(
    ("limits", "param"),
    [
        ({"max_cost_usd": 0}, "limits.max_cost_usd"),
        ({"max_cost_usd": 1e10}, "limits.max_cost_usd"),
        ({"max_error_rate": 1.1}, "limits.max_error_rate"),
        ({"min_items": 0}, "limits.min_items"),
        ({"max_cost": 1}, "limits.max_cost"),
    ],
)
def test_a_limit_that_cannot_be_kept_is_refused(api: httpx.Client, limits: dict[str, float], param: str) -> None:
    """422 that names it, from a new batch and from one to be resumed."""
    batch = submit(api, 1)
    for answer in (
        api.post("/v1/batches", json={"program": "qa", "limits": limits, "items": [item(0)]}),
        api.post(f"/v1/batches/{batch['id']}/resume", json={"limits": limits}),
    ):
        assert (answer.status_code, answer.json()["errors"][0]["param"]) == (422, param)


def test_a_cost_without_a_price_cannot_be_limited(start_api: Any, store: SyncStore) -> None:
    """Refused with the remedy while neither the configuration nor a worker knows the model's price."""
    api = start_api(DSPY_JOBS_CONFIG="/dev/null")
    body = {"program": "qa", "limits": {"max_cost_usd": 1}, "items": [item(0)]}
    for said in (None, b'{"input_cost_per_1k": null, "output_cost_per_1k": null}'):
        if said:
            store.redis.hset(names.MODELS, "sandbox", said)
        refused = api.post("/v1/batches", json=body)
        assert (refused.status_code, refused.json()["errors"][0]["param"]) == (422, "limits.max_cost_usd")
        assert "input_cost_per_1k and output_cost_per_1k of [models.sandbox]" in refused.json()["detail"]
    store.redis.hset(names.MODELS, "sandbox", b'{"input_cost_per_1k": 0.1, "output_cost_per_1k": 0}')
    assert api.post("/v1/batches", json=body).status_code == 202


def test_every_job_of_a_batch_gets_a_message(api: httpx.Client, store: SyncStore, worker: PlayedWorker) -> None:
    """The messages in the queue name every job once, also for a batch larger than one step."""
    worker.appear()
    batch = submit(api, 4500)
    sent: list[str] = []
    for raw in store.redis.lrange(names.queue_list(names.queue("sandbox"), 6), 0, -1):
        sent += json.loads(json.loads(raw)["body"])[0][0]
    assert sorted(sent) == worker.jobs_of(batch["id"])


def test_odd_but_harmless_lines_are_taken(api: httpx.Client) -> None:
    """A BOM, CRLF, blank lines and a missing last newline do no harm."""
    body = b"\xef\xbb\xbf" + lines([item(0)]).replace(b"\n", b"\r\n") + b"\r\n  \n" + lines([item(1)]).rstrip()
    answer = api.post("/v1/batches?program=qa", content=body, headers=NDJSON)
    assert (answer.status_code, answer.json()["counts"]["total"]) == (202, 2)


def test_every_bad_line_is_named_and_nothing_is_queued(api: httpx.Client, store: SyncStore) -> None:
    """422 with line, custom_id, param, code of each mistake; the good lines leave no trace."""
    good = lines(map(item, range(1500)))
    bad = [
        b'{"inputs": {"question": 1}, "custom_id": "odd"}',
        b"{nonsense",
        b'{"inputs": {"question": "x"}, "custom_id": "c7"}',
        b'{"inputs": {"question": "x"}, "webhook": "y"}',
        b'{"inputs": {"question": "\xff"}}',
        b"[]",
        b'{"inputs": {"question": "%s"}}' % (b"x" * 1_000_001),
    ]
    answer = api.post("/v1/batches?program=qa", content=good + b"\n".join(bad), headers=NDJSON)
    problem = answer.json()
    assert (answer.status_code, problem["code"], problem["error_count"]) == (422, "invalid_input", 7)
    assert [(e["line"], e["custom_id"], e["param"], e["code"]) for e in problem["errors"]] == [
        (1501, "odd", "inputs.question", "invalid_input"),
        (1502, None, None, "malformed_body"),
        (1503, "c7", "custom_id", "duplicate_custom_id"),
        (1504, None, "webhook", "invalid_request_body"),
        (1505, None, None, "malformed_body"),
        (1506, None, None, "invalid_request_body"),
        (1507, None, None, "payload_too_large"),
    ]
    assert keys_of_jobs(store) == []
    assert api.get("/v1/batches").json()["data"] == []


def keys_of_jobs(store: SyncStore) -> list[bytes]:
    """Keys of jobs, batches and uploads."""
    return [key for pattern in ("dj:job_*", "dj:batch_*", "dj:staging") for key in store.redis.scan_iter(pattern)]


def test_only_the_first_hundred_mistakes_are_named(api: httpx.Client) -> None:
    """All mistakes are counted, a hundred are told."""
    problem = api.post("/v1/batches?program=qa", content=b"{}\n" * 250, headers=NDJSON).json()
    assert (len(problem["errors"]), problem["error_count"]) == (100, 250)


@pytest.mark.parametrize(
    ("query", "body", "status", "code"),
    [
        ("program=qa", b"", 422, "invalid_request_body"),
        ("program=qa", b"\n \n", 422, "invalid_request_body"),
        ("", b"{}", 422, "invalid_request_body"),
        ("program=nope", b"{}", 422, "unknown_program"),
        ("program=qa&colour=red", b"{}", 400, "invalid_parameter"),
        ("program=qa&max_attempts=x", b"{}", 400, "invalid_parameter"),
        ("program=qa&max_attempts=0", b"{}", 422, "invalid_request_body"),
    ],
)
def test_a_wrong_upload_is_named(api: httpx.Client, query: str, body: bytes, status: int, code: str) -> None:
    """What is wrong with a batch as a whole has its own status and code."""
    answer = api.post(f"/v1/batches?{query}", content=body, headers=NDJSON)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_limits_of_an_upload_hold_while_it_streams(start_api: Any, store: SyncStore) -> None:
    """Too many items or bytes answer 413, also without a length told beforehand, and leave nothing."""
    api = start_api(
        DSPY_JOBS_LIMITS_ITEMS_PER_BATCH="1000",
        DSPY_JOBS_LIMITS_BATCH_BYTES="100000",
        DSPY_JOBS_LIMITS_ITEM_BYTES="9000",
    )

    def stream(size: int) -> Iterator[bytes]:
        yield from (lines([{"inputs": {"question": "x" * size}}]) for _ in range(1200))

    for size in (1, 8000):
        answer = api.post("/v1/batches?program=qa", content=stream(size), headers=NDJSON)
        assert (answer.status_code, answer.json()["code"]) == (413, "payload_too_large")
    assert wait_until(lambda: keys_of_jobs(store) == [], 5)


def test_an_abandoned_upload_leaves_nothing(api: httpx.Client, store: SyncStore) -> None:
    """When the client goes away in the middle, what was staged is discarded."""
    with socket.create_connection((api.base_url.host, api.base_url.port or 80)) as client:
        head = "POST /v1/batches?program=qa HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-ndjson\r\n"
        client.sendall(f"{head}content-length: 99999999\r\n\r\n".encode() + lines(map(item, range(3000))))
        assert wait_until(lambda: store.redis.zcard(names.STAGING) == 1, 10), "nothing was staged"
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert wait_until(lambda: keys_of_jobs(store) == [], 10)


def test_results_come_in_order_of_completion_with_a_durable_cursor(api: httpx.Client, worker: PlayedWorker) -> None:
    """Reading on from each cursor gives every result once, in the order in which they were done."""
    batch = submit(api, 6)
    ids = worker.jobs_of(batch["id"])
    worker.succeed_all([ids[4], ids[1]])
    first, headers = results(api, batch)
    assert [job["custom_id"] for job in first] == ["c4", "c1"]
    assert headers["x-incomplete"] == "true"
    assert "urls" not in first[0]
    worker.fail(ids[0])
    worker.succeed_all([ids[5], ids[2], ids[3]])
    second, headers = results(api, batch, after=headers["x-next-cursor"], limit=3)
    assert [job["custom_id"] for job in second] == ["c0", "c5", "c2"]
    assert second[0]["error"]["code"] == "program_error"
    assert headers["x-incomplete"] == "true"
    third, headers = results(api, batch, after=headers["x-next-cursor"])
    assert [job["custom_id"] for job in third] == ["c3"]
    assert "x-incomplete" not in headers
    assert results(api, batch, after=headers["x-next-cursor"])[0] == []
    failed, _ = results(api, batch, status="failed", limit=1)
    assert [job["custom_id"] for job in failed] == ["c0"]


def test_a_cursor_of_another_batch_is_refused(api: httpx.Client, worker: PlayedWorker) -> None:
    """A mix-up would skip results silently; nor does a position exist that no answer ever gave."""
    one, other = submit(api, 2), submit(api, 2)
    worker.succeed_all(worker.jobs_of(one["id"]))
    cursor = results(api, one)[1]["x-next-cursor"]
    forged = cursor.replace("r2-", "r3-")
    for batch, wrong in ((other, cursor), (one, forged)):
        answer = api.get(f"/v1/batches/{batch['id']}/results", params={"after": wrong})
        assert (answer.status_code, answer.json()["errors"][0]["param"]) == (400, "after")


def test_the_answer_to_a_bad_upload_stays_small(api: httpx.Client) -> None:
    """However long the caller's own texts and however many the mistakes, the answer names the first, shortened."""
    lines = [orjson.dumps({"inputs": {"question": "q"}, "k" * 100_000 + str(n): 1}) for n in range(120)]
    upload = api.post("/v1/batches?program=qa", content=b"\n".join(lines), headers=NDJSON)
    single = api.post("/v1/jobs", json={f"field{n}": n for n in range(5000)})
    unknown = api.post("/v1/jobs", json={"program": "q" * 100_000, "inputs": {}})
    assert [answer.status_code for answer in (upload, single, unknown)] == [422] * 3
    assert (len(upload.json()["errors"]), upload.json()["error_count"]) == (100, 120)
    assert all(len(answer.content) < 100_000 for answer in (upload, single, unknown))


def test_results_in_order_of_input_wait_for_the_end(api: httpx.Client, worker: PlayedWorker) -> None:
    """order=input is refused while the batch runs and pages through all jobs afterwards, erased ones left out."""
    batch = submit(api, 5)
    ids = worker.jobs_of(batch["id"])
    assert api.get(f"/v1/batches/{batch['id']}/results?order=input").status_code == 409
    worker.succeed_all(reversed(ids))
    assert api.delete(f"/v1/jobs/{ids[1]}").status_code == 204
    page, headers = results(api, batch, order="input", limit=2)
    rest, _ = results(api, batch, order="input", after=headers["x-next-cursor"])
    assert [job["custom_id"] for job in page + rest] == ["c0", "c2", "c3", "c4"]


def test_a_batch_that_ends_wakes_who_waits(api: httpx.Client, worker: PlayedWorker) -> None:
    """GET with `Prefer: wait` answers when the last job is done, with counts, usage and cost."""
    batch = submit(api, 3)
    ids = worker.jobs_of(batch["id"])
    thread = threading.Thread(target=worker.succeed_all, args=(ids,))
    thread.start()
    done = api.get(f"/v1/batches/{batch['id']}", headers={"prefer": "wait=20"}).json()
    thread.join()
    assert (done["status"], done["ended_reason"], done["counts"]["succeeded"]) == ("ended", "completed", 3)
    assert (done["usage"]["input_tokens"], done["cost_usd"], done["eta_seconds"]) == (30, 0.0000045, 0)


def test_pause_and_resume(api: httpx.Client, worker: PlayedWorker, store: SyncStore) -> None:
    """A paused batch parks what workers meet; resumed, every job has a message again."""
    batch = submit(api, 3)
    path, ids = f"/v1/batches/{batch['id']}", worker.jobs_of(batch["id"])
    paused = api.post(f"{path}/pause").json()
    assert (paused["status"], paused["wait_reason"]) == ("paused", "paused")
    assert store.run(take_jobs("someone", ids)) == []
    assert api.get(f"/v1/jobs/{ids[0]}").json()["wait_reason"] == "paused"
    assert api.post(f"{path}/resume").json()["status"] == "in_progress"
    worker.succeed_all(ids)
    assert read(api, batch)["status"] == "ended"
    assert {api.post(f"{path}/{move}").status_code for move in ("pause", "resume", "cancel")} == {409}


def test_cancel_and_retry(api: httpx.Client, worker: PlayedWorker) -> None:
    """Cancel spares what is done; retry queues again what fits and never what succeeded."""
    batch = submit(api, 1200)
    path, ids = f"/v1/batches/{batch['id']}", worker.jobs_of(batch["id"])
    worker.succeed(ids[0])
    worker.fail(ids[1])
    assert api.post(f"{path}/cancel").status_code == 202
    assert wait_until(lambda: read(api, batch)["status"] == "ended", 10)
    ended = read(api, batch)
    assert (ended["ended_reason"], ended["counts"]["canceled"], ended["counts"]["succeeded"]) == ("canceled", 1198, 1)
    retried = api.post(f"{path}/retry", json={"status": "canceled", "custom_ids": ["c5", "c0"]})
    assert (retried.status_code, retried.json()) == (202, {"requeued": 1})
    assert api.post(f"{path}/retry", json={"custom_ids": ["c0"]}).status_code == 409
    assert api.post(f"{path}/retry", json={"colour": "red"}).status_code == 422
    worker.succeed(ids[5])
    assert [job["custom_id"] for job in results(api, batch, status="succeeded")[0]] == ["c0", "c5"]
    assert api.post(f"{path}/retry").json() == {"requeued": 1198}
    worker.succeed_all(ids[6:])
    assert len(results(api, batch)[0]) == 1200 - 4, "the entries of retried jobs count once"


def test_a_listing_pages_through_the_newest_first(api: httpx.Client, worker: PlayedWorker) -> None:
    """Pages of matching batches join to the whole, newest first."""
    batches = [submit(api, 1)["id"] for _ in range(5)]
    worker.succeed_all(worker.jobs_of(batches[2]))
    first = api.get("/v1/batches", params={"limit": 3, "status": "in_progress"}).json()
    second = api.get("/v1/batches", params={"limit": 3, "status": "in_progress", "after": first["next"]}).json()
    found = [batch["id"] for batch in first["data"] + second["data"]]
    assert found == [batch for batch in reversed(batches) if batch != batches[2]]
    assert (first["has_more"], second["has_more"]) == (True, False)
