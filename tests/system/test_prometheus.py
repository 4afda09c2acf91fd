"""A real Prometheus scrapes a running stack: every query of the dashboards gives data, every alert's metrics exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import promql_parser
import pytest
import redis
import yaml
from prometheus_server import PrometheusServer, running_prometheus
from stack_process import BOUND, REPOSITORY, environ_for, running_stack

from dspy_jobs.waiting import wait_until
from ops.grafana.dashboards import DASHBOARDS
from tests.system.autoscaler_process import SCALED_OBJECT
from tests.system.own_redis import OwnRedis

pytestmark = [pytest.mark.system, pytest.mark.slow]

QUERIES = {
    (dashboard.uid, panel.title, expression): expression
    for dashboard in DASHBOARDS
    for panel in dashboard.panels
    for expression, _ in panel.queries
    if not panel.nothing
}
RULES = yaml.safe_load((REPOSITORY / "ops" / "prometheus-rules.yml").read_text())
ALERTS = [rule for group in RULES["groups"] for rule in group["rules"]]

#: Of kube-state-metrics.
OF_KUBERNETES = {"kube_deployment_spec_replicas", "kube_deployment_status_replicas_ready"}

CONFIG = """
default_model = "sandbox"
[models.sandbox]
model = "openai/sandbox"
base_url = "http://127.0.0.1:${DSPY_JOBS_SANDBOX_PORT}/v1"
input_cost_per_1k = 0.0001
output_cost_per_1k = 0.0004
fallbacks = []
[models.down]
model = "openai/sandbox-down"
base_url = "http://127.0.0.1:${DSPY_JOBS_SANDBOX_PORT}/v1"
[programs.qa]
signature = "question -> answer"
[budgets]
day_usd = 100
month_usd = 1000
"""


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrometheusServer]:
    """A Prometheus over a stack that ends jobs well, badly and from its cache all the time."""
    folder = tmp_path_factory.mktemp("prometheus")
    (folder / "dspy-jobs.toml").write_text(CONFIG)
    (folder / "scaledobject.yaml").write_text(SCALED_OBJECT.replace("$target", "128").replace("$max", "1"))
    (folder / "redis").mkdir()
    server = OwnRedis(folder / "redis")
    redis.Redis.from_url(server.url).config_set("maxmemory", "1gb")
    environ = environ_for(
        folder / "data",
        DSPY_JOBS_CONFIG=str(folder / "dspy-jobs.toml"),
        DSPY_JOBS_AUTOSCALER_SCALED_OBJECT=str(folder / "scaledobject.yaml"),
        REDIS_URL=server.url,
        PYTHONPATH=str(REPOSITORY),
    )
    with running_stack(environ, "--autoscale", "--min", "0", "--no-flower") as stack:
        ready = stack.wait_for("ready")
        places = {"dspy-jobs-api": ready["api"], "dspy-jobs-autoscaler": ready["metrics"]}
        targets = {job: [urlsplit(place).netloc] for job, place in places.items()}
        with stack.client() as client, running_prometheus(folder, targets) as prometheus:
            _use(client)
            assert wait_until(lambda: _scraped(prometheus), BOUND, every=0.2)
            _use(client)
            yield prometheus
    server.end()


def _use(client: httpx.Client) -> None:
    """Jobs that succeed, the same again from the cache, and jobs that fail."""
    for _ in range(2):
        _run(client, [{"inputs": {"question": f"Question {n}?"}} for n in range(4)], model="sandbox")
    _run(client, [{"inputs": {"question": f"Question {n}?"}} for n in range(4)], model="down", max_attempts=1)


def _run(client: httpx.Client, items: list[dict[str, Any]], **batch: Any) -> None:
    accepted = client.post("/v1/batches", json={"program": "qa", "items": items, **batch})
    assert accepted.status_code == 202, accepted.text
    address = accepted.headers["location"]
    assert wait_until(lambda: client.get(address).json()["status"] == "ended", BOUND, every=0.1), client.get(
        address
    ).text


def _scraped(prometheus: PrometheusServer) -> bool:
    return bool(prometheus.query("dspy_predictions_total{status='failed'} > 0"))


def _metrics(node: Any) -> Iterator[str]:
    if isinstance(node, promql_parser.VectorSelector):
        yield node.name
    for part in ("expr", "lhs", "rhs", "vector_selector", "args"):
        inner = getattr(node, part, None)
        for child in inner if isinstance(inner, list) else [inner] if inner is not None else []:
            yield from _metrics(child)


def test_every_query_of_the_dashboards_gives_data(prometheus: PrometheusServer) -> None:
    """Nobody opens a dashboard at night and finds an empty panel because a name was misspelt."""

    def empty() -> list[tuple[str, str, str]]:
        return [place for place, expression in QUERIES.items() if not prometheus.query(expression)]

    assert wait_until(lambda: not empty(), BOUND, every=0.5), empty()


def test_every_alert_asks_for_metrics_there_are(prometheus: PrometheusServer) -> None:
    """All rules are loaded, and each metric in them is one that is scraped, or kube-state-metrics', absent here."""
    assert sorted(prometheus.alerts()) == sorted(alert["alert"] for alert in ALERTS)
    known = prometheus.names()
    asked = {alert["alert"]: set(_metrics(promql_parser.parse(alert["expr"]))) for alert in ALERTS}
    assert all(asked.values())
    assert {name: missing for name, metrics in asked.items() if (missing := metrics - known - OF_KUBERNETES)} == {}


def test_every_target_is_up(prometheus: PrometheusServer) -> None:
    """The shipped configuration finds its jobs' metrics where they are."""
    assert set(prometheus.targets().values()) == {"up"}


def test_the_page_tells_of_every_metric_and_of_no_other(prometheus: PrometheusServer) -> None:
    """docs/monitoring.md is what an operator reads at night; only workers' own ports are not scraped here."""
    page = (REPOSITORY / "docs" / "monitoring.md").read_text().partition("## Metrics")[2].partition("## Dashboards")[0]
    told = {name for name in re.findall(r"`((?:dspy|keda)_\w+)`", page) if not _is_of_a_worker(name)}
    names = [name for name in prometheus.names() if re.match(r"(dspy|keda)_(?!.*_created$)", name)]
    scraped = {re.sub(r"_(bucket|sum|count)$", "", name) for name in names}
    assert told == scraped


def _is_of_a_worker(name: str) -> bool:
    return name.startswith("dspy_worker_") and name != "dspy_worker_slots"
