"""What workers measure, on its way through Redis to the API: counted once, and kept when they are gone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from signal import SIGCONT, SIGSTOP

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from redis.exceptions import ConnectionError as RedisConnectionError

from dspy_jobs import names
from dspy_jobs.settings import Settings
from dspy_jobs.states import WaitReason
from dspy_jobs.store import SyncStore, connect
from dspy_jobs.waiting import wait_until
from tests.integration.test_worker_attempts import Bench
from tests.system.fleet import measured
from tests.system.own_redis import OwnRedis
from worker import watchdog
from worker.condition import Condition
from worker.consumption import pulse
from worker.housekeeping import HALF_OPEN
from worker.process import whole_registry
from worker.status_server import StatusServer

CONFIG = """
[programs.qa]
signature = "question -> answer"
[programs.echo]
factory = "tests.programs:echo"
[programs.crash]
factory = "tests.programs:crash"
[worker]
lease_seconds = 60
"""
RUNS = "dspy_prediction_duration_seconds"
MakeBench = Callable[..., Bench]


@pytest.fixture
def make_bench(write_config: Callable[..., Settings], store: SyncStore) -> MakeBench:
    """Makes workers over one Redis, by their names."""
    settings = write_config(CONFIG)
    return lambda name="w1", on=None: Bench(settings, on or store, name)


@pytest.fixture
def bench(make_bench: MakeBench) -> Bench:
    """One of them."""
    return make_bench()


def echo(bench: Bench, times: int = 1) -> None:
    """Run jobs that call no model."""
    for _ in range(times):
        assert bench.run("echo", inputs={"text": "t"}, use_cache=False, cache={"mode": "off"}).status == "succeeded"


def summed(store: SyncStore) -> dict[str, int]:
    """All that has arrived."""
    return {field.decode(): int(value) for field, value in store.redis.hgetall(names.METRICS).items()}


def runs(store: SyncStore) -> int:
    """Runs of `echo` that have arrived."""
    return measured(store, f"{RUNS}|echo|sandbox")


def shown(server: httpx.Client) -> dict[tuple[str, ...], float]:
    """Samples of a process's `/metrics` by name and labels."""
    answer = server.get("/metrics")
    assert answer.status_code == 200, answer.text
    families = list(text_string_to_metric_families(answer.text))
    assert len({family.name for family in families}) == len(families), "each family once"
    return {(s.name, *(s.labels[key] for key in sorted(s.labels))): s.value for f in families for s in f.samples}


def test_the_api_shows_what_workers_measured(make_bench: MakeBench, api: httpx.Client, store: SyncStore) -> None:
    """Runs, waits, calls, round trips and uses of the cache of two workers, each sum once."""
    for name in ("w1", "w2"):
        bench = make_bench(name)
        bench.run("qa", inputs={"question": "q"})
        assert bench.run("crash", inputs={"text": "t"}).status == "failed"
        bench.housekeeping.round()
    found = shown(api)
    assert found[f"{RUNS}_count", "sandbox", "qa"] == 1, "the second was answered by the cache"
    assert found[f"{RUNS}_count", "sandbox", "crash"] == 2
    assert found["dspy_lm_call_duration_seconds_count", "sandbox", "ok"] == 1
    assert found["dspy_queue_wait_seconds_count", "sandbox"] == 3
    assert found["dspy_redis_duration_seconds_count", "worker"] > 6
    assert 0 < found["dspy_redis_duration_seconds_sum", "worker"] < 60
    used = {use: found["dspy_cache_operations_total", *use] for use in (("redis", "hit"), ("redis", "store"))}
    assert used == {("redis", "hit"): 1, ("redis", "store"): 1}
    assert store.redis.hget(names.METRICS, f"{RUNS}|crash|sandbox|+Inf") is None, "only buckets with values are kept"


def test_nothing_is_sent_when_nothing_has_happened(bench: Bench, store: SyncStore) -> None:
    """Rounds of an idle worker report nothing, and their own round trips are not measured."""
    for _ in range(3):
        bench.housekeeping.round()
    assert summed(store) == {}
    echo(bench)
    for _ in range(3):
        bench.housekeeping.round()
    assert store.redis.get(names.worker_reported("w1")) == b"1"
    assert runs(store) == 1


def test_a_lost_answer_counts_nothing_twice(bench: Bench, store: SyncStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The report is sent again as it was, and what was measured meanwhile follows."""
    run_all = SyncStore.run_all

    def cut(self: SyncStore, operations: list[object]) -> list[object]:
        run_all(self, operations)  # type: ignore[arg-type]
        raise RedisConnectionError("cut before the answer")

    echo(bench, 2)
    with monkeypatch.context() as patched, suppress(RedisConnectionError):
        patched.setattr(SyncStore, "run_all", cut)
        bench.housekeeping.round()
    assert runs(store) == 2
    echo(bench)
    bench.housekeeping.round()
    assert runs(store) == 2, "it had arrived"
    bench.housekeeping.round()
    assert runs(store) == 3
    assert store.redis.get(names.worker_reported("w1")) == b"2"


def test_what_is_measured_while_redis_is_away_comes_later(bench: Bench, store: SyncStore) -> None:
    """Nothing is lost by a round that fails."""
    client, bench.housekeeping._store = bench.housekeeping._store, SyncStore(connect("redis://127.0.0.1:1"))
    echo(bench, 2)
    with pytest.raises(RedisConnectionError):
        bench.housekeeping.round()
    echo(bench)
    bench.housekeeping.send_report()  # as before the process ends at once: it must not raise
    bench.housekeeping._store = client
    bench.housekeeping.round()
    bench.housekeeping.round()
    assert runs(store) == 3


def test_sums_outlive_the_workers(make_bench: MakeBench, store: SyncStore) -> None:
    """A worker sends its last with its farewell, and another one adds to what is there."""
    first, second = make_bench("w1"), make_bench("w2")
    for bench in (first, second):
        bench.housekeeping.start()
    echo(first, 3)
    echo(second, 2)
    first.housekeeping.end()
    assert runs(store) >= 3
    before = summed(store)
    echo(second)
    second.housekeeping.end()
    after = summed(store)
    assert runs(store) == 6
    assert all(after[field] >= value for field, value in before.items())
    assert store.redis.exists(names.worker("w1")) == 0


def test_what_is_configured_no_longer_stands_still(bench: Bench, api: httpx.Client, store: SyncStore) -> None:
    """Its sums are shown as they were; those of other bounds count from the next larger one."""
    for field, number in {"old|sandbox|3": 4, "old|sandbox|sum": 7_000_000}.items():
        store.redis.hset(names.METRICS, f"{RUNS}|{field}", number)
    echo(bench)
    bench.housekeeping.round()
    found = shown(api)
    assert found[f"{RUNS}_count", "sandbox", "old"] == 4
    assert found[f"{RUNS}_bucket", "2.5", "sandbox", "old"] == 0
    assert found[f"{RUNS}_bucket", "5.0", "sandbox", "old"] == 4
    assert found[f"{RUNS}_sum", "sandbox", "old"] == 7


@pytest.fixture
def serve() -> Iterator[Callable[[Bench], httpx.Client]]:
    """Opens workers' own ports; answers a client that waits less long than anybody waits for Redis."""
    with ExitStack() as closing:

        def open_port(bench: Bench) -> httpx.Client:
            server = StatusServer("127.0.0.1", 0)
            condition = Condition(bench.chunks, bench.housekeeping)
            server.start(whole_registry(bench.instruments.registry, condition), condition.document)
            closing.callback(server.server_close)
            closing.callback(server.shutdown)
            url = f"http://127.0.0.1:{server.address[1]}"
            return closing.enter_context(httpx.Client(base_url=url, timeout=2))

        yield open_port


@pytest.fixture
def status(bench: Bench, serve: Callable[[Bench], httpx.Client]) -> httpx.Client:
    """A client of a worker's own port."""
    return serve(bench)


def test_a_worker_shows_its_own_numbers(bench: Bench, status: httpx.Client) -> None:
    """Gauges of its state, the families of the service as far as they are its own, and those of any process."""
    bench.run("qa", inputs={"question": "q"})
    bench.run("qa", inputs={"question": "q"})
    found = shown(status)
    assert found["dspy_predictions_total", "sandbox", "qa", "succeeded", ""] == 2
    assert found[f"{RUNS}_count", "sandbox", "qa"] == 1
    assert found["dspy_token_usage_total", "sandbox", "output"] > 0
    assert found["dspy_prediction_cost_total", "sandbox", "qa", ""] > 0
    assert found["dspy_active_predictions", "sandbox"] == 0
    assert found["dspy_circuit_breaker_state", "sandbox"] == 0
    assert found["dspy_worker_threads",] == bench.settings.worker.concurrency
    assert found["dspy_worker_last_message_timestamp_seconds",] > found["process_start_time_seconds",]
    idle = ("held_jobs", "busy_threads", "stuck_threads", "draining", "lm_calls_in_flight")
    assert {name: found[f"dspy_worker_{name}",] for name in idle} == dict.fromkeys(idle, 0)


def test_what_a_worker_has_in_hand_is_seen(bench: Bench, status: httpx.Client) -> None:
    """Of a message's three jobs one runs and two wait, all three are held."""
    seen = []
    run = type(bench.chunks.runner).run

    def look(*args: object) -> object:
        found = shown(status)
        seen.append((found["dspy_worker_held_jobs",], found["dspy_active_predictions", "sandbox"]))
        return run(*args)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(type(bench.chunks.runner), "run", look)
        bench.chunks.run([bench.submit("echo", inputs={"text": str(n)}) for n in range(3)])
    assert seen == [(3, 1), (2, 1), (1, 1)]
    assert shown(status)["dspy_worker_held_jobs",] == 0


@pytest.mark.parametrize(
    ("state", "reason"),
    [("closed", ""), ("open", WaitReason.CIRCUIT_OPEN), ("half-open", HALF_OPEN)],
)
def test_circuits_are_shown_as_this_worker_has_them(
    bench: Bench, status: httpx.Client, state: str, reason: str
) -> None:
    """0 closed, 1 half-open, 2 open, as the last round has told it."""
    bench.housekeeping._follow_gates({names.queue("sandbox"): (reason, 0.0)} if reason else {})
    shown_as = {"closed": 0, "half-open": 1, "open": 2}
    assert shown(status)["dspy_circuit_breaker_state", "sandbox"] == shown_as[state]


def test_health_says_what_the_watchdog_would(
    bench: Bench, status: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A silent consumer is nothing while the worker starts or stops; in between it is 503, as are stuck threads."""
    pulse.restart()
    beat = bench.housekeeping.heartbeat
    beat.phase = "ready"
    answer = status.get("/health")
    assert answer.status_code == 200
    assert answer.json() | {"id": "w1", "phase": "ready", "consumer_alive": True, "stuck_threads": 0} == answer.json()
    monkeypatch.setattr(watchdog, "STALLED_SECONDS", -1.0)
    answer = status.get("/health")
    assert (answer.status_code, answer.json()["consumer_alive"]) == (503, False)
    assert answer.json()["reasons"] == ["the consumer no longer asks for messages"]
    for beat.phase in ("starting", "draining"):
        assert status.get("/health").status_code == 200
    monkeypatch.setattr(watchdog, "STALLED_SECONDS", 60.0)
    beat.phase, bench.chunks.stuck_threads = "ready", bench.settings.worker.concurrency
    assert status.get("/health").status_code == 503


def test_health_knows_when_housekeeping_hangs(
    bench: Bench, status: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the heartbeat's reader does: after three leases without a beat, in whatever phase."""
    monkeypatch.setattr(bench.housekeeping.heartbeat, "_good_for", -1.0)
    answer = status.get("/health")
    assert (answer.status_code, answer.json()["status"]) == (503, "unhealthy")
    monkeypatch.setattr(bench.housekeeping.heartbeat, "_good_for", 60.0)
    assert status.get("/health").status_code == 200


def test_a_redis_that_hangs_is_not_waited_for(
    write_config: Callable[..., Settings], own_redis: OwnRedis, serve: Callable[[Bench], httpx.Client]
) -> None:
    """Health and metrics come at once, sooner than any wait for Redis ends; the worker is degraded, and well again."""
    with connect(own_redis.url) as client:
        settings = write_config(CONFIG.replace("= 60", "= 2"), REDIS_URL=own_redis.url)
        bench = Bench(settings, SyncStore(client))
        status = serve(bench)
        bench.housekeeping.start()
        try:
            own_redis.signal(SIGSTOP)
            assert wait_until(lambda: status.get("/health").json()["status"] == "degraded", 20)
            answer = status.get("/health")
            assert (answer.status_code, answer.json()["lease_age_seconds"] > 2) == (200, True)
            assert shown(status)["dspy_worker_draining",] == 0
            own_redis.signal(SIGCONT)
            assert wait_until(lambda: status.get("/health").json()["status"] == "healthy", 20)
        finally:
            bench.housekeeping.end()
