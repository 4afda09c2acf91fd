"""A ScaledObject is read as KEDA reads it, and every mistake names its path and remedy."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, ValidationError

from autoscaler.scaled_object import ScaledObjectError, read_scaled_object
from autoscaler.scaled_object import _Document as Document
from autoscaler.spec import Behavior, Fallback, Policy
from autoscaler.trigger_metadata import TRIGGER_TYPES

DATA = Path(__file__).parents[1] / "data" / "autoscaler" / "keda-crds"

EXAMPLE = """
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata:
  name: dspy-worker
  annotations:
    autoscaling.keda.sh/paused-scale-in: "false"
    argocd.argoproj.io/sync-wave: "2024-05-01"
spec:
  scaleTargetRef:
    name: dspy-worker
  pollingInterval: 5
  minReplicaCount: 1
  maxReplicaCount: 20
  fallback:
    failureThreshold: 3
    replicas: 2
    behavior: scalingModifiers
  advanced:
    horizontalPodAutoscalerConfig:
      behavior:
        scaleDown:
          stabilizationWindowSeconds: 120
          tolerance: "0"
          policies:
            - {type: Pods, value: 1, periodSeconds: 30}
    scalingModifiers:
      formula: "work ?? (waiting + unacked)"
      target: "8"
  triggers:
    - type: metrics-api
      name: work
      metadata: {url: "http://api:8000/v1/autoscale", valueLocation: work}
    - type: redis
      name: waiting
      metadata: {address: "redis:6379", listName: dspy, listLength: "8"}
    - type: redis
      name: unacked
      useCachedMetrics: true
      authenticationRef: {name: redis}
      metadata: {listName: unacked, activationListLength: "2"}
"""

SMALL: dict[str, Any] = {
    "apiVersion": "keda.sh/v1alpha1",
    "kind": "ScaledObject",
    "metadata": {"name": "w"},
    "spec": {
        "scaleTargetRef": {"name": "w"},
        "triggers": [
            {"type": "prometheus", "metadata": {"serverAddress": "http://p", "query": "q", "threshold": "6.5"}}
        ],
    },
}


def _changed(path: str, value: Any) -> str:
    """Return the small example as YAML with one field set, or removed where the value is ``...``."""
    document = json.loads(json.dumps(SMALL))
    place: Any = document
    *parents, last = [int(part) if part.isdigit() else part for part in path.split("/")]
    for part in parents:
        place = place[part] if isinstance(part, int) else place.setdefault(part, {})
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return yaml.safe_dump(document)


def test_a_whole_object_is_read() -> None:
    """Every setting of a realistic file arrives, with Kubernetes' defaults where the file is silent."""
    read = read_scaled_object(EXAMPLE)
    scaling = read.scaling
    assert (read.name, read.target.name, read.target.kind) == ("dspy-worker", "dspy-worker", "Deployment")
    assert [(t.name, t.target, t.activation, t.use_cached_metrics) for t in scaling.triggers] == [
        ("work", 1.0, 0.0, False),
        ("waiting", 8.0, 0.0, False),
        ("unacked", 5.0, 2.0, True),
    ]
    assert (scaling.polling_interval, scaling.cooldown_period, scaling.min_replica_count) == (5, 300, 1)
    assert scaling.fallback == Fallback(failure_threshold=3, replicas=2, behavior="scalingModifiers")
    assert scaling.active_fallback == scaling.fallback
    assert scaling.behavior is not None
    assert scaling.behavior.scale_up == Behavior().scale_up
    assert scaling.behavior.scale_down.policies == (Policy(type="Pods", value=1, period_seconds=30),)
    assert (scaling.behavior.scale_down.tolerance, scaling.behavior.scale_up.tolerance) == (0.0, 0.1)
    assert read.sources[2].authentication_ref is not None


def test_keda_defaults_apply() -> None:
    """A minimal file has KEDA's defaults: poll 30, cooldown 300, 0 to 100 replicas, no behavior or fallback."""
    scaling = read_scaled_object(yaml.safe_dump(SMALL)).scaling
    assert (scaling.polling_interval, scaling.cooldown_period, scaling.initial_cooldown_period) == (30, 300, 0)
    assert (scaling.min_replica_count, scaling.max_replica_count, scaling.idle_replica_count) == (0, 100, None)
    assert (scaling.behavior, scaling.fallback, scaling.scaling_modifiers) == (None, None, None)
    assert (scaling.triggers[0].target, scaling.triggers[0].metric_type) == (6.5, "AverageValue")


def test_the_record_is_frozen() -> None:
    """What was checked as a whole cannot be changed field by field afterwards."""
    with pytest.raises(ValidationError):
        read_scaled_object(EXAMPLE).scaling.max_replica_count = 5  # type: ignore[misc]


def test_other_objects_may_share_the_file() -> None:
    """A file may hold the objects that belong to the ScaledObject beside it."""
    other = "apiVersion: keda.sh/v1alpha1\nkind: TriggerAuthentication\nmetadata: {name: redis}\n"
    assert read_scaled_object(f"{other}---\n{EXAMPLE}").name == "dspy-worker"


@pytest.mark.parametrize(("given", "expected"), [(None, None), ({}, Behavior())])
def test_an_empty_behavior_counts_and_a_null_one_does_not(given: Any, expected: Behavior | None) -> None:
    """``behavior: {}`` selects the newer rules; ``behavior:`` with nothing behind it is absent."""
    text = _changed("spec/advanced/horizontalPodAutoscalerConfig/behavior", given)
    assert read_scaled_object(text).scaling.behavior == expected


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        ("apiVersion", "keda.sh/v1", "apiVersion: should be 'keda.sh/v1alpha1', but it is 'keda.sh/v1'"),
        ("status", {}, "status: unknown field"),
        ("metadata/name", ..., "metadata.name: is missing"),
        ("metadata/name", "x" * 64, "metadata.name: string should have at most 63"),
        ("metadata/annotations", {"autoscaling.keda.sh/paused": True}, "paused: should be a valid string"),
        (
            "metadata/annotations",
            {"autoscaling.keda.sh/paused-scale-down": "true"},
            "metadata.annotations.autoscaling.keda.sh/paused-scale-down: unknown annotation; KEDA reads paused,",
        ),
        (
            "metadata/annotations",
            {"autoscaling.keda.sh/paused-replicas": "two"},
            "paused-replicas: 'two' is not a number of replicas",
        ),
        ("spec/scaleTargetRef", ..., "spec.scaleTargetRef: is missing"),
        ("spec/scaleTargetRef/name", "", "spec.scaleTargetRef.name: "),
        ("spec/minReplicas", 1, "spec.minReplicas: unknown field; did you mean minReplicaCount?"),
        ("spec/behavior", {}, "spec.behavior: unknown field"),
        ("spec/scaleToZeroFrom", 1, "spec.scaleToZeroFrom: unknown field"),
        ("spec/minReplicaCount", "1", "spec.minReplicaCount: should be a valid integer, but it is '1'"),
        ("spec/minReplicaCount", True, "spec.minReplicaCount: should be a valid integer"),
        ("spec/minReplicaCount", -1, "spec.minReplicaCount: should be greater than or equal to 0"),
        ("spec/minReplicaCount", 101, "spec.minReplicaCount: 101 exceeds maxReplicaCount 100"),
        ("spec/maxReplicaCount", 0, "spec.maxReplicaCount: should be greater than or equal to 1"),
        ("spec/pollingInterval", 0, "spec.pollingInterval: should be greater than or equal to 1"),
        ("spec/cooldownPeriod", -1, "spec.cooldownPeriod: "),
        ("spec/initialCooldownPeriod", -1, "spec.initialCooldownPeriod: "),
        ("spec/idleReplicaCount", 0, "spec.idleReplicaCount: 0 must be less than minReplicaCount 0"),
        ("spec/idleReplicaCount", 2, "spec.idleReplicaCount: 2 is not supported by KEDA; write 0"),
        ("spec/fallback", {"replicas": 1}, "spec.fallback.failureThreshold: is missing"),
        ("spec/fallback", {"replicas": -1, "failureThreshold": 1}, "spec.fallback.replicas: "),
        (
            "spec/fallback",
            {"replicas": 1, "failureThreshold": 1, "behavior": "currentReplica"},
            "spec.fallback.behavior: should be 'static',",
        ),
        (
            "spec/fallback",
            {"replicas": 1, "failureThreshold": 1, "behavior": "scalingModifiers"},
            "needs scalingModifiers.formula",
        ),
        ("spec/triggers", [], "spec.triggers: is empty; add at least one entry"),
        ("spec/triggers/0/type", "rediss", "spec.triggers[0].type: unknown trigger type 'rediss'; use one of redis,"),
        ("spec/triggers/0/type", ["redis"], "spec.triggers[0].type: unknown trigger type"),
        ("spec/triggers/0/type", "cpu", "spec.triggers[0].type: unknown trigger type 'cpu'"),
        ("spec/triggers/0/metricType", "Utilization", "spec.triggers[0].metricType: "),
        ("spec/triggers/0/meta", {}, "spec.triggers[0].meta: unknown field"),
        ("spec/triggers/0/metadata/threshold", 6.5, "spec.triggers[0].metadata.threshold: should be a valid string"),
        ("spec/triggers/0/metadata/threshold", "0", 'spec.triggers[0].metadata.threshold: "0" must be 0.001 or more'),
        ("spec/triggers/0/metadata/threshold", "many", "threshold: 'many' is not a number"),
        ("spec/triggers/0/metadata/threshold", ..., "threshold: is missing; a prometheus trigger needs it"),
        ("spec/triggers/0/metadata/treshold", "1", "treshold: unknown field; did you mean threshold?"),
        ("spec/triggers/0/metadata/query", ..., "query: is missing; a prometheus trigger needs it"),
        ("spec/triggers/0/metadata/ignoreNullValues", "no", "'no' is not a boolean"),
        ("spec/triggers/0/metadata/timeout", "soon", "'soon' is not a timeout"),
        ("spec/triggers/0/authenticationRef", {"kind": "Secret"}, "authenticationRef.name: is missing"),
        ("spec/advanced", {"scalingModifier": {}}, "did you mean scalingModifiers?"),
        ("spec/advanced/scalingModifiers", {"target": "1"}, "spec.advanced.scalingModifiers.formula: is missing"),
        ("spec/advanced/scalingModifiers", {"formula": "a"}, "spec.advanced.scalingModifiers.target: is missing"),
        (
            "spec/advanced/scalingModifiers",
            {"formula": "a > 1", "target": "1"},
            "spec.advanced.scalingModifiers.formula: '> 1' is not allowed in a formula",
        ),
        (
            "spec/advanced/scalingModifiers",
            {"formula": "a", "target": "1"},
            "spec.triggers[0].name: is missing; a formula needs every trigger to have a name",
        ),
        ("spec/advanced/scalingModifiers", {"formula": "a", "target": 8}, "must be a number written as a string"),
        ("spec/advanced/scalingModifiers", {"formula": "a", "target": "0"}, 'target "0" must be 0.001 or more'),
        ("spec/advanced/scalingModifiers", {"formula": "", "target": "1"}, "must be a formula"),
    ],
)
def test_mistakes_name_their_path_and_remedy(path: str, value: Any, problem: str) -> None:
    """Unknown fields, wrong types, broken bounds and broken relations are refused, each with its path."""
    with pytest.raises(ScaledObjectError) as refused:
        read_scaled_object(_changed(path, value), "k8s/scaledobject.yaml")
    assert str(refused.value).startswith("k8s/scaledobject.yaml is not a usable ScaledObject:\n")
    assert any(problem in line for line in refused.value.problems), refused.value.problems


BEHAVIOR = "spec/advanced/horizontalPodAutoscalerConfig/behavior"


@pytest.mark.parametrize(
    ("rules", "problem"),
    [
        ({"stabilizationWindowSeconds": 3601}, "stabilizationWindowSeconds: should be less than or equal to 3600"),
        ({"stabilizationWindowSeconds": -1}, "stabilizationWindowSeconds: "),
        ({"selectPolicy": "max"}, "selectPolicy: should be 'Max', 'Min' or 'Disabled', but it is 'max'"),
        ({"policies": []}, "policies: is empty; add at least one entry"),
        ({"policies": [{"type": "Pod", "value": 1, "periodSeconds": 1}]}, "policies[0].type: should be 'Pods'"),
        ({"policies": [{"type": "Pods", "value": 0, "periodSeconds": 1}]}, "policies[0].value: "),
        ({"policies": [{"type": "Pods", "value": 1, "periodSeconds": 1801}]}, "policies[0].periodSeconds: "),
        ({"policies": [{"type": "Pods", "value": 1, "period": 1}]}, "did you mean periodSeconds?"),
        ({"tolerance": 0.05}, "tolerance: must be a quantity string; write a number in quotes, not 0.05"),
        ({"tolerance": "-1"}, "tolerance: "),
        ({"tolerance": "5%"}, "tolerance: '5%' is not a quantity"),
    ],
)
@pytest.mark.parametrize("direction", ["scaleUp", "scaleDown"])
def test_behavior_keeps_kubernetes_limits(direction: str, rules: dict[str, Any], problem: str) -> None:
    """Windows, policies and tolerances outside what Kubernetes accepts are refused, once and with their path."""
    with pytest.raises(ScaledObjectError) as refused:
        read_scaled_object(_changed(f"{BEHAVIOR}/{direction}", rules))
    place = f"spec.advanced.horizontalPodAutoscalerConfig.behavior.{direction}."
    assert all(line.startswith(place) for line in refused.value.problems)
    assert any(problem in line for line in refused.value.problems), refused.value.problems


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("name: waiting", "name: work", "several triggers are named 'work'"),
        ("waiting + unacked", "waiting + unackd", "the formula uses 'unackd', but no trigger has this name"),
        ('target: "8"', 'target: "6.4"', '"6.4" is not an integer, so KEDA would silently disable spec.fallback'),
        ('address: "redis:6379", ', "", "spec.triggers[1].metadata.address: is missing"),
        ('listLength: "8"', 'listLength: "8.5"', "spec.triggers[1].metadata.listLength: '8.5' is not a count"),
        ("kind: ScaledObject", "kind: ScaledJob", "holds 0 objects of kind ScaledObject"),
        ("pollingInterval: 5", "pollingInterval: 5\n  pollingInterval: 6", "'pollingInterval' is given twice"),
        ("spec:", "spec: [", "not readable as YAML"),
        ("valueLocation: work", "valueLocation: work, format: jsn", "format: 'jsn' is unknown; use one of json,"),
    ],
)
def test_mistakes_across_fields_are_refused(old: str, new: str, problem: str) -> None:
    """Relations that no schema checks are checked: names, formulas, addresses, and the silent fallback trap."""
    assert old in EXAMPLE
    with pytest.raises(ScaledObjectError) as refused:
        read_scaled_object(EXAMPLE.replace(old, new))
    assert problem in str(refused.value)


def test_all_mistakes_are_reported_at_once() -> None:
    """A file with three mistakes is told all three."""
    text = EXAMPLE.replace("minReplicaCount", "minReplicas").replace("value: 1,", "value: 0,")
    with pytest.raises(ScaledObjectError) as refused:
        read_scaled_object(text.replace("pollingInterval: 5", "pollingInterval: 0"))
    assert len(refused.value.problems) == 3


@pytest.mark.parametrize(
    ("metadata", "is_complete"),
    [
        ({"host": "r", "port": "1"}, True),
        ({"hostFromEnv": "H", "portFromEnv": "P"}, True),
        ({"addressFromEnv": "A"}, True),
        ({"host": "r"}, False),
        ({}, False),
    ],
)
def test_redis_needs_an_address(metadata: dict[str, str], is_complete: bool) -> None:
    """A redis trigger needs an address, or host and port, themselves or from the container's environment."""
    trigger = {"type": "redis", "metadata": {"listName": "l", **metadata}}
    text = _changed("spec/triggers", [trigger])
    if is_complete:
        assert read_scaled_object(text).scaling.triggers[0].target == 5.0
    else:
        with pytest.raises(ScaledObjectError, match=r"triggers\[0\].metadata.address: is missing"):
            read_scaled_object(text)


def _properties(schema: dict[str, Any], place: str = "") -> Iterator[str]:
    for name, inner in schema.get("properties", {}).items():
        yield f"{place}{name}"
        yield from _properties(inner, f"{place}{name}.")
        yield from _properties(inner.get("items", {}), f"{place}{name}.")


def _model_of(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    models = [_model_of(argument) for argument in getattr(annotation, "__args__", ())]
    return next((model for model in models if model is not None), None)


def _fields(model: type[BaseModel], place: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield f"{place}{field.alias or name}"
        inner = _model_of(field.annotation)
        if inner is not None:
            yield from _fields(inner, f"{place}{field.alias or name}.")


def test_the_fields_are_those_of_the_crd() -> None:
    """We know exactly the spec fields of KEDA's CRD, no more and no fewer."""
    crd = yaml.safe_load((DATA / "keda.sh_scaledobjects.yaml").read_text())
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    ours = {name.removeprefix("spec.") for name in _fields(Document) if name.startswith("spec.")}
    assert ours == set(_properties(schema))


#: Fields of redis that only its cluster and sentinel kinds read.
OTHER_REDIS_KINDS = {"addresses", "hosts", "ports", "sentinelMaster", "sentinelUsername", "sentinelPassword"}
#: Authentication settings that KEDA reads but its generated schema leaves out.
OMITTED_BY_SCHEMA = {"authMode", "authModes", "method", "keyParamName"}


@pytest.mark.parametrize("kind", sorted(TRIGGER_TYPES))
def test_trigger_fields_are_those_of_keda(kind: str) -> None:
    """For each trigger type we know exactly the metadata that KEDA's generated schema lists."""
    schema = json.loads((DATA / "scalers-schema.json").read_text())
    parameters = next(scaler["parameters"] for scaler in schema["scalers"] if scaler["type"] == kind)
    theirs = {p["name"] for p in parameters if p.get("metadataVariableReadable")} - OTHER_REDIS_KINDS
    theirs |= {f"{p['name']}FromEnv" for p in parameters if p.get("envVariableReadable") and p["name"] in theirs}
    assert set(TRIGGER_TYPES[kind].fields) - OMITTED_BY_SCHEMA == theirs
