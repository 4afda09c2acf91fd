"""Metrics as they are made: few series whatever is asked for or stands in Redis, and no family twice."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Iterable, Iterator

import httpx
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from api.app import ROUTES, create_app
from api.metrics import Merged, written
from api.metrics.budgets import BudgetCollector
from api.metrics.labels import MOST_EXPECTED, Labels, expected
from api.metrics.ledger import LedgerCollector
from api.metrics.memory import MemoryCollector
from api.metrics.workers import MeasuresCollector, expected_fields
from api.own_metrics import OwnMetrics
from dspy_jobs.counted import Work, counted
from dspy_jobs.measures import CACHE_USES
from dspy_jobs.problems import CODES
from dspy_jobs.settings import Settings
from dspy_jobs.store.counted import Spending
from worker.response_cache import CacheCounts

#: Each metric's samples by their labels' values, in the order of the labels' names.
Samples = dict[tuple[str, ...], float]


def samples(families: Iterable[Metric]) -> Samples:
    """Every sample of some families."""
    return {(s.name, *(s.labels[k] for k in sorted(s.labels))): s.value for f in families for s in f.samples}


# ---- bounds ----------------------------------------------------------------------------------------------------

KNOWN = ("model m", "program p", "program p|a")


def test_whatever_stands_in_redis_the_number_of_series_is_bounded() -> None:
    """Names that nobody configured, and codes that nobody knows, are summed up as `other`."""
    folded = {b"m|a|p|jobs": b"5", b"m|a|p|failed": b"2", b"error|m|server": b"2", b"recovered|dspy.m": b"4"}
    for number in range(500):
        name = f"x{number}".encode()
        folded |= {b"%s|%s|%s|jobs" % (name, name, name): b"1", b"m|%s|p|jobs" % name: b"1"}
        folded |= {b"m||%s|canceled" % name: b"1", b"%s||p|expired" % name: b"1", b"error|m|%s" % name: b"1"}
        folded |= {b"error|%s|server" % name: b"1", b"attempts|%s|retried" % name: b"1"}
        folded |= {b"attempts|m|%s" % name: b"1", b"recovered|%s" % name: b"1", b"recovered|dspy.%s" % name: b"1"}
    found = list(LedgerCollector(counted(folded, ()), Labels(KNOWN), ["m"], ()).collect())
    assert {value for family in found for s in family.samples for value in s.labels.values()} <= {
        "m", "p", "a", "", "other", "dspy.m", "succeeded", "failed", "canceled", "expired", "server", "retried",
        "fell_back", "recovered", "input", "output", "cached_input", "reasoning", "flight", "coalesced", *CODES,
    }  # fmt: skip
    assert sum(len(family.samples) for family in found) < 100 + len(CODES)
    by_name = samples(found)
    assert by_name["dspy_predictions_total", "m", "p", "succeeded", "a"] == 3
    assert by_name["dspy_predictions_total", "other", "other", "succeeded", "other"] == 500
    assert by_name["dspy_predictions_total", "m", "p", "succeeded", "other"] == 500
    assert by_name["dspy_errors_total", "other", "m"] == 500
    assert by_name["dspy_errors_total", "server", "m"] == 2
    assert by_name["dspy_recovered_jobs_total", "other"] == 1000
    assert by_name["dspy_attempts_total", "m", "other"] == 500


def test_every_code_and_name_of_ours_is_shown_as_it_is() -> None:
    """`other` is for nothing that we know."""
    labels = Labels(KNOWN)
    assert [labels.code(code) for code in CODES] == list(CODES)
    assert labels.work(Work("p", "m", "a")) == ("p", "m", "a")
    assert labels.work(Work("p", "m", "")) == ("p", "m", "")
    assert labels.work(Work("q", "m", "a")) == ("other", "m", "other")


def test_what_may_happen_is_shown_before_it_does() -> None:
    """Else the first failure would be no increase of anything."""
    found = samples(LedgerCollector(counted({}, ()), Labels(KNOWN), ["m"], [Work("p", "m", "a")]).collect())
    assert set(found.values()) == {0}
    assert {name for name, *_ in found} == {
        "dspy_predictions_total", "dspy_prediction_cost_total", "dspy_unpriced_calls_total", "dspy_token_usage_total",
        "dspy_cache_operations_total", "dspy_attempts_total", "dspy_recovered_jobs_total", "dspy_errors_total",
    }  # fmt: skip
    assert {code for name, code, *_ in found if name == "dspy_errors_total"} == set(CODES)


def configured(programs: int, models: int) -> Settings:
    """So many programs, the first of them in two variants, and models beside the default one."""
    names = [f"p{number}" for number in range(programs)]
    program = {"signature": "question -> answer"}
    split = {"variants": {"a": {}, "b": {"model": "m1"}}}
    return Settings.model_validate(
        {
            "default_model": "m0",
            "models": {f"m{number}": {"model": "openai/x"} for number in range(models)},
            "programs": {name: program | (split if name == "p0" else {}) for name in names},
        }
    )


def test_every_program_may_run_on_every_model() -> None:
    """A caller may ask for any, and fallbacks go to others; a program's own come first."""
    found = expected(configured(2, 2), ())
    assert found.work[:3] == [("p0", "m0", "a"), ("p0", "m1", "b"), ("p1", "m0", "")]
    assert set(found.work) == {(p, m, v) for m in ("m0", "m1") for p, v in (("p0", "a"), ("p0", "b"), ("p1", ""))}
    assert found.models == ["m0", "m1"]


def test_what_is_shown_from_the_start_is_bounded() -> None:
    """Many programs on many models would be too many series; what programs run unless asked otherwise is among them."""
    many = expected(configured(200, 60), ())
    labels = Labels([f"model {name}" for name in many.models] + [f"program {w.program}" for w in many.work])
    families = [
        *LedgerCollector(counted({}, ()), labels, many.models, many.work).collect(),
        *MeasuresCollector(dict.fromkeys(expected_fields(many), 0)).collect(),
    ]
    assert {family.name for family in families if len(family.samples) > MOST_EXPECTED} == set()
    found = samples(families)
    assert all(("dspy_predictions_total", "m0", f"p{n}", "failed", "") in found for n in range(1, 200))
    assert ("dspy_errors_total", "server", "m0") in found


def test_everything_the_cache_may_do_is_expected() -> None:
    """As workers count it."""
    assert set(CACHE_USES) == CacheCounts().operations().keys()


@pytest.fixture(scope="module")
def own_metrics() -> OwnMetrics:
    """What was counted of many requests, most of them wrong; none needs Redis."""
    app = create_app(Settings())

    async def ask() -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://api") as client:
            for number in range(100):
                await client.get(f"/nothing/{number}")
                await client.get(f"/problems/code{number}")
                await client.request(f"BREW{number}", "/health/live")
            for code in CODES:
                await client.get(f"/problems/{code}")
            await client.post("/health/live")
            await client.get("/openapi.json")

    asyncio.run(ask())
    metrics: OwnMetrics = app.state.own_metrics
    return metrics


def test_requests_are_told_apart_by_the_templates_of_routes(own_metrics: OwnMetrics) -> None:
    """Never by what a caller makes up: neither a path nor a method is a series of its own."""
    found = samples(own_metrics.collect())
    requests = {tuple(labels): value for (name, *labels), value in found.items() if name == "dspy_http_requests_total"}
    assert requests == {
        ("GET", "other", "404"): 100,
        ("GET", "/problems/{code}", "404"): 100,
        ("GET", "/problems/{code}", "200"): len(CODES),
        ("other", "/health/live", "405"): 100,
        ("POST", "/health/live", "405"): 1,
        ("GET", "/openapi.json", "200"): 1,
    }
    timed = {tuple(k[1:]): v for k, v in found.items() if k[0] == "dspy_http_request_duration_seconds_count"}
    assert timed == requests
    assert {path for _, path, _ in ROUTES} >= {"/health/live", "/problems/{code}"}


def test_a_request_that_nobody_waits_for_is_counted(own_metrics: OwnMetrics) -> None:
    """Its caller went away before an answer began."""
    own_metrics.count_request("GET", "other", 0, 0.1)
    assert samples(own_metrics.collect())["dspy_http_requests_total", "GET", "other", "499"] == 1


def test_the_process_tells_of_itself(own_metrics: OwnMetrics) -> None:
    """Memory, processor time, garbage; no time of creation, which would double the series."""
    own_metrics.redis_durations.observe(0.002)
    found = samples(own_metrics.collect())
    assert found["process_resident_memory_bytes",] > 0
    assert found["process_cpu_seconds_total",] > 0
    assert found["dspy_redis_duration_seconds_count", "api"] >= 1
    assert any(name == "python_gc_collections_total" for name, *_ in found)
    assert not [name for name, *_ in found if name.endswith("_created")]


# ---- together --------------------------------------------------------------------------------------------------


class _Of(Collector):
    def __init__(self, level: str) -> None:
        self._level = level

    def collect(self) -> Iterator[Metric]:
        family = CounterMetricFamily("dspy_cache_operations", "Uses.", labels=["level"])
        family.add_metric([self._level], 1)
        yield family


def test_a_family_of_several_sources_is_shown_once() -> None:
    """With everybody's samples: Prometheus refuses a family that comes twice."""
    registry = CollectorRegistry()
    registry.register(Merged([_Of("flight"), _Of("redis")]))
    for _ in range(2):
        (family,) = registry.collect()
        assert [sample.labels["level"] for sample in family.samples] == ["flight", "redis"]


def test_other_requests_need_not_wait_for_the_text_of_metrics() -> None:
    """It is made in another thread than theirs."""
    threads = []

    class Noting(_Of):
        def collect(self) -> Iterator[Metric]:
            threads.append(threading.get_ident())
            return super().collect()

    answer = asyncio.run(written([Noting("flight")], "text/plain"))
    assert b'dspy_cache_operations_total{level="flight"} 1.0' in answer.body
    assert threads
    assert threading.get_ident() not in threads


# ---- gauges ----------------------------------------------------------------------------------------------------


def budgets(limits: dict[str, int], **day: float) -> Samples:
    """What is shown of budgets, with so much spent today."""
    spent = {name.replace("all", "*"): int(amount * 10**9) for name, amount in day.items()}
    nanos = {name: limit * 10**9 for name, limit in limits.items()}
    return samples(BudgetCollector(Spending(nanos, {"day": spent, "month": {}})).collect())


def test_without_budgets_only_what_is_spent_is_shown() -> None:
    """Of a budget that does not exist nothing can be near its end."""
    assert budgets({"limits": 0, "kept": 5}, all=3) == {
        ("dspy_budget_spent_usd", "day", "all"): 3,
        ("dspy_budget_spent_usd", "month", "all"): 0,
    }


def test_of_clients_the_one_nearest_to_its_budget_is_shown() -> None:
    """By the share that is spent, without its name; one that may spend nothing is the nearest."""
    limits = {"day *": 10, "day a": 4, "day b": 2, "month a": 9}
    found = budgets(limits, all=5, a=2, b=1.5)
    assert (found["dspy_budget_spent_usd", "day", "client"], found["dspy_budget_limit_usd", "day", "client"]) == (
        1.5,
        2,
    )
    assert (found["dspy_budget_spent_usd", "day", "all"], found["dspy_budget_limit_usd", "day", "all"]) == (5, 10)
    assert found["dspy_budget_limit_usd", "month", "client"] == 9
    assert ("dspy_budget_limit_usd", "month", "all") not in found
    assert budgets(limits | {"day c": 0}, b=2)["dspy_budget_limit_usd", "day", "client"] == 0


def test_memory_that_nobody_tells_of_has_no_sample() -> None:
    """A zero would read as an empty Redis."""
    found = samples(MemoryCollector({"queue": (5, 0), "cache": None}).collect())
    assert found == {("dspy_redis_memory_bytes", "queue"): 5, ("dspy_redis_memory_limit_bytes", "queue"): 0}


def test_open_books_are_added_to_what_is_folded() -> None:
    """Of all days, clients summed up."""
    books = [{b"m|a|p|x|jobs": b"1", b"m|a|p|y|jobs": b"2"}, {b"m|a|p|x|jobs": b"4"}]
    found = counted({b"m|a|p|jobs": b"8", b"m||p|cost": b"9"}, books)
    assert found.of_work == {Work("p", "m", "a"): Counter(jobs=15), Work("p", "m", ""): Counter(cost=9)}
