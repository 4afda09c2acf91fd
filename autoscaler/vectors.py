"""The format of conformance vectors: recorded inputs with the sizes that KEDA and the HPA answer.

A file is a list of ``{name, kind, config, state?, sequence, expect, ...}`` with one expectation per step.
Times and ages are seconds. The state starts empty (never active, created at 0); an event or recommendation of
age ``a`` lies ``a`` seconds before the first step.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, ValidationError, model_validator

from autoscaler.problems import describe
from autoscaler.spec import (
    DEFAULT_TOLERANCE,
    Behavior,
    Count,
    Integer,
    MetricType,
    Model,
    PositiveCount,
    ScalingSpec,
    read_annotations,
)

Kind = Literal[
    "metric",
    "rate",
    "stabilize",
    "stabilize_legacy",
    "rules_legacy",
    "keda_loop",
    "hpa_loop",
    "loop",
    "work_slots",
]

#: The fields without which a step of each kind means nothing.
_REQUIRED: Mapping[Kind, tuple[str, ...]] = {
    "metric": ("metric", "current"),
    "rate": ("desired", "current"),
    "stabilize": ("desired", "current"),
    "stabilize_legacy": ("desired",),
    "rules_legacy": ("desired", "current"),
    # And the metric, unless the object is paused, which only its configuration tells.
    "keda_loop": ("current",),
    "hpa_loop": ("current",),
    "loop": ("current",),
    "work_slots": ("waiting", "inflight"),
}

#: Fields that are strings in Kubernetes' files but may be numbers in a vector.
_NUMBERS_IN_QUOTES = frozenset({"tolerance", "target", "activationTarget"})

ConfigModel = TypeVar("ConfigModel", bound=Model)


#: What a trigger read; KEDA meets NaN and infinity too, and turns them into 0.
Reading = Annotated[float, Field(allow_inf_nan=True)]


class VectorError(ValueError):
    """A vector file cannot be run: unreadable, or not in the documented format."""


class AgedEvent(Model):
    """A scale event some seconds before the first step."""

    change: Integer
    age: float


class AgedRecommendation(Model):
    """A recommendation some seconds before the first step."""

    value: Integer
    age: float


class Past(Model):
    """What happened before the first step."""

    scale_up_events: tuple[AgedEvent, ...] = Field(default=(), strict=False)
    scale_down_events: tuple[AgedEvent, ...] = Field(default=(), strict=False)
    recommendations: tuple[AgedRecommendation, ...] = Field(default=(), strict=False)


class Step(Model):
    """One call of the algorithm at time ``t``; which fields count depends on the vector's kind."""

    t: float = 0.0
    note: str = ""
    metric: Reading | Mapping[str, Reading | None] | None = None
    current: Count = 0
    status: Count | None = None
    ready: Count | None = None
    desired: Integer = 0
    loop: Literal["keda", "hpa", "both"] | None = None
    waiting: Count = 0
    inflight: Count = 0
    service_seconds: float | None = Field(default=None, ge=0)
    oldest_wait_seconds: float | None = Field(default=None, ge=0)
    provider_slots: float | None = Field(default=None, ge=0)


class Vector(Model):
    """One recorded case. ``config`` is read by the kind that runs it."""

    name: str = Field(min_length=1)
    kind: Kind
    origin: str = ""
    source: str = ""
    note: str = ""
    config: Mapping[str, Any]
    state: Past = Past()
    sequence: tuple[Step, ...] = Field(min_length=1, strict=False)
    expect: tuple[int | float | Mapping[str, int | float | str], ...] = Field(strict=False)

    @model_validator(mode="after")
    def _check_steps(self) -> Vector:
        if len(self.expect) != len(self.sequence):
            raise ValueError(f"sequence has {len(self.sequence)} steps but expect has {len(self.expect)}")
        for index, step in enumerate(self.sequence):
            missing = [name for name in _REQUIRED[self.kind] if name not in step.model_fields_set]
            if missing:
                raise ValueError(lacking(index, self.kind, *missing))
            if self.expect[index] == {}:
                raise ValueError(f"expect[{index}] names nothing to compare; name a field of the answer, or a size")
        return self


def lacking(step: int, kind: Kind, *names: str) -> str:
    """What is wrong with a step that does not say all."""
    return f"step {step} of kind {kind} lacks {' and '.join(names)}; add it"


class Tolerance(Model):
    """Tolerances of a ``metric`` vector, as plain numbers."""

    scale_up: float = Field(default=DEFAULT_TOLERANCE, ge=0)
    scale_down: float = Field(default=DEFAULT_TOLERANCE, ge=0)


class MetricConfig(Model):
    """Configuration of ``metric``."""

    metric_type: MetricType = "AverageValue"
    target: float = Field(ge=0.001)
    tolerance: Tolerance = Tolerance()


class RateConfig(Model):
    """Configuration of ``rate`` and ``rules_legacy``; the latter has no behavior."""

    min_replicas: Count
    max_replicas: PositiveCount
    behavior: Behavior | None = None


class StabilizeConfig(Model):
    """Configuration of ``stabilize`` and ``stabilize_legacy``; the latter has no behavior."""

    behavior: Behavior | None = None
    downscale_stabilization: float = Field(default=300.0, ge=0)


class WorkSlotsConfig(Model):
    """Configuration of ``work_slots``."""

    concurrency: PositiveCount
    target_utilization: float = Field(ge=0.001, le=1)
    target_wait_seconds: float = Field(gt=0)


def read_vectors(path: Path) -> tuple[Vector, ...]:
    """Read a vector file; raises VectorError naming the file, the vector and the field at fault."""
    try:
        raw = json.loads(path.read_bytes())
    except OSError as error:
        raise VectorError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:  # also a number of more digits than Python reads
        raise VectorError(f"{path}: is not JSON: {error}") from error
    if not isinstance(raw, list) or not raw:
        raise VectorError(f"{path}: must be a list of at least one vector")
    return tuple(_vector(entry, f"{path}: vector {index}") for index, entry in enumerate(raw))


def _vector(entry: Any, place: str) -> Vector:
    name = entry.get("name") if isinstance(entry, dict) else None
    return _read(Vector, entry, f"{place} {name!r}" if isinstance(name, str) else place)


def read_config(model: type[ConfigModel], vector: Vector) -> ConfigModel:
    """Read a vector's configuration as its kind wants it; raises VectorError."""
    return _read(model, _kubernetes_form(vector.config), f"vector {vector.name!r}: config")


def read_loop_config(vector: Vector) -> ScalingSpec:
    """Read the configuration of a loop: KEDA's names, ``behavior`` and ``scalingModifiers`` at the top."""
    place = f"vector {vector.name!r}: config"
    config = _kubernetes_form(vector.config)
    texts = _annotations(config.get("annotations", {}), f"{place}.annotations")
    try:
        annotations = read_annotations(texts)
    except ValueError as error:
        raise VectorError(f"{place}.annotations.{error}") from error
    return _read(ScalingSpec, {**config, "annotations": annotations}, place)


def _annotations(given: Any, place: str) -> dict[str, str]:
    """Annotations as strings; the API server drops nulls. Raises VectorError for what can be no annotation."""
    if not isinstance(given, dict):
        raise VectorError(f"{place}: must be an object of texts, such as the name of an annotation with its value")
    texts = {name: _text(value) for name, value in given.items() if value is not None}
    for name, text in texts.items():
        if not isinstance(text, str):
            raise VectorError(f'{place}.{name}: must be a text, such as "true" or "3"')
    return texts


def _read(model: type[ConfigModel], entry: Any, place: str) -> ConfigModel:
    try:
        return model.model_validate(entry)
    except ValidationError as error:
        raise VectorError(f"{place}: {'; '.join(describe(error, model))}") from error


def _kubernetes_form(config: Mapping[str, Any]) -> dict[str, Any]:
    """Drop nulls, and quote the numbers that Kubernetes writes as strings but vectors may not."""
    form = {key: value for key, value in config.items() if value is not None}
    if isinstance(form.get("behavior"), dict):
        form["behavior"] = {key: _quoted(rules) for key, rules in form["behavior"].items() if rules is not None}
    if "scalingModifiers" in form:
        form["scalingModifiers"] = _quoted(form["scalingModifiers"])
    return form


def _quoted(fields: Any) -> Any:
    if not isinstance(fields, dict):
        return fields
    return {
        key: _text(value) if key in _NUMBERS_IN_QUOTES else value for key, value in fields.items() if value is not None
    }


def _text(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, bool | int | float) else value
