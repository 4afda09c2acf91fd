"""What the fleet is scaled on, over HTTP: jobs that a worker could do something about, and never a zero on error."""

from __future__ import annotations

import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families

from dspy_jobs import names
from dspy_jobs.demand import MIN_SAMPLES
from dspy_jobs.messages import job_ids
from dspy_jobs.redis_server import embedded_redis
from dspy_jobs.redis_url import embedded_socket
from dspy_jobs.settings import BreakerSettings
from dspy_jobs.states import Priority, WaitReason
from dspy_jobs.store import SyncStore, gates
from dspy_jobs.store.demand import read_outstanding
from dspy_jobs.store.flights import Flight
from dspy_jobs.store.operations import claim_job, renew_worker, take_jobs
from dspy_jobs.store.records import NotClaimed
from dspy_jobs.waiting import wait_until
from tests.integration.conftest import StartApi, running_api
from tests.integration.played_worker import MODEL, PlayedWorker
from tests.integration.store_scene import QUEUE as SCENE_QUEUE
from tests.integration.store_scene import Scene

QUEUE = names.queue(MODEL)
#: The id of the worker played by hand.
WORKER = "played-worker"
HOUR = 3600.0


def submit(api: httpx.Client, count: int = 1) -> list[str]:
    """Submit jobs."""
    job = {"program": "qa", "inputs": {"question": "why?"}}
    return [api.post("/v1/jobs", json=job).json()["id"] for _ in range(count)]


def submit_batch(api: httpx.Client, count: int) -> str:
    """Submit a batch."""
    batch = {"program": "qa", "items": [{"inputs": {"question": f"q{n}"}} for n in range(count)]}
    return str(api.post("/v1/batches", json=batch).json()["id"])


def demand(api: httpx.Client) -> dict[str, Any]:
    """The demand as it is now."""
    answer = api.get("/v1/autoscale")
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def counts(api: httpx.Client) -> tuple[int, int, int]:
    """Jobs that wait, that run, and that draining workers run."""
    found = demand(api)
    return found["waiting"], found["inflight"], found["draining"]


def test_an_idle_service_asks_for_nothing(api: httpx.Client) -> None:
    """No jobs, no work; what a worker would take at once is known all the same."""
    found = demand(api)
    assert (found["work"], found["work_slots"], found["waiting"], found["inflight"]) == (0, 0, 0, 0)
    assert (found["oldest_wait_seconds"], found["service_seconds"]) == (0, None)
    assert found["concurrency"] > 0
    assert found["queues"][QUEUE]["gate"] == {"open": True, "reason": None, "until": None}


def test_jobs_are_counted_and_not_messages(api: httpx.Client, worker: PlayedWorker, store: SyncStore) -> None:
    """A message of many jobs counts as many, also after a worker has taken it, until each of them runs or ends."""
    worker.appear(concurrency=1)
    submit_batch(api, 10)
    assert wait_until(lambda: counts(api) == (10, 0, 0), 10)
    (message,) = store.redis.lrange(names.queue_list(QUEUE, Priority.LOW.step), 0, -1)
    ids = job_ids(message)
    store.run(take_jobs(WORKER, ids))
    assert counts(api) == (10, 0, 0)
    worker.start(ids[0])
    assert counts(api) == (9, 1, 0)
    worker.succeed(ids[1])
    assert counts(api) == (8, 1, 0)


def test_work_weighs_depth_by_service_time(api: httpx.Client, worker: PlayedWorker, store: SyncStore) -> None:
    """Unknown times count in full; known ones by their share of the wait target, until a job is overdue."""
    ids = submit(api, MIN_SAMPLES + 40)
    worker.succeed_all(ids[: MIN_SAMPLES - 1])
    found = demand(api)
    assert (found["service_seconds"], found["work_slots"], found["work"]) == (None, 41, pytest.approx(41 / 0.8))
    worker.succeed(ids[MIN_SAMPLES - 1])
    assert demand(api)["service_seconds"] is not None
    store.redis.hset(names.queue_numbers(QUEUE), "service_ms", "6000")
    found = demand(api)
    assert (found["service_seconds"], found["work_slots"], found["work"]) == (6, 4, 5)
    waiting = names.queue_waiting(QUEUE, Priority.NORMAL.step)
    store.redis.zadd(waiting, {ids[-1]: time.time() * 1000 - 61_000}, xx=True)
    found = demand(api)
    assert found["oldest_wait_seconds"] >= 61
    assert (found["work_slots"], found["queues"][QUEUE]["work_slots"]) == (40, 40)


def test_what_waits_behind_a_closed_gate_is_no_demand(api: httpx.Client, worker: PlayedWorker) -> None:
    """Pausing a queue leaves only what runs; resuming brings the rest back."""
    running, *_ = submit(api, 4)
    worker.start(running)
    assert counts(api) == (3, 1, 0)
    assert api.post(f"/v1/queues/{QUEUE}/pause").status_code == 200
    assert counts(api) == (0, 1, 0)
    queue = demand(api)["queues"][QUEUE]
    assert (queue["waiting"], queue["queued"], queue["gate"]["reason"]) == (0, 3, "paused")
    api.post(f"/v1/queues/{QUEUE}/resume")
    assert counts(api) == (3, 1, 0)


def test_a_half_open_circuit_asks_for_one_probe(api: httpx.Client, worker: PlayedWorker, store: SyncStore) -> None:
    """An open circuit asks for nothing, a half-open one for a single job, and for none beside its probe."""
    job_id, *_ = submit(api, 3)
    past = time.time_ns() // 1_000_000 - 600_000
    store.run(gates.report_calls(MODEL, BreakerSettings(reset_seconds=HOUR), 0, 1, fatal=True))
    assert counts(api) == (0, 0, 0)
    store.run(gates.open_gate(QUEUE, WaitReason.CIRCUIT_OPEN))
    store.run(gates.report_calls(MODEL, BreakerSettings(reset_seconds=60), 0, 1, fatal=True, now_ms=past))
    assert counts(api) == (1, 0, 0)
    worker.start(job_id)
    assert counts(api) == (0, 1, 0)


def test_jobs_of_a_paused_batch_are_no_demand(api: httpx.Client, store: SyncStore) -> None:
    """Neither before a worker has met them nor once they are parked; what waits beside is. Resuming changes it."""
    batch_id = submit_batch(api, 3)
    assert wait_until(lambda: counts(api) == (3, 0, 0), 10)
    ids = [job_id.decode() for job_id in store.redis.lrange(names.batch_jobs(batch_id), 0, -1)]
    api.post(f"/v1/batches/{batch_id}/pause")
    assert counts(api) == (0, 0, 0)
    submit(api)
    assert counts(api) == (1, 0, 0)
    store.run(take_jobs(WORKER, ids[:2]))
    assert counts(api) == (1, 0, 0)
    assert demand(api)["queues"][QUEUE]["queued"] == 4
    api.post(f"/v1/batches/{batch_id}/resume")
    assert wait_until(lambda: counts(api) == (4, 0, 0), 10)


def test_a_delayed_job_is_no_demand(api: httpx.Client, worker: PlayedWorker) -> None:
    """A worker could do nothing for it before its time."""
    (job_id,) = submit(api)
    worker.fail_for_now(job_id, HOUR)
    found = demand(api)
    assert (found["waiting"], found["work"], found["queues"][QUEUE]["queued"]) == (0, 0, 1)


def test_a_follower_is_no_demand(api: httpx.Client, worker: PlayedWorker, store: SyncStore) -> None:
    """It waits for an equal job's answer, not for a worker; when the leader fails it does."""
    leader, follower = submit(api, 2)
    flight = Flight("f" * 40, may_follow=True, may_lead=True)
    store.run(take_jobs(WORKER, [leader, follower]))
    claim = store.run(claim_job(WORKER, leader, "n1", flight=flight))
    refused = store.run(claim_job(WORKER, follower, "n2", flight=flight))
    assert isinstance(refused, NotClaimed)
    assert (refused.reason, counts(api)) == ("following", (0, 1, 0))
    assert not isinstance(claim, NotClaimed)
    worker.end_failed(claim, "program_error")
    assert counts(api) == (1, 0, 0)


def test_a_draining_worker_is_no_capacity(api: httpx.Client, worker: PlayedWorker, store: SyncStore) -> None:
    """What it runs to the end needs no other worker; what it holds without having started will."""
    running, held = submit(api, 2)
    store.run(take_jobs(WORKER, [running, held]))
    worker.start(running)
    said = orjson.dumps({"id": WORKER, "concurrency": 4, "running": 1, "draining": True})
    store.run(renew_worker(WORKER, 60, said, []))
    assert counts(api) == (1, 0, 1)
    worker.succeed(held)
    found = demand(api)
    assert (found["work"], found["draining"], found["queues"][QUEUE]["inflight"]) == (0, 1, 1)


def test_the_configuration_bounds_the_demand(start_api: StartApi, store: SyncStore) -> None:
    """Headroom, wait target and provider slots are the operator's; jobs of a narrow model are few at once."""
    api = start_api(DSPY_JOBS_AUTOSCALER_PROVIDER_SLOTS="6", DSPY_JOBS_AUTOSCALER_TARGET_UTILIZATION="0.5")
    submit(api, 8)
    assert (demand(api)["work_slots"], demand(api)["work"]) == (6, 12)
    store.redis.hset(names.queue_numbers(QUEUE), "most", "2")
    found = demand(api)
    assert (found["waiting"], found["work_slots"], found["queues"][QUEUE]["max_concurrent"]) == (8, 2, 2)


def samples(api: httpx.Client) -> dict[tuple[str, ...], float]:
    """Every sample of `/metrics`, by its name and its labels' values."""
    answer = api.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    families = text_string_to_metric_families(answer.text)
    return {(s.name, *(s.labels[k] for k in sorted(s.labels))): s.value for family in families for s in family.samples}


def test_prometheus_reads_the_same_numbers(api: httpx.Client, worker: PlayedWorker) -> None:
    """The demand and each queue as gauges; what is not known has no sample, a closed gate says why."""
    running, *_ = submit(api, 3)
    worker.start(running)
    found = samples(api)
    fleet = {"work": 3 / 0.8, "work_slots": 3, "waiting_jobs": 2, "inflight_jobs": 1, "draining_jobs": 0}
    assert {name: found[f"dspy_autoscaler_{name}",] for name in fleet} == pytest.approx(fleet)
    assert found["dspy_autoscaler_oldest_wait_seconds",] >= 0
    assert ("dspy_autoscaler_service_seconds",) not in found
    assert [found[f"dspy_queue_{name}", QUEUE] for name in ("depth", "waiting", "running")] == [2, 2, 1]
    assert found["dspy_queue_oldest_wait_seconds", QUEUE] >= 0
    assert found["dspy_queue_gate_open", QUEUE, ""] == 1
    api.post(f"/v1/queues/{QUEUE}/pause")
    found = samples(api)
    assert found["dspy_queue_gate_open", QUEUE, "paused"] == 0
    assert [found[f"dspy_queue_{name}", QUEUE] for name in ("depth", "waiting")] == [2, 0]


def test_openmetrics_is_given_where_asked_for(api: httpx.Client) -> None:
    """Prometheus itself prefers it."""
    answer = api.get("/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert answer.text.endswith("# EOF\n")


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder short enough for a socket's path."""
    with tempfile.TemporaryDirectory(prefix="dj-") as folder:
        yield Path(folder)


def test_nothing_is_claimed_of_a_redis_that_does_not_answer(home: Path) -> None:
    """While Redis stands still, before KEDA's own three seconds are over, and while it is gone.

    The demand is refused; of metrics there are the process's own, for it is up, and none of the service's.
    """
    url, paths = f"unix://{embedded_socket(home)}?db=0", ("/v1/autoscale", "/metrics")
    with running_api(url) as api:
        with embedded_redis(home) as server:
            assert wait_until(lambda: api.get("/v1/autoscale").status_code == 200, 20)
            assert samples(api)["dspy_redis_up",] == 1
            server.send_signal(signal.SIGSTOP)
            try:
                standing_still = [api.get(path, timeout=3) for path in paths]
            finally:
                server.send_signal(signal.SIGCONT)
            assert wait_until(lambda: api.get("/v1/autoscale").status_code == 200, 20)
        gone = [api.get(path, timeout=3) for path in paths]
    for demand, metrics in (standing_still, gone):
        assert (demand.status_code, demand.json()["code"]) == (503, "unavailable")
        assert int(demand.headers["retry-after"]) > 0
        assert metrics.status_code == 200
        assert "dspy_redis_up 0.0" in metrics.text
        families = {family.name for family in text_string_to_metric_families(metrics.text)}
        assert "dspy_http_requests" in families
        own = ("process_", "python_", "dspy_http_", "dspy_redis_duration", "dspy_redis_up")
        assert {name for name in families if not name.startswith(own)} == set()


def commands(store: SyncStore) -> dict[str, int]:
    """How often reading the demand made Redis run each command."""
    operation = read_outstanding([SCENE_QUEUE, "dspy.other"])
    store.run(operation)
    store.redis.config_resetstat()
    store.run(operation)
    stats = store.redis.info("commandstats")
    return {name: stat["calls"] for name, stat in stats.items() if name != "cmdstat_config|resetstat"}


def test_reading_costs_the_same_for_any_number_of_jobs(store: SyncStore) -> None:
    """Ten queued jobs or five thousand, waiting, taken or running: Redis runs the same commands."""
    scene = Scene(store)
    scene.submit()
    scene.take("w1", scene.submit())
    scene.claim("w1", scene.submit())
    scene.batch(7)
    few = commands(store)
    _, ids = scene.batch(5000)
    scene.take("w1", *ids[:1000])
    for job_id in ids[:50]:
        scene.claim("w1", job_id)
    (load, _) = store.run(read_outstanding([SCENE_QUEUE, "dspy.other"])).queues
    assert (load.waiting, load.taken, load.running) == (1 + 7 + 4000, 1 + 950, 1 + 50)
    assert commands(store) == few
