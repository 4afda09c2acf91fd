"""Alerts and the dashboard ask for metrics that somebody exports."""

from __future__ import annotations

import re
import shutil
import subprocess
from urllib.parse import urlsplit

import pytest
import yaml

from api.app import ROUTES
from ops.grafana.dashboards import DASHBOARDS
from ops.grafana.files import path_of, text_of
from ops.grafana.layout import WIDTH, Dashboard
from tests.cluster import named
from tests.conftest import ROOT

RULES = yaml.safe_load((ROOT / "ops" / "prometheus-rules.yml").read_text())
TESTED = yaml.safe_load((ROOT / "tests" / "data" / "monitoring" / "rules-test.yml").read_text())
ALERTS = [rule for group in RULES["groups"] for rule in group["rules"]]
QUERIES = [
    *[alert["expr"] for alert in ALERTS],
    *[query for dashboard in DASHBOARDS for panel in dashboard.panels for query, _ in panel.queries],
]


def test_the_cluster_has_the_same_alerts() -> None:
    """The Prometheus operator's object holds the groups of the plain file, word for word."""
    assert named("PrometheusRule", "dspy-jobs")["spec"] == RULES


def test_every_alert_says_what_to_think_of_it_and_what_to_do() -> None:
    """Alerts have unique names, a severity, a summary and a description, and a section of their own in the runbook."""
    wanted = {"summary", "description", "runbook_url"}
    assert all(wanted == alert["annotations"].keys() for alert in ALERTS)
    assert all(alert["labels"]["severity"] in ("warning", "critical") for alert in ALERTS)
    assert len({alert["alert"] for alert in ALERTS}) == len(ALERTS)
    sections = set(re.findall(r"^###? (DspyJobs\w+)$", (ROOT / "docs" / "runbook.md").read_text(), re.MULTILINE))
    assert sections == {alert["alert"] for alert in ALERTS}
    for alert in ALERTS:
        assert alert["annotations"]["runbook_url"] == f"docs/runbook.md#{alert['alert'].lower()}"


def test_every_alert_fires_and_stays_silent_as_it_should() -> None:
    """Prometheus's own tool runs each rule in a case where all is well and in one where all is wrong."""
    well, wrong = ([case["alertname"] for case in test["alert_rule_test"]] for test in TESTED["tests"][:2])
    assert sorted(well) == sorted(wrong) == sorted(alert["alert"] for alert in ALERTS)
    assert not any(case["exp_alerts"] for case in TESTED["tests"][0]["alert_rule_test"])
    assert all(case["exp_alerts"] for case in TESTED["tests"][1]["alert_rule_test"])
    _promtool("check rules ops/prometheus-rules.yml")
    _promtool("test rules tests/data/monitoring/rules-test.yml")


def _promtool(arguments: str) -> str:
    if shutil.which("promtool") is None:
        pytest.skip("there is no promtool; see `make system-packages`")
    ran = subprocess.run(["promtool", *arguments.split()], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def test_prometheus_finds_its_rules_beside_its_configuration() -> None:
    """In this folder as where Compose mounts both: a name of theirs is the same in either."""
    assert f"{len(ALERTS)} rules found" in _promtool("check config ops/prometheus.yml")
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    mounted = {
        volume.partition(":")[0]: volume.split(":")[1] for volume in compose["services"]["prometheus"]["volumes"]
    }
    for name in ("prometheus.yml", "prometheus-rules.yml"):
        assert mounted[f"./ops/{name}"] == f"/etc/prometheus/{name}"


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda dashboard: dashboard.uid)
def test_a_dashboard_is_what_its_code_says(dashboard: Dashboard) -> None:
    """The file is up to date; its panels do not overlap, say what they show, and ask the source that is provisioned."""
    assert path_of(dashboard).read_text() == text_of(dashboard), "run: python -m ops.grafana"
    (source,) = yaml.safe_load((ROOT / "ops" / "grafana" / "datasource.yml").read_text())["datasources"]
    panels = dashboard.document()["panels"]
    asked = {target["datasource"]["uid"] for panel in panels for target in panel.get("targets", [])}
    assert asked == {source["uid"]}
    cells = [cell for panel in panels for cell in _cells(**panel["gridPos"])]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < WIDTH
    assert all(panel.title and panel.meaning for panel in dashboard.panels)


def _cells(x: int, y: int, w: int, h: int) -> list[tuple[int, int]]:
    return [(column, row) for column in range(x, x + w) for row in range(y, y + h)]


def test_each_dashboard_has_a_file_and_each_file_a_dashboard() -> None:
    """Nothing is left over, and no two have one address."""
    files = {path.name for path in (ROOT / "ops" / "grafana").glob("*.json")}
    assert files == {path_of(dashboard).name for dashboard in DASHBOARDS}
    assert len(files) == len(DASHBOARDS)


def test_the_first_row_says_whether_it_is_well() -> None:
    """Without a process, Redis or workers it is red; nothing is green because nobody knows."""
    (overview,) = [dashboard for dashboard in DASHBOARDS if dashboard.uid == "dspy-jobs-overview"]
    first = [panel for panel in overview.document()["panels"] if panel["gridPos"]["y"] == 0]
    assert sum(panel["gridPos"]["w"] for panel in first) == WIDTH
    steps = {p["title"]: [s["color"] for s in p["fieldConfig"]["defaults"]["thresholds"]["steps"]] for p in first}
    assert {title for title, colors in steps.items() if colors == ["red", "green"]} == {"API", "Redis", "Workers"}
    assert all(len(colors) > 1 for colors in steps.values())
    asked = {panel.title: panel.queries[0][0] for panel in overview.panels}
    assert [title for title, query in asked.items() if "vector(0)" in query] == ["API"]
    assert ">= 1" in asked["Open circuits"]
    (link,) = overview.document()["links"]
    assert (link["tags"], link["asDropdown"]) == (["dspy-jobs"], False)
    assert [panel.queries for d in DASHBOARDS for panel in d.panels if panel.nothing] == [
        (("ALERTS{alertstate='firing'}", ""),)
    ]


_OF_ONE_PROCESS = re.compile(r"dspy_(http|autoscaler_scale|autoscaler_drain)_|process='api'|keda_")


@pytest.mark.parametrize("query", QUERIES)
def test_replicas_are_not_summed(query: str) -> None:
    """Every API process tells the whole service's counters: of replicas the largest counts."""
    grown = re.findall(r"(max without \(instance, pod\) \()?\b(?:rate|increase)\(([^()]*)\)", query)
    assert all(is_whole or _OF_ONE_PROCESS.search(counter) for is_whole, counter in grown)


def test_a_share_is_zero_where_nothing_happened() -> None:
    """And where nothing of the kind ever did: an empty panel would read as a fault of the dashboard."""
    shares = [query for query in QUERIES if re.search(r"\) / \(sum by .* > 0\)", query) and "0.1" not in query]
    assert len(shares) > 3
    assert all(" or 0 * " in query for query in shares)


def test_the_page_of_a_batch_leads_to_addresses_there_are() -> None:
    """Each link into the API is a route."""
    (page,) = [panel.meaning for d in DASHBOARDS for panel in d.panels if panel.kind == "text"]
    links = {urlsplit(link).path.replace("${batch}", "{batch_id}") for link in re.findall(r"\(\$\{api\}(\S+?)\)", page)}
    assert len(links) > 4
    assert links <= {path for method, path, _ in ROUTES if method == "GET"}
