"""A simulation decides as the autoscaler does, and counts what came of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest
from autoscaler_doubles import SCALED_OBJECT, scaled_object

from autoscaler.__main__ import main
from autoscaler.cadence import Cadence, Periods
from autoscaler.plot import draw
from autoscaler.simulated_fleet import SimulatedFleet
from autoscaler.simulation import Jobs, Played, SimulationError, World, simulate
from autoscaler.trace import Arrival, Level, Trace, TraceError, read_trace
from tests.conftest import ROOT

TRACES = sorted((ROOT / "examples" / "traces").glob("*.csv"))

#: The first worked example of the documents: target 8, up 4 or double, down one pod per 30 s after a minute.
#: A level lasts until the next one, so the metric is last active at 255 s: 120 s of cooldown end at 375, not before.
WORKED = """
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata: {name: worked}
spec:
  scaleTargetRef: {name: worker}
  pollingInterval: 15
  cooldownPeriod: 120
  maxReplicaCount: 10
  advanced:
    horizontalPodAutoscalerConfig:
      behavior:
        scaleUp:
          policies: [{type: Pods, value: 4, periodSeconds: 15}, {type: Percent, value: 100, periodSeconds: 15}]
        scaleDown:
          stabilizationWindowSeconds: 60
          policies: [{type: Pods, value: 1, periodSeconds: 30}]
  triggers:
    - type: metrics-api
      metadata: {url: "http://api:8080/v1/autoscale", valueLocation: work, targetValue: "8"}
"""
LEVELS = [(0, 0), (15, 100), (30, 92), (45, 80), (60, 70), (75, 60), (90, 48), (105, 36), (120, 24), (150, 12),
          (180, 8), (210, 4), (240, 2), (270, 0)]  # fmt: skip
SIZES = {0: 0, 15: 5, 30: 10, 45: 10, 60: 10, 75: 10, 90: 10, 105: 9, 120: 9, 150: 8, 180: 7, 210: 6, 240: 5, 270: 4,
         300: 3, 330: 2, 360: 1, 375: 1, 390: 0}  # fmt: skip


@pytest.mark.parametrize("periods", [Periods.local(15), Periods.cluster(15)])
def test_the_worked_example_comes_out(periods: Periods) -> None:
    """A recorded metric gives the sizes the documents work out, in our rhythm and in a cluster's."""
    trace = Trace(levels=tuple(Level(t, work) for t, work in LEVELS))
    played = simulate(scaled_object(WORKED), trace, World(8), periods)
    sizes = {tick.t: tick.replicas for tick in played.ticks}
    assert {t: sizes[t] for t in SIZES} == SIZES


def burst(jobs: int = 100, seconds: float = 2.0, **world: float) -> Played:
    """So many jobs at once, on at most four workers of eight slots."""
    trace = Trace(arrivals=(Arrival(10, jobs, seconds),))
    return simulate(scaled_object(), trace, World(8, **world), Periods.local(5))  # type: ignore[arg-type]


def test_every_job_runs_and_the_fleet_comes_to_rest() -> None:
    """Nothing is left, the fleet is empty at the end, and never bigger than the maximum."""
    played = burst()
    assert (_jobs(played).jobs, _jobs(played).unstarted) == (100, 0)
    assert (played.summary.most_replicas, played.ticks[-1].replicas) == (4, 0)
    assert played.summary.overshoot == 0


def test_waits_contain_the_start_of_a_worker() -> None:
    """No job starts before the first worker is ready, nor before the loop has seen it."""
    assert _jobs(burst(8, startup_seconds=3)).wait_p50 == 3
    assert _jobs(burst(8, startup_seconds=10)).wait_p50 == 10


def test_waits_are_seen_though_nobody_waits_at_a_tick() -> None:
    """What jobs waited between two ticks is in the later one, and the longest of all is the summary's."""
    played = burst(8, startup_seconds=3)
    assert {tick.oldest_wait_seconds for tick in played.ticks} == {0}
    assert [tick.longest_wait_seconds for tick in played.ticks if tick.longest_wait_seconds] == [3]
    longest = max(tick.longest_wait_seconds or 0 for tick in burst().ticks)
    assert longest == _jobs(burst()).wait_max > 3


def test_a_trace_of_the_metric_tells_nothing_of_jobs() -> None:
    """Neither that there were none nor that they did not wait."""
    trace = Trace(levels=(Level(0, 16), Level(60, 0)))
    played = simulate(scaled_object(), trace, World(8), Periods.local(5))
    assert played.summary.jobs is None
    assert played.summary.most_replicas == 2
    found = played.as_json()
    assert not {"jobs", "unstarted", "wait_max"} & set(found["summary"])
    assert not {"waiting", "inflight", "oldest_wait_seconds", "longest_wait_seconds"} & set(found["ticks"][0])


def _jobs(played: Played) -> Jobs:
    assert played.summary.jobs
    return played.summary.jobs


def test_cost_is_every_second_of_every_worker() -> None:
    """Replica seconds count from start to end, draining included; the price is by the hour."""
    played = burst(hourly_price=3600)
    assert played.summary.cost == pytest.approx(played.summary.replica_seconds)
    assert played.ticks[-1].cost == pytest.approx(played.summary.cost)


def test_a_draining_worker_finishes_its_jobs() -> None:
    """It takes no more, ends with its last one, and the least busy one goes."""
    fleet = SimulatedFleet(concurrency=2, startup_seconds=0)
    fleet.scale(0, 2)
    fleet.advance(0)
    fleet.arrive(1, 3, 10)
    fleet.scale(2, 1)
    fleet.arrive(3, 2, 10)
    [draining] = fleet.draining
    assert draining.running == 1
    fleet.advance(11)
    assert draining.ended == 11
    fleet.advance(30)
    assert fleet.outstanding == 0
    assert fleet.waits == [0, 0, 0, 8, 8]


def test_a_trigger_without_counterpart_is_refused() -> None:
    """Prometheus cannot be simulated; a formula over lists can."""
    other = (
        SCALED_OBJECT + "    - {type: prometheus, metadata: {serverAddress: 'http://p', query: q, threshold: '1'}}\n"
    )
    with pytest.raises(SimulationError, match="prometheus"):
        simulate(scaled_object(other), Trace(), World(8), Periods.local(5))


def test_the_rhythms() -> None:
    """In a cluster the HPA syncs every 15 s whatever KEDA does; ours goes with the faster of the two."""
    assert Periods.local(5) == Periods(5, 5)
    assert Periods.local(40) == Periods(40, 15)
    assert Periods.cluster(5) == Periods(5, 15)
    cadence, seen = Cadence(Periods(10, 15), 0.0), []
    for _ in range(5):
        now = cadence.next_time
        seen.append((now, *cadence.due(now)))
    assert seen == [(0, True, True), (10, True, False), (15, False, True), (20, True, False), (30, True, True)]


def test_the_hpa_need_not_begin_with_keda() -> None:
    """Its syncs come every 15 s, so many seconds after KEDA's first poll."""
    cadence, seen = Cadence(Periods.cluster(5, 7), 100.0), []
    for _ in range(7):
        now = cadence.next_time
        seen.append((now, *cadence.due(now)))
    assert [t for t, _, hpa in seen if hpa] == [107, 122]
    assert [t for t, keda, _ in seen if keda] == [100, 105, 110, 115, 120]


def test_missed_beats_are_left_out() -> None:
    """After a long pause each loop runs once, and on in its rhythm."""
    cadence = Cadence(Periods(5, 5), 0.0)
    cadence.due(0)
    assert cadence.due(23) == (True, True)
    assert cadence.next_time == 25


@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.stem)
def test_the_examples_can_be_read(path: Path) -> None:
    """Each example trace holds jobs."""
    assert sum(row.jobs for row in read_trace(path).arrivals) > 1000


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("t,jobs\n", "columns"),
        ("t,work\n1,x\n", "line 2: work 'x' is no number"),
        ("t,work\n1,-1\n", "0 or more"),
        ("t,work\n2,1\n1,1\n", "goes back"),
        ("t,arrivals,service_seconds\n0,1.5,1\n", "no whole number"),
        ("t,arrivals,service_seconds\n0,1\n", "line 2: has 2 values for 3 columns"),
        ("t,work\n1,2,3\n", "line 2: has 3 values for 2 columns"),
        ("# where from\n\nt,work\n# when\n1,x\n", "line 5: work 'x'"),
        ("t,work\n", "holds no row"),
        ("", "columns"),
    ],
)
def test_a_wrong_trace_is_explained(tmp_path: Path, text: str, words: str) -> None:
    """The message names the line and what is wrong."""
    path = tmp_path / "trace.csv"
    path.write_text(text)
    with pytest.raises(TraceError, match=words):
        read_trace(path)


def test_what_a_spreadsheet_adds_is_no_mistake(tmp_path: Path) -> None:
    """A byte order mark, spaces around names and numbers, blank lines, Windows' ends of lines."""
    path = tmp_path / "trace.csv"
    path.write_bytes(b"\xef\xbb\xbft , arrivals, service_seconds\r\n 0, 3 ,1.5\r\n \r\n")
    assert read_trace(path) == Trace(arrivals=(Arrival(0, 3, 1.5),))


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """The options that name a small trace and a ScaledObject."""
    (tmp_path / "t.csv").write_text("# a comment\nt,arrivals,service_seconds\n0,64,1\n")
    (tmp_path / "so.yaml").write_text(SCALED_OBJECT)
    return ["--trace", str(tmp_path / "t.csv"), "--scaled-object", str(tmp_path / "so.yaml"), "--concurrency", "8"]


def test_the_command_prints_a_table(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """One line for each change with its reason, then the figures."""
    assert main(["simulate", *files]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[-1] == "reason"
    assert any(line.startswith("64 jobs") for line in lines)


def test_the_command_gives_json(files: list[str], capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    """Everything, for machines."""
    assert main(["simulate", *files, "--json", "--as", "cluster"]) == 0
    found = orjson.loads(capsysbinary.readouterr().out)
    assert found["summary"]["jobs"] == 64
    assert {"t", "replicas", "waiting", "cost", "reason"} <= set(found["ticks"][0])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--target-utilization", "0"), "must be more than 0"),
        (("--hpa-offset", "3"), "add --as cluster"),
        (("--as", "cluster", "--hpa-offset", "15"), "from 0 to less than 15"),
    ],
)
def test_the_command_refuses_nonsense(
    files: list[str], options: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2 and a message, without a trace of Python."""
    assert main(["simulate", *files, *options]) == 2
    assert words in capsys.readouterr().err


def test_the_command_says_what_a_trace_does_not_tell(
    files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No column and no figure of jobs for a trace of the metric."""
    (tmp_path / "t.csv").write_text("t,work\n0,16\n60,0\n")
    assert main(["simulate", *files]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0].split() == ["t", "work", "workers", "ready", "draining", "cost", "reason"]
    assert "nothing of jobs" in out
    assert "0 jobs" not in out
    assert "wait:" not in out


def test_a_plot_without_matplotlib_says_how_to_get_it(files: list[str], tmp_path: Path) -> None:
    """The extra is named; nothing is drawn."""
    code = "import sys; sys.modules['matplotlib'] = None; from autoscaler.__main__ import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "simulate", *files, "--plot", str(tmp_path / "plot.png")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2
    assert "dspy-jobs[plot]" in done.stderr


@pytest.mark.parametrize(
    ("name", "words"), [("nowhere/plot.png", "no folder"), ("plot.doc", "name a picture"), ("taken.png", "written")]
)
def test_a_place_for_no_plot_is_told_first(
    files: list[str], tmp_path: Path, name: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is played, not after minutes of it."""
    pytest.importorskip("matplotlib")
    (tmp_path / "taken.png").mkdir()
    assert main(["simulate", *files, "--plot", str(tmp_path / name)]) == 2
    told = capsys.readouterr()
    assert words in told.err
    assert not told.out


def test_a_plot_is_drawn(files: list[str], tmp_path: Path) -> None:
    """Where matplotlib is installed the picture is there."""
    pytest.importorskip("matplotlib")
    path = tmp_path / "plot.png"
    assert main(["simulate", *files, "--plot", str(path)]) == 0
    assert path.read_bytes().startswith(b"\x89PNG")


def _panels(monkeypatch: pytest.MonkeyPatch, played: Played, path: Path) -> dict[str, Any]:
    """The panels of its picture, by what their axes say."""
    pyplot = pytest.importorskip("matplotlib.pyplot")
    drawn: list[Any] = []
    monkeypatch.setattr(pyplot, "close", drawn.append)
    draw(played, path, "title", 0.5)
    monkeypatch.undo()
    panels = {axes.get_ylabel(): axes for axes in drawn[0].axes}
    pyplot.close(drawn[0])
    return panels


def test_a_plot_shows_the_longest_wait_and_whole_workers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The peak of the picture is the summary's, workers are counted in whole ones, the cost has a unit."""
    played = burst()
    panels = _panels(monkeypatch, played, tmp_path / "plot.svg")
    assert list(panels) == ["jobs", "workers", "wait, seconds", "cost, at 0.5\na worker-hour"]
    longest = panels["wait, seconds"].get_lines()[0]
    assert max(longest.get_ydata()) == _jobs(played).wait_max
    assert all(float(tick).is_integer() for tick in panels["workers"].get_yticks())


def test_a_plot_has_no_panel_without_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A trace of the metric tells nothing of jobs, so their waits are not drawn as 0."""
    played = simulate(scaled_object(), Trace(levels=(Level(0, 16), Level(60, 0))), World(8), Periods.local(5))
    panels = _panels(monkeypatch, played, tmp_path / "plot.svg")
    assert list(panels) == ["call slots", "workers", "cost, at 0.5\na worker-hour"]
    assert len(panels["call slots"].get_lines()) == 1
