"""docs/autoscaling.md: what its tables say is what the code decides."""

from __future__ import annotations

import math
import re

import orjson
import pytest

from autoscaler.__main__ import main
from autoscaler.decision import decide
from autoscaler.scaled_object import read_scaled_object
from autoscaler.state import Observation, State
from dspy_jobs.demand import Load, work, work_slots
from dspy_jobs.settings import Settings
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "autoscaling.md").read_text()
EXAMPLES = ROOT / "examples" / "scaled-objects"
#: Threads of a worker in the page's first table.
THREADS = 8
#: The files of the traces' table, each with the threads of a worker that it is made for.
FILES = {"example-a": (EXAMPLES / "example-a.yaml", THREADS), "shipped": (ROOT / "k8s/worker-scaledobject.yaml", 128)}


def _table(name: str) -> list[list[str]]:
    """The rows of the table behind that mark."""
    lines = PAGE.partition(f"<!-- table: {name} -->\n")[2].partition("\n\n")[0].splitlines()
    assert len(lines) > 2, f"no table {name}"
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


@pytest.mark.parametrize("row", _table("work"), ids=" ".join)
def test_the_metric_is_what_the_page_says(row: list[str]) -> None:
    """Slots, metric and workers come out as in the table, with the default settings."""
    waiting, inflight, service, oldest, most, *expected = row
    scaling = Settings().autoscaler
    load = Load(
        int(waiting),
        int(inflight),
        float(oldest),
        None if service == "unknown" else float(service),
        None if most == "–" else float(most),
    )
    slots = work_slots(load, scaling.target_wait_seconds)
    metric = work(slots, load.waiting + load.inflight, scaling.target_utilization)
    assert [f"{slots:g}", f"{metric:g}", str(math.ceil(metric / THREADS))] == expected


@pytest.mark.parametrize("name", ["example-a", "example-b"])
def test_the_worked_examples_are_what_is_decided(name: str) -> None:
    """Row by row, the size and the reason are those that `decide` gives for the example's file."""
    scaling = read_scaled_object((EXAMPLES / f"{name}.yaml").read_text()).scaling
    state, replicas = State(created=0.0), 0
    decided = []
    for t, loops, metric, *_ in _table(name):
        due = {"keda_due": "KEDA" in loops, "hpa_due": "HPA" in loops}
        state, replicas, reason = decide(
            scaling, state, Observation({"work": float(metric)}, replicas, **due), float(t)
        )
        decided.append([t, loops, metric, str(replicas), reason])
    assert decided == _table(name)


@pytest.mark.parametrize("row", _table("traces"), ids=" ".join)
def test_the_traces_end_as_the_page_says(
    row: list[str], monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    """The simulation comes to the same sizes, waits and costs, in our rhythm and in a cluster's."""
    file, trace, rhythm, *expected = row
    path, threads = FILES[file]
    like, _, later = rhythm.partition(", HPA ")
    offset = ["--hpa-offset", later.removesuffix(" s later")] if later else []
    files = ["--trace", f"examples/traces/{trace}.csv", "--scaled-object", str(path)]
    monkeypatch.chdir(ROOT)
    assert main(["simulate", "--json", "--concurrency", str(threads), "--as", like, *offset, *files]) == 0
    summary = orjson.loads(capsysbinary.readouterr().out)["summary"]
    shown = [str(summary["most_replicas"]), f"{summary['wait_max']:.1f}", f"{summary['replica_seconds']:.0f}"]
    assert shown == expected


@pytest.mark.parametrize("page", ["autoscaling.md", "deployment.md"])
def test_what_a_page_links_to_exists(page: str) -> None:
    """Every file it names relative to itself is there."""
    links = re.findall(r"\]\(([^)#:]+)\)", (ROOT / "docs" / page).read_text())
    assert links
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []
