"""The typed, frozen scaling settings that both loops obey, with KEDA's and Kubernetes' defaults and bounds.

Defaults and bounds are those of ``apis/keda/v1alpha1/scaledobject_types.go``, ``withtriggers_types.go`` and
Kubernetes' ``defaults.go``; durations are whole seconds. Field names in files are the camelCase ones of KEDA.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from autoscaler.formula import Formula, parse_formula
from autoscaler.quantity import parse_quantity

#: ``--horizontal-pod-autoscaler-tolerance`` of the controller manager, a share of 1.
DEFAULT_TOLERANCE = 0.1

#: Prefix of the annotations KEDA reads; an unknown one under it is a typing mistake.
ANNOTATION_PREFIX = "autoscaling.keda.sh/"

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)

MetricType = Literal["AverageValue", "Value"]


class Model(BaseModel):
    """A frozen record read from a file: unknown fields and wrong types are errors, never guesses."""

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        alias_generator=to_camel,
        populate_by_name=True,
        allow_inf_nan=False,
        arbitrary_types_allowed=True,
    )


def _read_tolerance(value: float | str) -> float:
    """Kubernetes takes an integer or a quantity string here; the API server refuses a bare decimal."""
    match value:
        case str() | int() if not isinstance(value, bool):
            return parse_quantity(str(value))
        case _:
            raise ValueError(f"must be a quantity string; write a number in quotes, not {value!r}")


def _read_formula(value: Any) -> Formula:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("must be a formula over trigger names; without one, remove scalingModifiers")
    return parse_formula(value)


def _read_number(value: Any) -> str:
    """KEDA keeps these numbers as strings and parses them with ``strconv.ParseFloat``."""
    if not isinstance(value, str) or _NUMBER.fullmatch(value) is None:
        raise ValueError('must be a number written as a string, such as "8"')
    if not math.isfinite(float(value)):
        raise ValueError("is too large; write a finite number")
    return value


#: Kubernetes' numbers are of 32 bits.
_INT32 = 2**31 - 1
Count = Annotated[int, Field(ge=0, le=_INT32)]
PositiveCount = Annotated[int, Field(ge=1, le=_INT32)]
Integer = Annotated[int, Field(ge=-_INT32, le=_INT32)]

Tolerance = Annotated[float, BeforeValidator(_read_tolerance), Field(ge=0)]
NumberText = Annotated[str, BeforeValidator(_read_number)]
Target = Annotated[float, Field(ge=0.001)]


class Policy(Model):
    """At most ``value`` pods, or percent of the replicas at the period's start, within ``period_seconds``."""

    type: Literal["Pods", "Percent"]
    value: PositiveCount
    period_seconds: int = Field(gt=0, le=1800)


Window = Annotated[int, Field(ge=0, le=3600)]
# Lists come from YAML and JSON; only the kind of sequence is lenient, its entries stay strict.
Policies = Annotated[tuple[Policy, ...], Field(min_length=1, strict=False)]


class ScalingRules(Model):
    """How fast one direction may move (``HPAScalingRules``)."""

    stabilization_window_seconds: Window
    select_policy: Literal["Max", "Min", "Disabled"] = "Max"
    policies: Policies
    tolerance: Tolerance = DEFAULT_TOLERANCE


class ScaleUpRules(ScalingRules):
    """Defaults of ``GenerateHPAScaleUpRules``: at once, the larger of 4 pods and doubling per 15 s."""

    stabilization_window_seconds: Window = 0
    policies: Policies = (
        Policy(type="Pods", value=4, period_seconds=15),
        Policy(type="Percent", value=100, period_seconds=15),
    )


class ScaleDownRules(ScalingRules):
    """Defaults of ``GenerateHPAScaleDownRules``: after 300 s, to the minimum in one step."""

    stabilization_window_seconds: Window = 300
    policies: Policies = (Policy(type="Percent", value=100, period_seconds=15),)


class Behavior(Model):
    """``horizontalPodAutoscalerConfig.behavior``; its mere presence selects the HPA's newer algorithm."""

    scale_up: ScaleUpRules = ScaleUpRules()
    scale_down: ScaleDownRules = ScaleDownRules()


class Fallback(Model):
    """Which size to assume once a trigger has failed more than ``failure_threshold`` reads in a row."""

    failure_threshold: Count
    replicas: Count
    behavior: Literal[
        "static", "currentReplicas", "currentReplicasIfHigher", "currentReplicasIfLower", "scalingModifiers"
    ] = "static"


class ScalingModifiers(Model):
    """One composite metric computed from all triggers; it replaces their own metrics and activity."""

    formula: Annotated[Formula, BeforeValidator(_read_formula)]
    target: NumberText
    activation_target: NumberText = "0"
    metric_type: MetricType = "AverageValue"

    @model_validator(mode="after")
    def _target_is_positive(self) -> ScalingModifiers:
        if float(self.target) < 0.001:
            raise ValueError(f'target "{self.target}" must be 0.001 or more')
        return self

    @property
    def has_integer_target(self) -> bool:
        """Whether KEDA's ``HasValidFallback`` (``ParseInt``, 64 bits) accepts the target."""
        return re.fullmatch(r"[+-]?\d+", self.target, re.ASCII) is not None and 0 < int(self.target) < 2**63


class Trigger(Model):
    """One metric: active above ``activation``, sized by ``target`` per replica."""

    name: str = ""
    target: Target
    activation: float = 0.0
    metric_type: MetricType = "AverageValue"
    use_cached_metrics: bool = False


class Annotations(Model):
    """The ``autoscaling.keda.sh/`` annotations: pauses and forced activation."""

    paused: bool = False
    paused_replicas: Count | None = None
    paused_scale_in: bool = False
    paused_scale_out: bool = False
    force_activation: bool = False

    @property
    def is_paused(self) -> bool:
        """Whether both loops stand still; ``paused-replicas`` wins over ``paused: "false"``."""
        return self.paused or self.paused_replicas is not None

    @property
    def holds(self) -> list[str]:
        """The annotations that hold the size or one direction of it, as they are written behind the prefix."""
        held = {
            "paused": self.paused,
            "paused-replicas": self.paused_replicas is not None,
            "paused-scale-in": self.paused_scale_in,
            "paused-scale-out": self.paused_scale_out,
        }
        return [name for name, is_set in held.items() if is_set]


class LoopSettings(Model):
    """The fields that stand directly under a ScaledObject's ``spec`` and shape both loops."""

    polling_interval: PositiveCount = 30
    cooldown_period: Count = 300
    initial_cooldown_period: Count = 0
    idle_replica_count: Count | None = None
    min_replica_count: Count = 0
    max_replica_count: PositiveCount = 100
    fallback: Fallback | None = None


class ScalingSpec(LoopSettings):
    """Everything a decision depends on besides the state, the observation and the time."""

    triggers: tuple[Trigger, ...] = Field(min_length=1, strict=False)
    behavior: Behavior | None = None
    scaling_modifiers: ScalingModifiers | None = None
    annotations: Annotations = Annotations()
    #: Ours, not KEDA's: the last step to zero starts only from this many replicas or fewer; None obeys KEDA.
    scale_to_zero_from: int | None = Field(default=None, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _name_triggers(cls, data: Any) -> Any:
        """Give unnamed triggers KEDA's positional names, so that values can be told apart."""
        if not isinstance(data, Mapping) or not isinstance(data.get("triggers"), list | tuple):
            return data
        named = [
            {**entry, "name": f"s{index}"} if isinstance(entry, Mapping) and not entry.get("name") else entry
            for index, entry in enumerate(data["triggers"])
        ]
        return {**data, "triggers": named}

    @model_validator(mode="after")
    def _check_relations(self) -> ScalingSpec:
        """Refuse relations under which no decision has a meaning (``scaledobject_webhook.go``)."""
        problems = [*self._bound_problems(), *self._name_problems(), *self._formula_problems()]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _bound_problems(self) -> list[str]:
        low, high = self.min_replica_count, self.max_replica_count
        return [f"minReplicaCount {low} exceeds maxReplicaCount {high}; lower it"] if low > high else []

    def _name_problems(self) -> list[str]:
        names = [trigger.name for trigger in self.triggers]
        repeated = sorted({name for name in names if names.count(name) > 1})
        return [f"several triggers are named {name!r}; give each its own name" for name in repeated]

    def _formula_problems(self) -> list[str]:
        if self.scaling_modifiers is not None:
            unknown = self.scaling_modifiers.formula.names - {trigger.name for trigger in self.triggers}
            return [f"the formula uses {name!r}, but no trigger has this name" for name in sorted(unknown)]
        if self.fallback is not None and self.fallback.behavior == "scalingModifiers":
            return ["fallback behavior scalingModifiers needs scalingModifiers.formula; add one"]
        return []

    @property
    def hpa_min_replicas(self) -> int:
        """``GetHPAMinReplicas``: the HPA never goes below 1."""
        return max(self.min_replica_count, 1)

    @property
    def hpa_behavior(self) -> Behavior | None:
        """The generated HPA's behavior: a paused direction is ``Disabled`` there (``hpa.go``)."""
        paused = {
            direction: rules.model_copy(update={"select_policy": "Disabled"})
            for direction, rules, is_paused in self._directions()
            if is_paused
        }
        return (self.behavior or Behavior()).model_copy(update=paused) if paused else self.behavior

    def _directions(self) -> tuple[tuple[str, ScalingRules, bool], ...]:
        behavior = self.behavior or Behavior()
        return (
            ("scale_down", behavior.scale_down, self.annotations.paused_scale_in),
            ("scale_up", behavior.scale_up, self.annotations.paused_scale_out),
        )

    @property
    def active_fallback(self) -> Fallback | None:
        """The fallback KEDA honours (``HasValidFallback``): under a formula, only with an integer target."""
        if self.scaling_modifiers is not None and not self.scaling_modifiers.has_integer_target:
            return None
        return self.fallback


def read_annotations(annotations: Mapping[str, str]) -> Annotations:
    """Pick KEDA's annotations out of an object's; raises ValueError naming an unknown or unreadable one."""
    ours = {key: value for key, value in annotations.items() if key.startswith(ANNOTATION_PREFIX)}
    values: dict[str, Any] = {}
    for key, text in ours.items():
        field = key.removeprefix(ANNOTATION_PREFIX).replace("-", "_")
        if field not in Annotations.model_fields or "_" in key:
            known = ", ".join(name.replace("_", "-") for name in Annotations.model_fields)
            raise ValueError(f"{key}: unknown annotation; KEDA reads {known}")
        values[field] = _replica_count(key, text) if field == "paused_replicas" else _is_true(text)
    return Annotations(**values)


def _is_true(text: str) -> bool:
    """``getBoolAnnotation``: what Go's ``ParseBool`` does not take for false counts as true."""
    return text not in {"0", "f", "F", "false", "FALSE", "False"}


def _replica_count(key: str, text: str) -> int:
    if not re.fullmatch(r"\d{1,9}", text, re.ASCII):
        raise ValueError(f'{key}: {text!r} is not a number of replicas; write one such as "3"')
    return int(text)
