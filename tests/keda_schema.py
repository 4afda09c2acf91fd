"""KEDA's custom resources as plain JSON Schema, and its triggers' metadata, as the API server and KEDA check them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import yaml

_DATA = Path(__file__).parent / "data" / "autoscaler" / "keda-crds"


def problems(manifest: dict[str, Any]) -> list[str]:
    """What KEDA's schemas refuse in an object of one of its kinds."""
    validator = jsonschema.Draft202012Validator(_schema(manifest["kind"]))
    found = [f"{error.json_path}: {error.message}" for error in validator.iter_errors(manifest)]
    for index, trigger in enumerate(manifest["spec"].get("triggers", [])):
        found += [f"triggers[{index}].{problem}" for problem in _trigger_problems(trigger)]
    return found


def _schema(kind: str) -> dict[str, Any]:
    crd = yaml.safe_load((_DATA / f"keda.sh_{kind.lower()}s.yaml").read_text())
    (version,) = (v for v in crd["spec"]["versions"] if v["served"])
    schema = _plain(version["schema"]["openAPIV3Schema"])
    schema["properties"] |= {
        "apiVersion": {"const": f"{crd['spec']['group']}/{version['name']}"},
        "kind": {"const": crd["spec"]["names"]["kind"]},
        "metadata": {"type": "object", "required": ["name"]},
    }
    schema["required"] = ["apiVersion", "kind", "metadata", "spec"]
    return schema


def _plain(schema: Any) -> Any:
    """Kubernetes' additions in JSON Schema's own words; a field that is not listed is a mistake."""
    if isinstance(schema, list):
        return [_plain(inner) for inner in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {key: _plain(value) for key, value in schema.items() if not key.startswith("x-kubernetes-")}
    if schema.get("x-kubernetes-int-or-string"):
        plain.pop("anyOf", None)
        plain["type"] = ["integer", "string"]
    elif plain.pop("nullable", False):
        plain["type"] = [plain["type"], "null"]
    if isinstance(schema.get("properties"), dict) and "type" in schema:
        is_open = schema.get("x-kubernetes-preserve-unknown-fields", False)
        plain.setdefault("additionalProperties", bool(is_open))
    return plain


def _trigger_problems(trigger: dict[str, Any]) -> Iterator[str]:
    scalers = json.loads((_DATA / "scalers-schema.json").read_text())["scalers"]
    parameters = next((s["parameters"] for s in scalers if s["type"] == trigger["type"]), None)
    if parameters is None:
        yield f"type: unknown: {trigger['type']}"
        return
    known = {p["name"]: p for p in parameters if p.get("metadataVariableReadable")}
    from_environment = {f"{p['name']}FromEnv" for p in parameters if p.get("envVariableReadable")}
    for name, value in trigger["metadata"].items():
        if name not in known and name not in from_environment:
            yield f"metadata.{name}: unknown"
        elif (allowed := known.get(name, {}).get("allowedValue")) and value not in allowed:
            yield f"metadata.{name}: {value} is none of {allowed}"
    for name, parameter in known.items():
        is_required = not parameter.get("optional") and "default" not in parameter
        if is_required and name not in trigger["metadata"] and "triggerAuthenticationVariableReadable" not in parameter:
            yield f"metadata.{name}: missing"
