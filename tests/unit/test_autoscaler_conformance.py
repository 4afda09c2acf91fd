"""The recorded behaviour of KEDA and the HPA holds, and the conformance command says so truthfully."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from autoscaler.__main__ import main
from autoscaler.conformance import run
from autoscaler.vectors import Vector, read_vectors

ROOT = Path(__file__).parents[2]
VECTORS = ROOT / "tests" / "data" / "autoscaler" / "vectors.json"

METRIC_VECTOR: dict[str, Any] = {
    "name": "three replicas",
    "kind": "metric",
    "config": {"target": 8},
    "sequence": [{"t": 0, "metric": 20, "current": 1}],
    "expect": [3],
}
LOOP_VECTOR: dict[str, Any] = {
    "name": "wakes",
    "kind": "loop",
    "config": {"triggers": [{"name": "work", "target": 8}], "behavior": {}},
    "sequence": [{"t": 0, "metric": 20, "current": 0}, {"t": 15, "metric": 20, "current": 1}],
    "expect": [3, 3],
}


WORK_VECTOR: dict[str, Any] = {
    "name": "three workers' work",
    "kind": "work_slots",
    "config": {"concurrency": 8, "targetUtilization": 1, "targetWaitSeconds": 60},
    "sequence": [{"waiting": 16, "inflight": 8}],
    "expect": [3],
}


def configured(config: dict[str, Any], step: dict[str, Any] | None = None, expect: Any = 1) -> list[dict[str, Any]]:
    """One step of a loop with more configuration, with a metric unless a step is given."""
    step = {"metric": 1, "current": 1} if step is None else step
    loop = {"triggers": [{"name": "a", "target": 8}], "behavior": {}, **config}
    return [{"name": "configured", "kind": "loop", "config": loop, "sequence": [step], "expect": [expect]}]


def _file(folder: Path, content: Any) -> str:
    path = folder / "vectors.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


@pytest.mark.parametrize("vector", read_vectors(VECTORS), ids=lambda vector: vector.name)
def test_recorded_vectors_hold(vector: Vector) -> None:
    """Every recorded vector of KEDA, the HPA and our signal gives the recorded answer."""
    assert [str(mismatch) for mismatch in run(vector)] == []


def test_command_exits_0_when_all_hold() -> None:
    """The command run as a process exits 0 on the recorded vectors and says how many hold."""
    done = subprocess.run(
        [sys.executable, "-m", "autoscaler", "conformance", str(VECTORS)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{len(read_vectors(VECTORS))} of {len(read_vectors(VECTORS))} vectors hold\n"


def test_command_names_each_mismatch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong expectation makes the command exit 1 and print name, step, expected and got."""
    wrong = {**LOOP_VECTOR, "expect": [3, 7]}
    assert main(["conformance", _file(tmp_path, [METRIC_VECTOR, wrong])]) == 1
    assert capsys.readouterr().out == "MISMATCH wakes: step 1: expected 7, got 3\n1 of 2 vectors hold\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{not json", "is not JSON"),
        ("[]", "at least one vector"),
        ("{}", "at least one vector"),
        ([{**METRIC_VECTOR, "kind": "metrik"}], "vector 0 'three replicas': kind: "),
        ([{**METRIC_VECTOR, "expect": []}], "sequence has 1 steps but expect has 0"),
        ([{**METRIC_VECTOR, "sequence": [], "expect": []}], "sequence: "),
        ([{**METRIC_VECTOR, "sequence": [{"t": 0, "current": 1}]}], "step 0 of kind metric lacks metric"),
        ([{**METRIC_VECTOR, "sequence": [{"metric": None, "current": 1}]}], "metric must be a number"),
        ([{**METRIC_VECTOR, "config": {"target": 0}}], "config: target: "),
        ([{**METRIC_VECTOR, "config": {"target": 8, "tolerence": {}}}], "did you mean tolerance?"),
        ([{**METRIC_VECTOR, "sequence": [{"metric": 1, "curent": 1}]}], "did you mean current?"),
        ([{**LOOP_VECTOR, "config": {"triggers": []}}], "triggers"),
        ([{**LOOP_VECTOR, "config": {**LOOP_VECTOR["config"], "minReplicaCount": -1}}], "minReplicaCount"),
        ([{**LOOP_VECTOR, "config": {**LOOP_VECTOR["config"], "pollInterval": 5}}], "pollingInterval?"),
        (
            [{**LOOP_VECTOR, "config": {**LOOP_VECTOR["config"], "annotations": {"autoscaling.keda.sh/x": "1"}}}],
            "unknown annotation",
        ),
        (
            [{**LOOP_VECTOR, "sequence": [{"metric": {"wrk": 1}, "current": 1}], "expect": [1]}],
            "must name exactly work",
        ),
        ([{**LOOP_VECTOR, "sequence": [{"current": 1}], "expect": [1]}], "step 0 of kind loop lacks metric; add it"),
        (configured({"annotations": ["x"]}), "config.annotations: must be an object"),
        (configured({"annotations": {"autoscaling.keda.sh/paused": [1]}}), "annotations.autoscaling.keda.sh/paused: "),
        (configured({"fallback": {"failureThreshold": 0, "replicas": 10**10}}), "fallback.replicas: should be less"),
        (configured({"maxReplicaCount": 2**31}), "maxReplicaCount: should be less"),
        (configured({"scalingModifiers": {"formula": "-" * 499 + "a", "target": 8}}), "nested more than 250 deep"),
        ([{**METRIC_VECTOR, "sequence": [{"metric": 1, "current": 2**31}]}], "current: should be less"),
        ('[{"name": "long", "sequence": [' + "9" * 5000 + "]}]", "is not JSON"),
        ([{**METRIC_VECTOR, "expect": [{}]}], "expect[0] names nothing to compare"),
        ([{**WORK_VECTOR, "config": {**WORK_VECTOR["config"], "targetUtilization": 5e-324}}], "targetUtilization: "),
    ],
)
def test_command_refuses_bad_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: Any, message: str
) -> None:
    """A file that is not in the documented format exits 2 with an error naming the fault."""
    assert main(["conformance", _file(tmp_path, content)]) == 2
    output = capsys.readouterr().err
    assert output.startswith("error: ")
    assert message in output


@pytest.mark.parametrize(
    "content",
    [
        [{**WORK_VECTOR, "sequence": [{"waiting": 16, "inflight": 8, "oldest_wait_seconds": None}]}],
        configured({"annotations": {"autoscaling.keda.sh/paused": "true"}}, {"current": 3}, 3),
        configured({"annotations": {"autoscaling.keda.sh/paused": None, "other": None}}),
        configured({"scalingModifiers": {"formula": "(" * 249 + "a" + ")" * 249, "target": 8}}),
        # The target is cut to 2.009; rounded to 2.01 it would ask for 20.
        configured(
            {"scalingModifiers": {"formula": "a", "target": "2.01"}}, {"metric": 40.2, "current": 18, "loop": "hpa"}, 21
        ),
        # A target of more than 64 bits switches the fallback off, as one that is no integer does.
        configured(
            {
                "scalingModifiers": {"formula": "a", "target": "9" * 20},
                "fallback": {"failureThreshold": 0, "replicas": 3},
            },
            {"metric": None, "current": 1, "loop": "hpa"},
        ),
        # Far beyond any metric, and yet a number.
        configured(
            {
                "triggers": [{"name": "a", "target": 1e307}],
                "fallback": {"failureThreshold": 0, "replicas": 3},
            },
            {"metric": None, "current": 1, "loop": "hpa"},
        ),
        # Negative values may be compared with negative thresholds: -5 is below -3 and above -10.
        *(
            configured(
                {"scalingModifiers": {"formula": "a - 5", "target": 8, "activationTarget": threshold}},
                {"metric": 0, "current": 0, "loop": "keda"},
                replicas,
            )
            for threshold, replicas in ((-3, 0), (-10, 1))
        ),
        configured({"scalingModifiers": {"formula": "a - 5", "target": 8}}, {"metric": 0, "current": 3}, 3),
        configured(
            {
                "scalingModifiers": {"formula": "a - 5", "target": 8},
                "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}},
            },
            {"metric": 0, "current": 3, "loop": "hpa"},
            1,
        ),
    ],
)
def test_command_takes_what_the_format_allows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: list[dict[str, Any]]
) -> None:
    """Unknown times as null, paused objects without a metric, huge and negative numbers: each holds."""
    assert main(["conformance", _file(tmp_path, content)]) == 0, capsys.readouterr()


def test_command_refuses_a_missing_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is not there exits 2 and is named."""
    assert main(["conformance", str(tmp_path / "none.json")]) == 2
    assert "none.json: cannot be read: No such file" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["conformance"], ["conform", "x"]])
def test_wrong_command_line_exits_2(arguments: list[str]) -> None:
    """A wrong command line exits 2, as for a bad file, never 1."""
    with pytest.raises(SystemExit) as exited:
        main(arguments)
    assert exited.value.code == 2


def test_plain_numbers_may_stand_for_quantities() -> None:
    """A vector may write tolerances and formula targets as plain numbers and annotations as booleans."""
    vector = Vector.model_validate(
        {
            **LOOP_VECTOR,
            "config": {
                "triggers": [{"name": "a", "target": 1}, {"name": "b", "target": 1}],
                "behavior": {"scaleDown": {"tolerance": 0.5, "stabilizationWindowSeconds": 0}},
                "scalingModifiers": {"formula": "a + b", "target": 8},
                "annotations": {"autoscaling.keda.sh/paused-scale-out": True},
                "idleReplicaCount": None,
            },
            "sequence": [
                {"t": 0, "metric": {"a": 8, "b": 9}, "current": 4},
                {"t": 1, "metric": {"a": 40, "b": 40}, "current": 4},
            ],
            "expect": [4, 4],
        }
    )
    assert list(run(vector)) == []
