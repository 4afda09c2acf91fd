"""What a prompt asks for: the fields, types and inputs that DSPy's Chat, JSON and XML adapters write."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, TypeAlias
from xml.etree import ElementTree

from sandbox import python_types
from sandbox.python_types import Schema

Format: TypeAlias = Literal["chat", "json", "xml"]

#: Marks a value whose type the prompt does not say (XML shows nested fields by their tags only).
UNTYPED = "untyped"

_OUTPUTS = re.compile(r"Your output fields are:\n(.*?)\nAll interactions will be structured", re.DOTALL)
_FIELD = re.compile(r"^\d+\. `(\w+)` \((.*)$", re.MULTILINE)
_JSON_STRUCTURE = "Outputs will be a JSON object with the following fields.\n\n"
_NOTE = "        # note: the value you produce "
_SCHEMA_NOTE = "must adhere to the JSON schema: "
_OPTIONS_NOTE = re.compile(r"must (?:exactly match \(no extra characters\) |be )one of: (.*)")
_CONSTRAINTS = re.compile(r"^Constraints: (.*)$", re.MULTILINE)
_TOOL = re.compile(
    r"^\s*\(\d+\) (\w+)(?:, whose description is <desc>.*?</desc>)?\. It takes arguments (\{.*\})\.$",
    re.MULTILINE,
)
_HEADER = re.compile(r"^\[\[ ## (\w+) ## \]\]\n?", re.MULTILINE)
_ELEMENT = re.compile(r"^<(\w+)>\n(.*?)\n?</\1>", re.MULTILINE | re.DOTALL)
_REMINDER = re.compile(
    r"\n*^Respond with (?:the corresponding output fields|a JSON object in the)",
    re.MULTILINE,
)

#: DSPy's words for a constraint → JSON Schema's word for numbers.
BOUNDS = {
    "greater than or equal to": "minimum",
    "less than or equal to": "maximum",
    "greater than": "exclusiveMinimum",
    "less than": "exclusiveMaximum",
    "a multiple of the given number": "multipleOf",
}
#: DSPy's words for a length → the ends of `minLength`, `minItems`, `minProperties` and their max.
LENGTHS = {"minimum length": "min", "maximum length": "max"}
LENGTH_OF = {"string": "Length", "array": "Items", "object": "Properties"}


@dataclass(frozen=True, slots=True)
class OutputField:
    """A value to produce. `bare`: a string is written as it is, otherwise as JSON, since DSPy reads it so."""

    name: str
    schema: Schema
    bare: bool = True


@dataclass(frozen=True, slots=True)
class Layout:
    """What a system prompt asks of every answer; `tools` maps a ReAct agent's tools to their arguments."""

    format: Format
    outputs: tuple[OutputField, ...]
    tools: Mapping[str, Mapping[str, Schema]]


@lru_cache(maxsize=512)
def read_layout(system: str) -> Layout | None:
    """What a system prompt by DSPy asks for, or None for any other prompt."""
    section = _OUTPUTS.search(system)
    if not section:
        return None
    structure = system[section.end() :]
    format_ = _format(structure)
    described = _described(section.group(1))
    notes = _json_notes(structure) if format_ == "json" else _notes(structure)
    outputs = tuple(_output(name, *described[name], notes.get(name, ""), structure) for name in described)
    return Layout(format_, outputs, _tools(structure)) if outputs else None


def read_inputs(format_: Format, user: str) -> dict[str, str]:
    """The input values in a user message, by field name."""
    reminders = list(_REMINDER.finditer(user))
    text = user[: reminders[-1].start()] if reminders else user
    if format_ == "xml":
        return {match[1]: match[2].strip() for match in _ELEMENT.finditer(text)}
    parts = _HEADER.split(text)
    return {name: value.strip() for name, value in zip(parts[1::2], parts[2::2], strict=True)}


def _format(structure: str) -> Format:
    if _JSON_STRUCTURE in structure:
        return "json"
    return "chat" if "[[ ## completed ## ]]" in structure else "xml"


def _described(section: str) -> dict[str, tuple[str, str]]:
    """Each output field's annotation and description, by name."""
    found = list(_FIELD.finditer(section))
    ends = [match.start() for match in found[1:]] + [len(section)]
    return {
        match[1]: _annotation_and_description(section[match.start(2) : end])
        for match, end in zip(found, ends, strict=True)
    }


def _annotation_and_description(text: str) -> tuple[str, str]:
    """Split `Literal['a):']): description` at the first `):` that leaves a whole expression before it."""
    for end in re.finditer(r"\):", text):
        try:
            ast.parse(text[: end.start()], mode="eval")
        except SyntaxError:
            continue
        return text[: end.start()], text[end.end() :].strip()
    return "str", ""


def _notes(structure: str) -> dict[str, str]:
    pattern = re.compile(r"^\{(\w+)\}" + re.escape(_NOTE) + r"(.*)$", re.MULTILINE)
    return {match[1]: match[2] for match in pattern.finditer(structure)}


def _json_notes(structure: str) -> dict[str, str]:
    _, _, rest = structure.partition(_JSON_STRUCTURE)
    try:
        fields, _ = json.JSONDecoder().raw_decode(rest)
    except ValueError:
        return {}
    return {name: str(text).partition(_NOTE)[2] for name, text in fields.items()}


def _output(name: str, annotation: str, description: str, note: str, structure: str) -> OutputField:
    known = python_types.parse(annotation, _explained(name, note, structure))
    schema = json.loads(note.removeprefix(_SCHEMA_NOTE)) if note.startswith(_SCHEMA_NOTE) else known
    bare = not note.startswith(_SCHEMA_NOTE) or _takes_bare_strings(known)
    return OutputField(name, _constrained(schema, description), bare)


def _explained(name: str, note: str, structure: str) -> Schema:
    """What the prompt says about a class: an enum's values or the tags of its XML; else a string."""
    if options := _OPTIONS_NOTE.match(note):
        return {"enum": [_option(option) for option in options[1].split("; ")]}
    if skeleton := re.search(rf"^<{name}>(?!\n).*</{name}>$", structure, re.MULTILINE):
        return _skeleton(ElementTree.fromstring(skeleton[0]))
    return {"type": "string"}


def _option(text: str) -> Any:
    return int(text) if re.fullmatch(r"-?\d{1,15}", text) else text


def _skeleton(element: ElementTree.Element) -> Schema:
    children = list(element)
    if not children:
        return {UNTYPED: True}
    if [child.tag for child in children] == ["item"]:
        return {"type": "array", "items": _skeleton(children[0]), "minItems": 1}
    return {
        "type": "object",
        "properties": {child.tag: _skeleton(child) for child in children},
        "required": [child.tag for child in children],
    }


def _takes_bare_strings(schema: Schema) -> bool:
    choices = schema.get("anyOf", [schema])
    return all("enum" in choice for choice in choices) or (
        {"type": "string"} in choices and {"type": "null"} in choices
    )


def _constrained(schema: Schema, description: str) -> Schema:
    """The schema with the description's constraints, applied to the part of a union that is not null."""
    constraints = _CONSTRAINTS.findall(description)
    schema = {**schema, "description": _CONSTRAINTS.sub("", description).strip()}
    if not constraints:
        return schema
    if "anyOf" in schema:
        return {
            **schema,
            "anyOf": [_bounded(choice, constraints[-1]) for choice in schema["anyOf"]],
        }
    return _bounded(schema, constraints[-1])


def _bounded(schema: Schema, constraints: str) -> Schema:
    bounds: Schema = {}
    for words, number in re.findall(r"([a-z ]+): (-?[\d.]+(?:e[+-]?\d+)?)(?:, |$)", constraints):
        value = float(number) if re.search(r"[.e]", number) else int(number)
        if words in BOUNDS and schema.get("type") in ("integer", "number"):
            bounds[BOUNDS[words]] = value
        elif words in LENGTHS and schema.get("type") in LENGTH_OF:
            bounds[LENGTHS[words] + LENGTH_OF[schema["type"]]] = value
    return {**schema, **bounds}


def _tools(instructions: str) -> dict[str, dict[str, Schema]]:
    tools = {}
    for name, arguments in _TOOL.findall(instructions):
        try:
            tools[name] = ast.literal_eval(arguments)
        except (ValueError, SyntaxError):
            tools[name] = {}
    return tools
