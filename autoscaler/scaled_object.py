"""Reads a KEDA ScaledObject, so that the file which scales the cluster also scales a laptop.

What KEDA's CRD and admission webhook refuse is refused here too (``scaledobject_types.go``,
``scaledobject_webhook.go``), and so is what KEDA would ignore in silence: every mistake names its path and
remedy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field, ValidationError

from autoscaler.problems import describe
from autoscaler.spec import (
    Annotations,
    Behavior,
    LoopSettings,
    MetricType,
    Model,
    ScalingModifiers,
    ScalingSpec,
    Trigger,
    read_annotations,
)
from autoscaler.trigger_metadata import TRIGGER_TYPES, metadata_problems, read_activation, read_target


class ScaledObjectError(ValueError):
    """A ScaledObject cannot be used; ``problems`` holds one line per mistake."""

    def __init__(self, origin: str, problems: list[str]) -> None:
        super().__init__("\n  ".join([f"{origin} is not a usable ScaledObject:", *problems]))
        self.problems = tuple(problems)


class AuthenticationRef(Model):
    """The TriggerAuthentication that holds a trigger's secrets."""

    name: str = Field(min_length=1)
    kind: Literal["TriggerAuthentication", "ClusterTriggerAuthentication"] = "TriggerAuthentication"


def _read_type(value: Any) -> Any:
    if not isinstance(value, str) or value not in TRIGGER_TYPES:
        raise ValueError(f"unknown trigger type {value!r}; use one of {', '.join(TRIGGER_TYPES)}")
    return value


class TriggerSource(Model):
    """Where one trigger's value comes from."""

    type: Annotated[str, BeforeValidator(_read_type)]
    name: str = ""
    metadata: Mapping[str, str]
    metric_type: MetricType = "AverageValue"
    use_cached_metrics: bool = False
    authentication_ref: AuthenticationRef | None = None


class ScaleTarget(Model):
    """The workload that is scaled."""

    name: str = Field(min_length=1)
    api_version: str = "apps/v1"
    kind: str = "Deployment"
    env_source_container_name: str | None = None


class _HpaConfig(Model):
    behavior: Behavior | None = None
    name: str | None = None


class _Advanced(Model):
    horizontal_pod_autoscaler_config: _HpaConfig = _HpaConfig()
    restore_to_original_replica_count: bool = False
    scaling_modifiers: ScalingModifiers | None = None


class _Spec(LoopSettings):
    scale_target_ref: ScaleTarget
    advanced: _Advanced = _Advanced()
    triggers: tuple[TriggerSource, ...] = Field(min_length=1, strict=False)


class _Metadata(Model):
    name: str = Field(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=63)
    namespace: str | None = None
    labels: Mapping[str, str] = {}
    annotations: Mapping[str, str] = {}
    finalizers: tuple[str, ...] = Field(default=(), strict=False)


class _Document(Model):
    api_version: Literal["keda.sh/v1alpha1"]
    kind: Literal["ScaledObject"]
    metadata: _Metadata
    spec: _Spec


@dataclass(frozen=True)
class ScaledObject:
    """A checked ScaledObject: what is scaled, where its metrics come from, and the settings of both loops."""

    name: str
    target: ScaleTarget
    sources: tuple[TriggerSource, ...]
    scaling: ScalingSpec
    namespace: str | None = None

    @property
    def load_per_replica(self) -> float:
        """The load one replica carries: the formula's target, else the first trigger's."""
        modifiers = self.scaling.scaling_modifiers
        return float(modifiers.target) if modifiers else self.scaling.triggers[0].target


def read_scaled_object(text: str, origin: str = "the file") -> ScaledObject:
    """Read the one ScaledObject of a YAML file; raises ScaledObjectError listing every mistake.

    ``origin`` names the file in the error. Other objects in the file are left to whoever reads them.
    """
    raw = _only_scaled_object(text, origin)
    try:
        document = _Document.model_validate(_without_nulls(raw))
    except ValidationError as error:
        raise ScaledObjectError(origin, describe(error, _Document)) from error
    problems = list(_problems(document))
    if problems:
        raise ScaledObjectError(origin, problems)
    return _build(document, origin)


class _Loader(yaml.SafeLoader):
    """YAML as the API server takes it: a repeated key is a mistake, and a date is only text."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        repeated = [key for index, key in enumerate(keys) if key in keys[:index]]
        if repeated:
            raise yaml.constructor.ConstructorError(
                None, None, f"field {repeated[0]!r} is given twice; remove one", node.start_mark
            )
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _only_scaled_object(text: str, origin: str) -> dict[str, Any]:
    try:
        documents = list(yaml.load_all(text, Loader=_Loader))
    except yaml.YAMLError as error:
        raise ScaledObjectError(origin, [f"not readable as YAML: {error}"]) from error
    found = [doc for doc in documents if isinstance(doc, dict) and doc.get("kind") == "ScaledObject"]
    if len(found) != 1:
        raise ScaledObjectError(origin, [f"holds {len(found)} objects of kind ScaledObject; it must hold one"])
    return found[0]


def _without_nulls(value: Any) -> Any:
    """The API server drops nulls, so ``behavior:`` with nothing behind it is no behavior."""
    if isinstance(value, dict):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    return [_without_nulls(inner) for inner in value] if isinstance(value, list) else value


def _problems(document: _Document) -> Iterator[str]:
    """Yield the mistakes that concern several fields at once, which no schema can express."""
    yield from _annotation_problems(document.metadata.annotations)
    yield from _replica_problems(document.spec)
    yield from _trigger_problems(document.spec)
    modifiers, fallback = document.spec.advanced.scaling_modifiers, document.spec.fallback
    if modifiers is not None and fallback is not None and not modifiers.has_integer_target:
        yield (
            f'spec.advanced.scalingModifiers.target: "{modifiers.target}" is not an integer, so KEDA would '
            "silently disable spec.fallback; write an integer target or remove the fallback"
        )


def _annotation_problems(annotations: Mapping[str, str]) -> Iterator[str]:
    try:
        read_annotations(annotations)
    except ValueError as error:
        yield f"metadata.annotations.{error}"


def _replica_problems(spec: _Spec) -> Iterator[str]:
    low, high, idle = spec.min_replica_count, spec.max_replica_count, spec.idle_replica_count
    if low > high:
        yield f"spec.minReplicaCount: {low} exceeds maxReplicaCount {high}; lower it or raise the maximum"
    if idle is not None and idle != 0:
        yield f"spec.idleReplicaCount: {idle} is not supported by KEDA; write 0 or remove it"
    elif idle is not None and idle >= low:
        yield f"spec.idleReplicaCount: {idle} must be less than minReplicaCount {low}; raise the minimum"


def _trigger_problems(spec: _Spec) -> Iterator[str]:
    has_formula = spec.advanced.scaling_modifiers is not None
    for index, source in enumerate(spec.triggers):
        place = f"spec.triggers[{index}]"
        if has_formula and not source.name:
            yield f"{place}.name: is missing; a formula needs every trigger to have a name"
        problems = metadata_problems(
            source.type,
            source.metadata,
            has_authentication=source.authentication_ref is not None,
            needs_target=not has_formula,
        )
        yield from (f"{place}.metadata.{field}: {problem}" for field, problem in problems)


def _build(document: _Document, origin: str) -> ScaledObject:
    spec = document.spec
    try:
        scaling = _scaling(spec, read_annotations(document.metadata.annotations))
    except ValidationError as error:
        raise ScaledObjectError(origin, describe(error, ScalingSpec, ["spec"])) from error
    metadata = document.metadata
    return ScaledObject(metadata.name, spec.scale_target_ref, spec.triggers, scaling, metadata.namespace)


def _scaling(spec: _Spec, annotations: Annotations) -> ScalingSpec:
    shared = {name: getattr(spec, name) for name in LoopSettings.model_fields}
    return ScalingSpec(
        **shared,
        triggers=tuple(_trigger(source, index) for index, source in enumerate(spec.triggers)),
        behavior=spec.advanced.horizontal_pod_autoscaler_config.behavior,
        scaling_modifiers=spec.advanced.scaling_modifiers,
        annotations=annotations,
    )


def _trigger(source: TriggerSource, index: int) -> Trigger:
    return Trigger(
        name=source.name or f"s{index}",
        target=read_target(source.type, source.metadata),
        activation=read_activation(source.type, source.metadata),
        metric_type=source.metric_type,
        use_cached_metrics=source.use_cached_metrics,
    )
