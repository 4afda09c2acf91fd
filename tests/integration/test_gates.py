"""What says "not now" for a queue: circuits, rate limits, pauses; and what flows on, or somewhere else, meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from dspy_jobs import names
from dspy_jobs.chores import rare_chores
from dspy_jobs.settings import BreakerSettings, Settings
from dspy_jobs.states import WaitReason
from dspy_jobs.store import SyncStore, gates, operations
from dspy_jobs.store.records import Gate
from dspy_jobs.waiting import wait_until
from tests.integration.test_worker_attempts import Bench

BREAKER = BreakerSettings(failure_threshold=4, failure_rate=0.5, window_seconds=10, reset_seconds=5)
QUEUE = names.queue("m")


def report(store: SyncStore, successes: int, faults: int, now: int, **more: Any) -> gates.FleetCircuit:
    """Report calls of model `m` at a time."""
    return store.run(gates.report_calls("m", BREAKER, successes, faults, now_ms=now, **more))


def gate(store: SyncStore, now: int) -> str | None:
    """Why the queue of model `m` is closed."""
    found = store.run(operations.read_queues([QUEUE], now_ms=now))[0].gate
    return found.reason if found else None


@pytest.mark.parametrize(
    ("calls", "opens"),
    [
        ([(0, 1)] * 4, True),  # nothing but faults
        ([(0, 1)] * 3, False),  # too few
        ([(1, 1)] * 4, True),  # half of all: consecutive counting would never see it
        ([(3, 1)] * 8, False),  # a quarter
        ([(100, 0), (0, 1), (0, 1), (0, 1), (0, 1)], False),  # enough of them, but rare
    ],
)
def test_a_circuit_opens_by_rate_over_a_window(store: SyncStore, calls: list[tuple[int, int]], opens: bool) -> None:
    """Enough faults that are also a large enough share of the window's calls open the circuit and close the queue."""
    verdicts = [report(store, good, bad, 1000 + i) for i, (good, bad) in enumerate(calls)]
    assert verdicts[-1].is_open is opens
    assert gate(store, 2000) == ("circuit_open" if opens else None)


def test_old_calls_leave_the_window(store: SyncStore) -> None:
    """Faults older than the window no longer count."""
    for i in range(3):
        report(store, 0, 1, 1000 + i)
    assert not report(store, 0, 1, 1000 + 12_000).is_open


def test_a_refused_account_opens_at_once(store: SyncStore) -> None:
    """One authentication or billing failure is enough."""
    assert report(store, 0, 1, 1000, fatal=True).is_open


def test_the_circuit_closes_after_a_probe(store: SyncStore) -> None:
    """Only the probe's success closes it; calls that began before it opened change nothing."""
    report(store, 0, 1, 1000, fatal=True)
    store.redis.set(names.circuit_probe("m"), "job_p", ex=60)
    assert report(store, 5, 0, 7000).is_open
    assert not report(store, 1, 0, 7001, probe="job_p").is_open
    assert gate(store, 7002) is None


def test_a_failed_probe_opens_it_for_as_long_again(store: SyncStore) -> None:
    """The reset time starts anew with a probe's fault."""
    report(store, 0, 1, 1000, fatal=True)
    store.redis.set(names.circuit_probe("m"), "job_p", ex=60)
    assert report(store, 0, 1, 7000, probe="job_p") == gates.FleetCircuit(True, 5.0)


def rest(store: SyncStore, now: int) -> int:
    """Close what nobody probes, at a time."""
    return store.run(gates.rest_circuits({"m": BREAKER, "other": BREAKER}, now_ms=now))


def test_a_circuit_that_nobody_probes_closes_by_itself(store: SyncStore) -> None:
    """A window after its time was over, unless a job is there to probe: else it would be half-open until the next."""
    report(store, 0, 1, 1000, fatal=True)
    assert rest(store, 15_999) == 0
    for jobs in ("queued", "running"):
        store.redis.hset(names.queue_numbers(QUEUE), jobs, 1)
        assert rest(store, 99_000) == 0
        store.redis.hset(names.queue_numbers(QUEUE), jobs, 0)
    assert gate(store, 99_000) == "circuit_open"
    assert rest(store, 16_000) == 1
    assert gate(store, 16_000) is None
    assert not report(store, 0, 1, 16_001).is_open
    assert rest(store, 99_000) == 0


def test_housekeeping_closes_circuits_that_nobody_probes(store: SyncStore) -> None:
    """Whoever keeps house does, for every configured model."""
    settings = Settings.model_validate({"models": {"m": {"model": "openai/x"}}, "default_model": "m"})
    store.run(gates.report_calls("m", settings.models["m"].breaker, 0, 1, fatal=True, now_ms=1000))
    store.follow(rare_chores(settings, 1000))
    assert not store.redis.exists(names.circuit("m"))


@pytest.fixture
def bench(write_config: Callable[..., Settings], store: SyncStore, sandbox_url: str) -> Bench:
    """A worker over models that fail in several ways."""
    models = {
        "down": ("sandbox-down", 'breaker = {failure_threshold = 2, reset_seconds = 0.3}\nfallbacks = ["sandbox"]'),
        "lonely": ("sandbox-down", "breaker = {failure_threshold = 2, reset_seconds = 0.3}"),
        "healing": ("sandbox;first=2:500", "breaker = {failure_threshold = 2, reset_seconds = 0.3}"),
        "full": ("sandbox;fail=429:1;retry_after=3", ""),
        "metered": ("sandbox", "requests_per_minute = 2"),
        "narrow": ("sandbox;latency=0.5", "max_concurrent = 2"),
    }
    text = "".join(
        f'[models.{name}]\nmodel = "openai/{model}"\nbase_url = "{sandbox_url}/v1"\n{more}\n'
        for name, (model, more) in models.items()
    )
    return Bench(write_config(text + '[programs.qa]\nsignature = "question -> answer"\n'), store)


def run(bench: Bench, model: str, question: str = "q", **more: Any) -> Any:
    """Run one job of a model."""
    return bench.run("qa", model=model, inputs={"question": question}, max_attempts=9, **more)


def test_an_open_circuit_leaves_jobs_queued_with_the_reason(bench: Bench) -> None:
    """Once the circuit is open no attempt is made, and the job says why it waits and until when."""
    for n in range(2):
        run(bench, "lonely", f"q{n}")
    job_id = bench.submit("qa", model="lonely", inputs={"question": "later"})
    bench.chunks.run([job_id])
    job = bench.read(job_id)
    assert job.status == "queued"
    assert "attempt" not in job.fields
    assert job.gate is not None
    assert job.gate.reason == "circuit_open"
    assert not bench.chunks.gates.may_consume(names.queue("lonely"))


def test_half_open_lets_one_probe_through(bench: Bench) -> None:
    """When the reset time is over exactly one of many claims becomes the probe."""
    for n in range(2):
        run(bench, "lonely", f"q{n}")
    ids = [bench.submit("qa", model="lonely", inputs={"question": f"p{n}"}) for n in range(8)]
    assert wait_until(lambda: _gate_is_half_open(bench, "lonely"), 5)
    store = bench.store
    store.run(operations.take_jobs("w1", ids))
    claims = [store.run(operations.claim_job("w1", job_id, "n")) for job_id in ids]
    assert [getattr(claim, "is_probe", False) for claim in claims].count(True) == 1


def _gate_is_half_open(bench: Bench, model: str) -> bool:
    renewed = bench.store.run(operations.renew_worker("w1", 10, b"{}", [names.queue(model)]))
    return renewed.closed.get(names.queue(model), ("", 0))[0] == "half_open"


def test_the_queue_flows_again_by_itself(bench: Bench) -> None:
    """A provider that recovers closes its circuit through the next job, without anybody's help."""
    for _ in range(2):
        run(bench, "healing")
    assert wait_until(lambda: _gate_is_half_open(bench, "healing"), 5)
    bench.housekeeping.round()
    job = run(bench, "healing")
    assert job.status == "succeeded"
    assert bench.store.run(operations.read_queues([names.queue("healing")]))[0].gate is None


def test_jobs_fall_back_while_the_circuit_is_open(bench: Bench) -> None:
    """A queue whose circuit is open sends its jobs on to the fallback model's queue."""
    for n in range(2):
        run(bench, "down", f"q{n}")
    job_id = bench.submit("qa", model="down", inputs={"question": "elsewhere"})
    bench.chunks.run([job_id])
    assert bench.read(job_id).fields["model"] == "sandbox"
    bench.chunks.run([job_id])
    job = bench.read(job_id)
    assert job.status == "succeeded"
    assert job.outcome is not None
    assert job.outcome["attempt"]["model"] == "sandbox"


def test_a_job_falls_back_after_it_failed_for_good(bench: Bench) -> None:
    """A provider fault that used up all attempts goes on with the next model, and both stand in the attempts."""
    job = bench.run("qa", model="down", inputs={"question": "q"}, max_attempts=1)
    bench.store.run(operations.wake_delayed(now_ms=int(job.fields["until"])))
    bench.chunks.run([job.id])
    again = bench.read(job.id)
    assert again.status == "succeeded"
    assert again.attempts[0]["model"] == "down"
    assert bench.store.run(operations.read_queues([names.queue("down")]))[0].queued == 0


def test_a_full_provider_closes_its_queue(bench: Bench) -> None:
    """Several refusals with no answer between close the queue for as long as the provider asked; one does not."""
    run(bench, "full", "a")
    assert bench.store.run(operations.read_queues([names.queue("full")]))[0].gate is None
    run(bench, "full", "b")
    run(bench, "full", "c")
    closed = bench.store.run(operations.read_queues([names.queue("full")]))[0].gate
    assert closed is not None
    assert closed.reason == "rate_limited"


def test_configured_rates_hold_before_the_provider_refuses(bench: Bench) -> None:
    """The third call within the minute is not made; its job waits as rate-limited and counts no try."""
    assert [run(bench, "metered", f"q{n}").status for n in range(3)] == ["succeeded", "succeeded", "queued"]
    job = bench.read(bench.submit("qa", model="metered", inputs={"question": "next"}))
    assert job.gate is not None
    assert job.gate.reason == "rate_limited"


def test_max_concurrent_bounds_the_fleet(bench: Bench) -> None:
    """No more jobs of a model run at once than configured; whoever has run one goes on with the next message."""
    bench.store.redis.hset(names.queue_numbers(names.queue("narrow")), "most", "2")
    ids = [bench.submit("qa", model="narrow", inputs={"question": f"q{n}"}) for n in range(5)]
    threads = [threading.Thread(target=bench.chunks.run, args=([job_id],)) for job_id in ids]
    for thread in threads:
        thread.start()
    seen = set()
    while any(thread.is_alive() for thread in threads):
        seen.add(bench.store.run(operations.read_queues([names.queue("narrow")]))[0].running)
    assert max(seen) == 2
    assert {bench.read(job_id).status for job_id in ids} == {"succeeded"}


def test_a_full_model_says_so(bench: Bench) -> None:
    """While as many jobs run as may, the others show why they wait."""
    bench.store.redis.hset(names.queue_numbers(names.queue("narrow")), "most", "1")
    running, waiting = (bench.submit("qa", model="narrow", inputs={"question": f"q{n}"}) for n in range(2))
    thread = threading.Thread(target=bench.chunks.run, args=([running],))
    thread.start()
    assert wait_until(lambda: bench.read(running).status == "running", 10)
    assert bench.read(waiting).gate == Gate("rate_limited", None)
    thread.join()
    assert bench.read(waiting).gate is None


def test_a_paused_queue_runs_nothing_until_resumed(bench: Bench) -> None:
    """An operator's pause has no end of its own and keeps jobs queued; resuming lets them run."""
    queue = names.queue("sandbox")
    bench.store.run(gates.close_gate(queue, WaitReason.PAUSED))
    job_id = bench.submit("qa", inputs={"question": "q"})
    bench.chunks.run([job_id])
    job = bench.read(job_id)
    assert job.gate is not None
    assert (job.status, job.gate.reason, job.gate.until) == ("queued", "paused", None)
    bench.store.run(gates.open_gate(queue, WaitReason.PAUSED))
    bench.chunks.run([job_id])
    assert bench.read(job_id).status == "succeeded"
