"""`Idempotency-Key` over HTTP: a request is carried out once, however often and however unluckily it is sent."""

from __future__ import annotations

import hashlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from dspy_jobs import names
from dspy_jobs.ids import new_batch_id, new_job_id
from dspy_jobs.store import SyncStore
from dspy_jobs.store.idempotency import KeyState, reserve_key, settle_key
from dspy_jobs.store.operations import BatchHead, Lifetimes, commit_batch, stage_items, submit_job
from dspy_jobs.waiting import wait_until
from tests.integration.conftest import StartApi
from tests.integration.played_worker import MODEL, PlayedWorker

QUESTION = {"program": "qa", "inputs": {"question": "why?"}}
LINES = b'{"inputs":{"question":"a"}}\n{"inputs":{"question":"b"}}\n'
NDJSON = "application/x-ndjson"
TIMES = Lifetimes(86_400_000, 86_400_000, 86_400_000)
KEY = {"idempotency-key": "k-1"}
DAY = 86_400


def ask(api: httpx.Client, key: str = "k-1", path: str = "/v1/jobs", **more: Any) -> httpx.Response:
    """Submit a question under a key."""
    return api.post(path, json={**QUESTION, **more}, headers={"idempotency-key": key})


def upload(api: httpx.Client, content: Any = LINES, query: str = "program=qa") -> httpx.Response:
    """Upload lines under a key."""
    return api.post(f"/v1/batches?{query}", content=content, headers={**KEY, "content-type": NDJSON})


def queued(store: SyncStore) -> int:
    """How many jobs are queued in all."""
    return int(store.redis.hget(names.TOTALS, "queued") or 0)


def redis_key(route: str, key: str = "k-1") -> str:
    """Where a key is kept."""
    return names.idempotency(hashlib.sha256(orjson.dumps(["default", "POST", route, key])).hexdigest())


def fingerprint(path: str, query: str, media: str, body: bytes) -> str:
    """The fingerprint of a request."""
    return hashlib.sha256(orjson.dumps(["POST", path, query, media]) + body).hexdigest()


def replayed(answer: httpx.Response) -> bool:
    """Whether the answer says that it is one of before."""
    return answer.headers.get("idempotency-replayed") == "true"


def reserve(store: SyncStore, route: str, print_: str, new_id: str, holder: str = "dead", lock: float = 1) -> KeyState:
    """Take a key as a process would that is not heard of any more; its lock has run out long ago."""
    return store.run(reserve_key(redis_key(route), print_, holder, lock, DAY, new_id, now_ms=1_000_000))


@pytest.fixture
def submissions(api: httpx.Client) -> dict[str, Callable[[], httpx.Response]]:
    """The three ways to submit, under one key."""
    batch = {"program": "qa", "items": [{"inputs": {"question": "a"}}, {"inputs": {"question": "b"}}]}
    return {
        "job": lambda: ask(api),
        "json": lambda: api.post("/v1/batches", json=batch, headers=KEY),
        "ndjson": lambda: upload(api),
    }


@pytest.mark.parametrize(("kind", "jobs"), [("job", 1), ("json", 2), ("ndjson", 2)])
def test_a_repeat_gets_the_first_answer(submissions: Any, store: SyncStore, kind: str, jobs: int) -> None:
    """Status, body and Location are those of the first answer, a header says so, and nothing is queued again."""
    first, second, third = (submissions[kind]() for _ in range(3))
    assert first.status_code == 202, first.text
    assert [replayed(answer) for answer in (first, second, third)] == [False, True, True]
    assert first.content == second.content == third.content
    for header in ("location", "retry-after", "content-type", "content-length"):
        assert first.headers[header] == second.headers[header]
    assert first.headers["x-request-id"] != second.headers["x-request-id"]
    assert queued(store) == jobs


def test_an_estimate_ignores_the_key(api: httpx.Client, store: SyncStore) -> None:
    """It stores nothing, and the key is free for the batch itself, whatever was estimated under it."""
    before = sorted(store.redis.keys())
    for content in (LINES, LINES * 2):
        estimate = upload(api, content, "program=qa&dry_run=true")
        assert (estimate.status_code, replayed(estimate)) == (200, False), estimate.text
        assert estimate.json()["valid"] == content.count(b"\n")
    assert sorted(store.redis.keys()) == before
    wrong = upload(api, query="program=qa&dry_run=maybe")
    assert (wrong.status_code, wrong.json()["code"]) == (400, "invalid_parameter")
    assert upload(api, query="program=qa&dry_run=false").status_code == 202
    assert queued(store) == 2


def test_a_key_is_kept_for_a_day(api: httpx.Client, store: SyncStore) -> None:
    """Keys with and without an answer end a day after their first use, as `GET /v1/limits` says."""
    ask(api)
    reserve(store, "/v1/predict", "", new_job_id())
    assert api.get("/v1/limits").json()["idempotency_seconds"] == DAY
    kept = list(store.redis.scan_iter(names.idempotency("*")))
    assert len(kept) == 2
    assert all(DAY - 60 < int(store.redis.ttl(key)) <= DAY for key in kept)


def test_the_time_a_key_is_kept_can_be_set(start_api: StartApi, store: SyncStore) -> None:
    """When the configured time is over, the key is a new one."""
    api = start_api(DSPY_JOBS_JOBS_IDEMPOTENCY_SECONDS="100")
    first = ask(api)
    assert 40 < int(store.redis.ttl(redis_key("/v1/jobs"))) <= 100
    store.redis.pexpire(redis_key("/v1/jobs"), 1)
    assert wait_until(lambda: not store.redis.exists(redis_key("/v1/jobs")), 10)
    assert ask(api).json()["id"] != first.json()["id"]


def test_another_request_with_the_key_is_refused(api: httpx.Client, store: SyncStore) -> None:
    """422 for another body, another content type and another query, and nothing is queued."""
    ask(api)
    upload(api)
    others = [
        ask(api, custom_id="x"),
        ask(api, nonsense="x"),
        api.post("/v1/jobs", content=b"{}", headers={**KEY, "content-type": NDJSON}),
        upload(api, LINES + LINES),
        upload(api, query="program=predict"),
        api.post("/v1/batches", json={"program": "qa", "items": [{"inputs": {"question": "a"}}]}, headers=KEY),
    ]
    assert [answer.status_code for answer in others] == [422] * len(others)
    assert {answer.json()["code"] for answer in others} == {"idempotency_mismatch"}
    assert not any(answer.json()["retryable"] for answer in others)
    assert queued(store) == 3
    assert not store.redis.exists(names.STAGING)


def test_a_key_belongs_to_a_route(api: httpx.Client) -> None:
    """The same key on another route is another key; on another job of the same route it is a mismatch."""
    first, second = ask(api).json()["id"], ask(api, key="k-2").json()["id"]
    assert api.post(f"/v1/jobs/{first}/cancel", headers=KEY).status_code == 200
    assert api.post(f"/v1/jobs/{first}/retry", headers=KEY).status_code == 202
    wrong = api.post(f"/v1/jobs/{second}/cancel", headers=KEY)
    assert (wrong.status_code, wrong.json()["code"]) == (422, "idempotency_mismatch")


def test_many_at_once_make_one_job(api: httpx.Client, store: SyncStore) -> None:
    """Of fifty concurrent submits one queues the job; the others get its answer or are asked to come again."""
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: ask(api), range(50)))
    busy = [answer for answer in answers if answer.status_code == 409]
    assert {(a.json()["code"], a.headers["retry-after"]) for a in busy} <= {("idempotency_in_flight", "1")}
    done = [answer for answer in answers if answer.status_code == 202]
    assert len(done) + len(busy) == 50
    assert len({answer.json()["id"] for answer in done}) == 1
    assert sum(not replayed(answer) for answer in done) == 1
    assert queued(store) == 1


def test_many_uploads_at_once_make_one_batch(api: httpx.Client, store: SyncStore) -> None:
    """Concurrent uploads under one key are one batch."""
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda _: upload(api, LINES * 500), range(10)))
    assert {answer.status_code for answer in answers} <= {202, 409}
    assert len({answer.json()["id"] for answer in answers if answer.status_code == 202}) == 1
    assert queued(store) == 1000


def test_a_repeat_while_the_first_is_under_way_is_asked_to_come_again(
    api: httpx.Client, store: SyncStore, worker: PlayedWorker
) -> None:
    """409 with Retry-After while a prediction waits; afterwards the same job answers, and only one was made."""
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(ask, api, path="/v1/predict")
        assert wait_until(lambda: queued(store) == 1, 10)
        again = ask(api, path="/v1/predict")
        assert (again.status_code, again.json()["code"]) == (409, "idempotency_in_flight")
        assert (again.headers["retry-after"], again.json()["retryable"]) == ("1", True)
        [job_id] = (raw.decode() for raw in store.redis.zrange(names.JOBS, 0, -1))
        worker.succeed(job_id)
        done = first.result()
    repeat = ask(api, path="/v1/predict")
    assert (done.status_code, repeat.status_code, replayed(done), replayed(repeat)) == (200, 200, False, True)
    assert done.content == repeat.content
    assert repeat.json()["id"] == job_id
    assert store.redis.zcard(names.JOBS) == 1


def test_a_repeated_prediction_waits_for_the_same_job(
    api: httpx.Client, store: SyncStore, worker: PlayedWorker
) -> None:
    """After a wait that ran out a repeat waits for the job it made, and gets its end, also a failure."""
    hurried = {**KEY, "prefer": "wait=1"}
    first = api.post("/v1/predict", json=QUESTION, headers=hurried)
    assert first.status_code == 202
    worker.fail(first.json()["id"])
    for _ in range(2):
        repeat = ask(api, path="/v1/predict")
        assert (repeat.status_code, repeat.json()["job_id"], replayed(repeat)) == (500, first.json()["id"], True)
    assert store.redis.zcard(names.JOBS) == 1


@pytest.mark.parametrize("created", [True, False])
@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/predict"])
def test_a_submit_whose_process_died_is_repeated_safely(
    api: httpx.Client, store: SyncStore, worker: PlayedWorker, path: str, created: bool
) -> None:
    """Whether it died before or after the job was queued: the repeat answers with the id reserved, and one job is."""
    body, job_id = orjson.dumps(QUESTION), new_job_id()
    print_ = fingerprint(path, "", "application/json", body)
    assert reserve(store, path, print_, job_id).what == "reserved"
    if created:
        record = orjson.dumps({"inputs": QUESTION["inputs"], "program_version": "v1", "request_id": "r"})
        fields = {"program": "qa", "model": MODEL, "max_attempts": 5}
        store.run(submit_job(job_id, record, names.queue(MODEL), 3, fields, TIMES, 100))
    headers = {**KEY, "content-type": "application/json", "prefer": "wait=1"}
    other = api.post(path, content=body + b" ", headers=headers)
    assert other.json()["code"] == "idempotency_mismatch"
    for _ in range(3):
        answer = api.post(path, content=body, headers=headers)
        assert (answer.status_code, answer.json()["id"]) == (202, job_id)
    assert queued(store) == 1
    assert store.redis.zcard(names.JOBS) == 1
    worker.succeed(job_id)


def _head(batch_id: str) -> BatchHead:
    return BatchHead(batch_id, names.queue(MODEL), 6, "qa", MODEL, 5, TIMES)


@pytest.mark.parametrize("how", ["committed", "sealed", "cut"])
def test_an_upload_whose_process_died_is_repeated_safely(
    api: httpx.Client, store: SyncStore, worker: PlayedWorker, how: str
) -> None:
    """A committed batch answers the repeat; of one that was not, what was staged is discarded and it is made anew."""
    batch_id, route = new_batch_id(), "/v1/batches"
    print_ = fingerprint(route, "program=qa", NDJSON, LINES)
    reserve(store, route, "", batch_id)
    staged = [(new_job_id(), b'{"inputs":{"question":"a"}}') for _ in range(2 if how != "cut" else 1)]
    store.run(stage_items(_head(batch_id), staged))
    if how != "cut":
        reserve(store, route, print_, batch_id)
    if how == "committed":
        shared = orjson.dumps({"program_version": "v1", "request_id": "r"})
        assert store.run(commit_batch(_head(batch_id), shared, 2, 100))[0] == "accepted"
    if how != "cut":
        assert upload(api, LINES + LINES).json()["code"] == "idempotency_mismatch"
    first, second = upload(api), upload(api)
    assert (first.status_code, second.status_code) == (202, 202), first.text
    assert first.json()["id"] == second.json()["id"]
    assert (replayed(first), replayed(second)) == (how == "committed", True)
    assert (first.json()["id"] == batch_id) == (how == "committed")
    assert queued(store) == len(worker.jobs_of(first.json()["id"])) == 2
    assert store.redis.zcard(names.BATCHES) == 1
    if how != "committed":
        late = store.run(commit_batch(_head(batch_id), b"{}", len(staged), 100))
        assert late[0] == "lost", "one that was only thought dead can no longer commit"
        assert wait_until(lambda: not any(store.redis.exists(names.job(job_id)) for job_id, _ in staged), 10)
        assert wait_until(lambda: not store.redis.exists(names.STAGING), 10)


def test_an_upload_that_was_overtaken_creates_nothing(api: httpx.Client, store: SyncStore) -> None:
    """Who lost the key while the upload went on is told so instead of committing a second batch."""
    began, go_on = threading.Event(), threading.Event()

    def slowly() -> Iterator[bytes]:
        yield LINES
        began.set()
        assert go_on.wait(20)
        yield LINES

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(upload, api, slowly())
        assert began.wait(20)
        key = redis_key("/v1/batches")
        assert wait_until(lambda: bool(store.redis.exists(key)), 10)
        store.redis.hset(key, "holder", "another")
        go_on.set()
        answer = first.result()
    assert (answer.status_code, answer.json()["code"]) == (409, "idempotency_in_flight")
    assert queued(store) == 0
    assert wait_until(lambda: not store.redis.exists(names.STAGING), 10)


def test_a_killed_process_leaves_its_keys_to_others(start_api: StartApi, store: SyncStore) -> None:
    """Killed while it waits for the job's end, a submit is repeated at another process once the lock ran out."""
    doomed = start_api()
    threading.Thread(target=_kill_when_queued, args=(store, int(doomed.headers["x-test-pid"]))).start()
    with pytest.raises(httpx.TransportError):
        doomed.post("/v1/jobs", json=QUESTION, headers={**KEY, "prefer": "wait=30"})
    other = start_api()
    answers: list[httpx.Response] = []

    def answered() -> bool:
        answers.append(ask(other))
        return answers[-1].status_code == 202

    assert wait_until(answered, 40)
    assert answers[0].json().get("code") == "idempotency_in_flight"
    assert replayed(answers[-1])
    assert queued(store) == 1


def _kill_when_queued(store: SyncStore, process: int) -> None:
    wait_until(lambda: queued(store) == 1, 20)
    os.kill(process, signal.SIGKILL)


def test_refusals_and_failures_leave_the_key_free(start_api: StartApi, store: SyncStore, tmp_path: Path) -> None:
    """After 400, 422, 429 and 503 the key can be used again, for the same request and for a corrected one."""
    config = tmp_path / "dspy-jobs.toml"
    config.write_text(f'[models.{MODEL}]\nmodel = "openai/x"\n[programs.later]\nsignature = "question -> answer"\n')
    api = start_api(DSPY_JOBS_LIMITS_QUEUED_JOBS="1", DSPY_JOBS_CONFIG=str(config))
    malformed = api.post("/v1/jobs", content=b"{", headers={**KEY, "content-type": "application/json"})
    assert malformed.status_code == 400
    assert upload(api, b'{"inputs":{}}\n').status_code == 422
    assert ask(api, inputs={"qestion": "?"}).status_code == 422
    assert api.post("/v1/jobs", json={**QUESTION, "program": "later"}, headers=KEY).status_code == 503
    store.redis.hset(names.TOTALS, "queued", 1)
    assert ask(api).status_code == 429
    assert upload(api).status_code == 429
    assert not list(store.redis.scan_iter(names.idempotency("*")))
    store.redis.hset(names.TOTALS, "queued", 0)
    answer = ask(api)
    assert (answer.status_code, replayed(answer)) == (202, False)


def test_redis_failing_frees_the_key_for_the_same_request(api: httpx.Client, store: SyncStore) -> None:
    """503 while Redis is full; when there is room again the repeat is carried out."""
    store.redis.config_set("maxmemory", "1")
    try:
        assert ask(api).status_code == 503
    finally:
        store.redis.config_set("maxmemory", "0")
    answer = ask(api)
    assert (answer.status_code, replayed(answer)) == (202, False)
    assert queued(store) == 1


def test_what_state_forbade_is_kept(api: httpx.Client, worker: PlayedWorker) -> None:
    """A 404 and a 409 are answers like any other: they are replayed."""
    missing = [api.post("/v1/jobs/job_none/cancel", headers=KEY) for _ in range(2)]
    job_id = ask(api).json()["id"]
    worker.succeed(job_id)
    forbidden = [api.post(f"/v1/jobs/{job_id}/retry", headers=KEY) for _ in range(2)]
    for status, (first, second) in ((404, missing), (409, forbidden)):
        assert (first.status_code, second.status_code) == (status, status)
        assert first.content == second.content
        assert second.headers["content-type"] == "application/problem+json"
        assert (replayed(first), replayed(second)) == (False, True)


def test_changes_are_carried_out_once(api: httpx.Client, worker: PlayedWorker) -> None:
    """A replayed cancel, pause, resume or retry changes nothing a second time."""
    batch = upload(api).json()["id"]
    queue = names.queue(MODEL)
    for path in (f"/v1/batches/{batch}/pause", f"/v1/queues/{queue}/pause"):
        kind = path.rpartition("/")[0]
        first = api.post(path, headers=KEY)
        assert first.status_code == 200
        api.post(f"{kind}/resume")
        assert (api.post(path, headers=KEY).content, replayed(api.post(path, headers=KEY))) == (first.content, True)
        assert api.post(f"{kind}/resume", headers=KEY).status_code == 200
    assert api.get(f"/v1/batches/{batch}").json()["status"] == "in_progress"
    for job_id in worker.jobs_of(batch):
        worker.fail(job_id)
    retry = f"/v1/batches/{batch}/retry"
    answers = [api.post(retry, json={"status": "failed"}, headers=KEY) for _ in range(2)]
    assert [(a.status_code, a.json()) for a in answers] == [(202, {"requeued": 2})] * 2
    assert api.post(retry, json={"status": "canceled"}, headers=KEY).json()["code"] == "idempotency_mismatch"
    assert api.post(f"/v1/batches/{batch}/cancel", headers=KEY).status_code == 202


def test_a_large_answer_is_made_anew(api: httpx.Client, store: SyncStore, worker: PlayedWorker) -> None:
    """Of an answer with a large output only the id is kept; a repeat shows the same job."""
    headers = {**KEY, "prefer": "wait=20"}
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(api.post, "/v1/jobs", json=QUESTION, headers=headers)
        assert wait_until(lambda: queued(store) == 1, 10)
        [job_id] = (raw.decode() for raw in store.redis.zrange(names.JOBS, 0, -1))
        worker.succeed(job_id, "x" * 200_000)
        answer = first.result()
    repeat = api.post("/v1/jobs", json=QUESTION, headers=headers)
    assert answer.content == repeat.content
    assert len(repeat.content) > 200_000
    assert replayed(repeat)
    assert int(store.redis.memory_usage(redis_key("/v1/jobs"))) < 2000


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "caf\xe9"])
def test_an_unfit_key_is_named(api: httpx.Client, store: SyncStore, key: str) -> None:
    """400 that names the header; nothing is queued."""
    answer = api.post("/v1/jobs", json=QUESTION, headers={"idempotency-key": key.encode("latin-1")})  # type: ignore[dict-item]
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_parameter")
    assert "Idempotency-Key" in answer.json()["detail"]
    assert queued(store) == 0


def test_two_keys_are_refused_and_the_longest_is_taken(api: httpx.Client) -> None:
    """The header given twice is no key; 255 characters are one."""
    twice = api.post("/v1/jobs", json=QUESTION, headers=[("idempotency-key", "a"), ("idempotency-key", "b")])
    assert twice.status_code == 400
    assert ask(api, key='!"' + "~" * 253).status_code == 202


def test_the_document_describes_it(api: httpx.Client) -> None:
    """Every POST takes the header and answers with the other; the problems have their place."""
    document = api.get("/openapi.json").json()
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            named = {parameter["name"] for parameter in operation.get("parameters", ())}
            assert ("Idempotency-Key" in named) == (method == "post"), path
            if method == "post":
                answers = operation["responses"]
                assert "idempotency_mismatch" in answers["422"]["content"]["application/problem+json"]["examples"]
                assert "idempotency_in_flight" in answers["409"]["content"]["application/problem+json"]["examples"]
                assert all("Idempotency-Replayed" in answer["headers"] for answer in answers.values())


def test_a_lock_lasts_as_long_as_its_holder_is_heard_of(store: SyncStore) -> None:
    """A holder prolongs its lock; silent past its end it loses the key, and can neither settle nor go on."""
    key, lock, job_id = redis_key("/v1/jobs"), 10, new_job_id()

    def take(holder: str, now: int, new_id: str = "job_other") -> KeyState:
        return store.run(reserve_key(key, "p", holder, lock, DAY, new_id, now_ms=now))

    assert take("one", 0, job_id).what == "reserved"
    assert take("one", 9_000).what == "reserved"
    assert take("two", 18_000).what == "in_flight"
    taken = take("two", 19_001)
    assert (taken.what, taken.id) == ("reserved", job_id)
    assert take("one", 19_002).what == "in_flight"
    assert store.run(settle_key(key, "one", b"late")) == 0
    assert store.run(settle_key(key, "two", b"answer")) == 1
    assert take("one", 19_003).answer == b"answer"


def test_what_may_be_on_its_way_keeps_the_key(store: SyncStore) -> None:
    """A holder that is not sure keeps id and request; one that is sure, and created nothing, frees all of it."""
    key, job_id = redis_key("/v1/jobs"), new_job_id()
    store.run(reserve_key(key, "p", "one", 10, DAY, job_id))
    store.run(settle_key(key, "one", sure=False))
    assert store.run(reserve_key(key, "q", "two", 10, DAY, new_job_id())).what == "mismatch"
    assert store.run(reserve_key(key, "p", "two", 10, DAY, new_job_id())).id == job_id
    store.run(settle_key(key, "two"))
    assert not store.redis.exists(key)
