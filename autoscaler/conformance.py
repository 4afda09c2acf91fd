"""Runs conformance vectors against this package, to prove that it decides as KEDA and the HPA do."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from autoscaler import hpa
from autoscaler.decision import decide
from autoscaler.metric import Metric
from autoscaler.quantity import milli
from autoscaler.recommendation import Size, Tolerances, recommend
from autoscaler.signal import Load, work_slots
from autoscaler.spec import Behavior, ScalingSpec
from autoscaler.state import HpaState, Observation, Recommendation, ScaleEvent, State
from autoscaler.vectors import (
    Kind,
    MetricConfig,
    RateConfig,
    StabilizeConfig,
    Step,
    Vector,
    VectorError,
    WorkSlotsConfig,
    lacking,
    read_config,
    read_loop_config,
    read_vectors,
)

#: What one step answers; an expectation that is a bare number means ``replicas``.
Answer = Mapping[str, "int | float | str"]
Expected = int | float | str | Mapping[str, "int | float | str"]


@dataclass(frozen=True)
class Mismatch:
    """A step whose answer is not the recorded one."""

    name: str
    step: int
    expected: Expected
    got: Expected

    def __str__(self) -> str:
        return f"{self.name}: step {self.step}: expected {self.expected}, got {self.got}"


def main(path: Path) -> int:
    """Run a vector file and print what differs: 0 if all hold, 1 if not, 2 if the file is not usable."""
    try:
        vectors = read_vectors(path)
        mismatches = [mismatch for vector in vectors for mismatch in _run_or_explain(vector)]
    except VectorError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for mismatch in mismatches:
        print(f"MISMATCH {mismatch}")
    failed = len({mismatch.name for mismatch in mismatches})
    print(f"{len(vectors) - failed} of {len(vectors)} vectors hold")
    return 1 if mismatches else 0


def _run_or_explain(vector: Vector) -> list[Mismatch]:
    """The mismatches of one vector; numbers that cannot be computed with make it unusable, not wrong."""
    try:
        return list(run(vector))
    except (ArithmeticError, RecursionError) as error:
        raise VectorError(f"vector {vector.name!r}: cannot be computed: {error}") from error


def run(vector: Vector) -> Iterator[Mismatch]:
    """Yield every step of one vector that differs; raises VectorError if its configuration cannot be read."""
    answers = _RUNNERS[vector.kind](vector)
    for index, (expected, answer) in enumerate(zip(vector.expect, answers, strict=True)):
        got: Expected = answer["replicas"] if not isinstance(expected, Mapping) else answer
        if not _holds(expected, answer):
            yield Mismatch(vector.name, index, expected, got)


def _holds(expected: Expected, answer: Answer) -> bool:
    wanted = expected if isinstance(expected, Mapping) else {"replicas": expected}
    return all(key in answer and _is_equal(value, answer[key]) for key, value in wanted.items())


def _is_equal(expected: float | str, got: float | str) -> bool:
    """Sizes and reasons are compared exactly; only computed fractions may differ by rounding."""
    if isinstance(expected, float) and isinstance(got, float):
        return math.isclose(expected, got, rel_tol=1e-9)
    return expected == got


def _past(vector: Vector) -> HpaState:
    start, past = vector.sequence[0].t, vector.state
    return HpaState(
        recommendations=tuple(Recommendation(start - rec.age, rec.value) for rec in past.recommendations) or None,
        scale_ups=tuple(ScaleEvent(start - event.age, event.change) for event in past.scale_up_events),
        scale_downs=tuple(ScaleEvent(start - event.age, event.change) for event in past.scale_down_events),
    )


def _single_metric(step: Step, vector: Vector) -> float:
    if isinstance(step.metric, Mapping) or step.metric is None:
        raise VectorError(f"vector {vector.name!r}: metric must be a number for kind {vector.kind}")
    return step.metric


def _run_metric(vector: Vector) -> list[Answer]:
    config = read_config(MetricConfig, vector)
    metric = Metric(None, milli(config.target), config.metric_type)
    tolerances = Tolerances(config.tolerance.scale_up, config.tolerance.scale_down)
    return [
        {"replicas": recommend(milli(_single_metric(step, vector)), metric, _size(step), tolerances)}
        for step in vector.sequence
    ]


def _size(step: Step) -> Size:
    status = step.current if step.status is None else step.status
    return Size(step.current, status, step.current if step.ready is None else step.ready)


def _hpa_spec(config: RateConfig, behavior: Behavior | None) -> hpa.HpaSpec:
    return hpa.HpaSpec(config.min_replicas, config.max_replicas, behavior)


def _run_rate(vector: Vector) -> list[Answer]:
    config = read_config(RateConfig, vector)
    spec, past = _hpa_spec(config, config.behavior or Behavior()), _past(vector)
    return [hpa.limit_rate(spec, past, s.current, s.desired, s.t)._asdict() for s in vector.sequence]


def _run_rules_legacy(vector: Vector) -> list[Answer]:
    spec = _hpa_spec(read_config(RateConfig, vector), None)
    return [hpa.limit_legacy(spec, step.current, step.desired)._asdict() for step in vector.sequence]


def _run_stabilize(vector: Vector) -> list[Answer]:
    behavior = read_config(StabilizeConfig, vector).behavior or Behavior()
    return _run_recording(vector, lambda past, step: hpa.stabilize(behavior, past, step.current, step.desired, step.t))


def _run_stabilize_legacy(vector: Vector) -> list[Answer]:
    window = read_config(StabilizeConfig, vector).downscale_stabilization
    return _run_recording(vector, lambda past, step: hpa.stabilize_legacy(past, step.desired, step.t, window))


def _run_recording(vector: Vector, stabilize: Callable[[Sequence[Recommendation], Step], int]) -> list[Answer]:
    """Each step's wish becomes a recommendation of the next step, as upstream's stabilisers record it."""
    past, answers = list(_past(vector).recommendations or ()), list[Answer]()
    for step in vector.sequence:
        answers.append({"replicas": stabilize(past, step)})
        past.append(Recommendation(step.t, step.desired))
    return answers


def _run_loop(vector: Vector) -> list[Answer]:
    spec = read_loop_config(vector)
    state, answers = State(created=0.0, hpa=_past(vector)), list[Answer]()
    for index, step in enumerate(vector.sequence):
        if "metric" not in step.model_fields_set and not spec.annotations.is_paused:
            raise VectorError(f"vector {vector.name!r}: {lacking(index, vector.kind, 'metric')}")
        state, replicas, reason = decide(spec, state, _observation(spec, step, vector), step.t)
        answers.append({"replicas": replicas, "reason": reason})
    return answers


#: The loops that a kind runs where a step does not say.
_LOOPS: Mapping[str, str] = {"keda_loop": "keda", "hpa_loop": "hpa", "loop": "both"}


def _observation(spec: ScalingSpec, step: Step, vector: Vector) -> Observation:
    loop = step.loop or _LOOPS[vector.kind]
    return Observation(
        values=_values(spec, step, vector),
        replicas=step.current,
        status=step.status,
        ready=step.ready,
        keda_due=loop != "hpa",
        hpa_due=loop != "keda",
    )


def _values(spec: ScalingSpec, step: Step, vector: Vector) -> Mapping[str, float | None]:
    names = [trigger.name for trigger in spec.triggers]
    if not isinstance(step.metric, Mapping):
        return dict.fromkeys(names, step.metric)
    if set(step.metric) != set(names):
        raise VectorError(f"vector {vector.name!r}: metric at t={step.t:g} must name exactly {', '.join(names)}")
    return step.metric


def _run_work_slots(vector: Vector) -> list[Answer]:
    config = read_config(WorkSlotsConfig, vector)
    return [_work_slots(config, step) for step in vector.sequence]


def _work_slots(config: WorkSlotsConfig, step: Step) -> Answer:
    oldest = step.oldest_wait_seconds or 0.0
    load = Load(step.waiting, step.inflight, oldest, step.service_seconds, step.provider_slots)
    slots = work_slots(load, config.target_wait_seconds)
    # Rounded, so that float noise such as 21 / 0.7 = 30.000000000000004 does not add a replica.
    replicas = math.ceil(round(slots / config.target_utilization / config.concurrency, 9))
    return {"work_slots": slots, "raw_replicas": replicas, "replicas": replicas}


_RUNNERS: Mapping[Kind, Callable[[Vector], list[Answer]]] = {
    "metric": _run_metric,
    "rate": _run_rate,
    "rules_legacy": _run_rules_legacy,
    "stabilize": _run_stabilize,
    "stabilize_legacy": _run_stabilize_legacy,
    "keda_loop": _run_loop,
    "hpa_loop": _run_loop,
    "loop": _run_loop,
    "work_slots": _run_work_slots,
}
