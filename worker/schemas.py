"""JSON Schemas of a program's inputs and outputs, and the way between JSON and the program's Python types."""

from __future__ import annotations

import inspect
import math
from typing import Any, get_type_hints

import dspy
from pydantic import BaseModel, ConfigDict, create_model
from pydantic_core import to_jsonable_python

#: What DSPy's custom types put around their content. In a text input it would become a content block of the prompt.
_MARKERS = ("<<CUSTOM-TYPE-START-IDENTIFIER>>", "<<CUSTOM-TYPE-END-IDENTIFIER>>")


class ProgramTypes:
    """The inputs and outputs of a program. `outputs` is None where only running it tells."""

    def __init__(self, inputs: type[BaseModel], outputs: type[BaseModel] | None) -> None:
        self.inputs = inputs
        self.outputs = outputs

    def input_schema(self) -> dict[str, Any]:
        """JSON Schema of the inputs; nothing beyond the named ones is allowed."""
        return self.inputs.model_json_schema()

    def output_schema(self) -> dict[str, Any]:
        """JSON Schema of the output."""
        return self.outputs.model_json_schema(mode="serialization") if self.outputs else {"type": "object"}

    def read_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """JSON values as the program's Python types, without DSPy's custom-type markers in texts.

        Raises:
            pydantic.ValidationError: they do not fit.
        """
        checked = self.inputs.model_validate(_without_markers(inputs))
        return {name: getattr(checked, name) for name in checked.model_fields_set}

    def write_output(self, prediction: dspy.Prediction) -> dict[str, Any]:
        """A prediction as JSON values: the signature's outputs, or whatever a free module returned.

        Raises:
            pydantic.ValidationError: a named output is missing or has the wrong type.
            pydantic_core.PydanticSerializationError: JSON cannot express it.
            TypeError: a number is not finite, which JSON cannot express either.
        """
        values = dict(prediction.items())
        if self.outputs is None:
            plain = to_jsonable_python(values)
        else:
            named = {name: values[name] for name in self.outputs.model_fields if name in values}
            plain = self.outputs.model_validate(named).model_dump(mode="json")
        assert isinstance(plain, dict)
        if not _is_finite(plain):
            raise TypeError("NaN and infinity are not JSON numbers")
        return plain

    def check_output(self, output: dict[str, Any]) -> None:
        """Make sure that a stored output is one this program could have made.

        Raises:
            pydantic.ValidationError: it is not.
        """
        if self.outputs is not None:
            self.outputs.model_validate(output)


def types_of(module: dspy.Module) -> ProgramTypes:
    """The types of a module: its signature's if it has one, else those of `forward`'s parameters."""
    signature = _signature_of(module)
    if signature is not None:
        return ProgramTypes(
            _record("Inputs", signature.input_fields, "forbid"),
            _record("Outputs", signature.output_fields, "ignore"),
        )
    return ProgramTypes(_inputs_of_forward(module), None)


def _signature_of(module: dspy.Module) -> Any:
    signature = getattr(module, "signature", None)
    if signature is None and isinstance(module, dspy.ChainOfThought):
        signature = module.predict.signature
    return signature


def _record(name: str, fields: dict[str, Any], extra: Any) -> type[BaseModel]:
    definitions: dict[str, Any] = {key: (info.annotation, _plain(info)) for key, info in fields.items()}
    return create_model(name, __config__=ConfigDict(extra=extra, arbitrary_types_allowed=True), **definitions)


def _plain(info: Any) -> Any:
    """The field without DSPy's own notes in the schema."""
    from pydantic import Field
    from pydantic.fields import FieldInfo

    assert isinstance(info, FieldInfo)
    extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
    described = extra.get("desc")
    text = described if isinstance(described, str) and not described.startswith("${") else None
    return Field(... if info.is_required() else info.default, description=text)


def _inputs_of_forward(module: dspy.Module) -> type[BaseModel]:
    forward = type(module).forward  # DSPy warns of every look at the bound method
    hints = get_type_hints(forward)
    fields: dict[str, Any] = {}
    _, *parameters = inspect.signature(forward).parameters.values()
    for parameter in parameters:
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[parameter.name] = (hints.get(parameter.name, Any), default)
    config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)
    return create_model("Inputs", __config__=config, **fields)


def _is_finite(value: Any) -> bool:
    """Whether all numbers in a JSON value are."""
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict):
        return all(map(_is_finite, value.values()))
    return not isinstance(value, list) or all(map(_is_finite, value))


def _without_markers(value: Any) -> Any:
    if isinstance(value, str):
        for marker in _MARKERS:
            value = value.replace(marker, "")
        return value
    if isinstance(value, list):
        return [_without_markers(item) for item in value]
    if isinstance(value, dict):
        return {key: _without_markers(item) for key, item in value.items()}
    return value
