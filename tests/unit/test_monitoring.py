"""Alerts and the dashboard ask for metrics that somebody exports."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import promql_parser
import pytest
import yaml

from api.metrics import DemandCollector
from autoscaler.gauges import Gauges
from autoscaler.scaled_object import read_scaled_object
from dspy_jobs.demand import QueueLoad, demand_of
from dspy_jobs.settings import Settings
from tests.cluster import named
from tests.conftest import ROOT

RULES = yaml.safe_load((ROOT / "ops" / "prometheus-rules.yml").read_text())
DASHBOARD = json.loads((ROOT / "ops" / "grafana" / "dspy-jobs.json").read_text())
ALERTS = [rule for group in RULES["groups"] for rule in group["rules"]]
QUERIES = [
    *[alert["expr"] for alert in ALERTS],
    *[target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]],
]
#: What Prometheus adds by itself.
OF_PROMETHEUS = {"up"}


@pytest.fixture(scope="module")
def exported() -> set[str]:
    """Names of all samples that the API and the autoscaler export."""
    demand = demand_of([QueueLoad("dspy.gpt", service_seconds=1.0, samples=100, waiting=1)], [], Settings())
    gauges = Gauges(read_scaled_object((ROOT / "k8s" / "worker-scaledobject.yaml").read_text()))
    families = [*DemandCollector(demand).collect(), *gauges.registry.collect()]
    counters = {f"{family.name}_total" for family in families if family.type == "counter"}
    return {family.name for family in families} | counters


def _names(node: Any) -> Iterator[str]:
    if isinstance(node, promql_parser.VectorSelector):
        yield node.name
    for part in ("expr", "lhs", "rhs", "vector_selector", "args"):
        inner = getattr(node, part, None)
        for child in inner if isinstance(inner, list) else [inner] if inner is not None else []:
            yield from _names(child)


def _metrics(query: str) -> set[str]:
    """Metrics a query asks for; raises ValueError where it is no PromQL."""
    return set(_names(promql_parser.parse(query)))


@pytest.mark.parametrize("query", QUERIES)
def test_every_query_asks_for_what_is_exported(query: str, exported: set[str]) -> None:
    """Each expression is PromQL, and each metric in it exists."""
    asked = _metrics(query)
    assert asked
    assert asked <= exported | OF_PROMETHEUS


def test_a_query_that_is_wrong_is_found() -> None:
    """The parser refuses what is no PromQL, and finds names at any depth."""
    with pytest.raises(ValueError, match=r"."):
        promql_parser.parse("max(dspy_autoscaler_work")
    assert _metrics("sum by (a) (increase(one_total[5m])) > 5 and max(two) == 0") == {"one_total", "two"}


def test_the_cluster_has_the_same_alerts() -> None:
    """The Prometheus operator's object holds the groups of the plain file, word for word."""
    assert named("PrometheusRule", "dspy-jobs")["spec"] == RULES


def test_every_alert_says_what_to_think_of_it() -> None:
    """Alerts have a severity, a summary and a description, and unique names."""
    assert all({"summary", "description"} == alert["annotations"].keys() for alert in ALERTS)
    assert all(alert["labels"]["severity"] in ("warning", "critical") for alert in ALERTS)
    assert len({alert["alert"] for alert in ALERTS}) == len(ALERTS)


def test_the_dashboard_uses_the_provisioned_source() -> None:
    """Its panels do not overlap, have titles, and take their numbers from the data source that is provisioned."""
    (source,) = yaml.safe_load((ROOT / "ops" / "grafana" / "datasource.yml").read_text())["datasources"]
    assert {panel["datasource"]["uid"] for panel in DASHBOARD["panels"]} == {source["uid"]}
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in DASHBOARD["panels"]}
    assert len(places) == len(DASHBOARD["panels"])
    assert all(panel["title"] for panel in DASHBOARD["panels"])
