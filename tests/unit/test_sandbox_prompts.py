"""What the sandbox reads out of prompts that DSPy's own adapters write."""

from __future__ import annotations

import enum
import subprocess
import sys
from typing import Any, Literal

import dspy
import pytest
from dspy.adapters.chat_adapter import ChatAdapter
from pydantic import BaseModel

from sandbox import prompts, python_types, react
from sandbox.prompts import UNTYPED, Layout

ADAPTERS = [dspy.ChatAdapter(), dspy.JSONAdapter(), dspy.XMLAdapter()]
every_adapter = pytest.mark.parametrize("adapter", ADAPTERS, ids=["chat", "json", "xml"])


class Mood(enum.Enum):
    """An enumeration, which prompts describe by its values."""

    GOOD = "good"
    BAD = "bad"


class Item(BaseModel):
    """A nested record."""

    sku: str
    quantity: int


class Everything(dspy.Signature):
    """Fill in every kind of field.

    2. `decoy` (int): this line is part of the instructions.
    """

    text: str = dspy.InputField(desc="Your output fields are: none")
    hints: list[str] = dspy.InputField()
    plain: str = dspy.OutputField(desc="first line\nsecond line (str): of the description")
    score: int = dspy.OutputField(ge=1, le=5, desc="how much")
    share: float = dspy.OutputField(gt=0, lt=1)
    sure: bool = dspy.OutputField()
    category: Literal["a; b", "it's", "c):"] = dspy.OutputField()
    level: Literal[1, 2, 3] = dspy.OutputField()
    mood: Mood = dspy.OutputField()
    tags: list[Literal["p", "q"]] = dspy.OutputField(min_length=2)
    weights: dict[str, float] = dspy.OutputField()
    nick: str | None = dspy.OutputField(max_length=5)
    item: Item = dspy.OutputField()


def read(
    adapter: ChatAdapter, signature: type[dspy.Signature], inputs: dict[str, Any]
) -> tuple[Layout, dict[str, str]]:
    """The layout and the inputs that the sandbox reads from an adapter's messages."""
    messages = adapter.format(signature, [], inputs)
    layout = prompts.read_layout(messages[0]["content"])
    assert layout is not None
    return layout, prompts.read_inputs(layout.format, messages[-1]["content"])


def relevant(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema without the words that only explain it."""
    return {key: value for key, value in schema.items() if key not in ("description", "title")}


@every_adapter
def test_every_output_field_is_read(adapter: ChatAdapter) -> None:
    """Names, order, types, options and constraints of the output fields are what the signature says."""
    layout, _ = read(adapter, Everything, {"text": "hello", "hints": ["a", "b"]})
    schemas = {field.name: relevant(field.schema) for field in layout.outputs}
    assert list(schemas) == list(Everything.output_fields)
    assert schemas["plain"] == {"type": "string"}
    assert schemas["score"] == {"type": "integer", "minimum": 1, "maximum": 5}
    assert schemas["share"] == {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}
    assert schemas["sure"] == {"type": "boolean"}
    assert schemas["category"] == {"enum": ["a; b", "it's", "c):"]}
    assert schemas["level"] == {"enum": [1, 2, 3]}
    assert schemas["mood"] == {"enum": ["good", "bad"]}
    assert schemas["tags"]["items"]["enum"] == ["p", "q"]
    assert schemas["tags"]["minItems"] == 2
    assert schemas["weights"] == {"type": "object", "additionalProperties": {"type": "number"}}
    assert schemas["nick"] == {"anyOf": [{"type": "string", "maxLength": 5}, {"type": "null"}]}
    assert set(schemas["item"]["properties"]) == {"sku", "quantity"}


def test_xml_tells_nested_names_only() -> None:
    """The XML adapter shows a nested record's tags without types; the sandbox does not pretend otherwise."""
    layout, _ = read(dspy.XMLAdapter(), Everything, {"text": "x", "hints": []})
    item = next(field.schema for field in layout.outputs if field.name == "item")
    assert item["properties"] == {"sku": {UNTYPED: True}, "quantity": {UNTYPED: True}}


@every_adapter
def test_inputs_are_read_as_given(adapter: ChatAdapter) -> None:
    """Input values come back whole, over several lines, without the reminder that follows them."""
    _, inputs = read(adapter, Everything, {"text": "first\n\nsecond <b> & more", "hints": ["a", "b"]})
    assert inputs == {"text": "first\n\nsecond <b> & more", "hints": '["a", "b"]'}


@every_adapter
def test_a_react_step_names_its_tools(adapter: ChatAdapter) -> None:
    """The tools of a ReAct agent are read with the schemas of their arguments."""

    def get_weather(city: str, days: int = 3) -> str:
        """Weather (of a city). It takes arguments {'x': 1}."""
        return city

    agent = dspy.ReAct("question -> answer", tools=[get_weather])
    layout, inputs = read(adapter, agent.react.signature, {"question": "Weather in Tokyo?", "trajectory": ""})
    assert react.is_step(layout)
    assert layout.tools == {
        "get_weather": {"city": {"type": "string"}, "days": {"type": "integer", "default": 3}},
        "finish": {},
    }
    step = react.step(layout, "", inputs)
    assert (step["next_tool_name"], step["next_tool_args"]) == ("get_weather", {"city": "Tokyo"})


@pytest.mark.parametrize("system", ["", "You are a helpful assistant.", "Your output fields are:\nnothing known"])
def test_other_prompts_have_no_layout(system: str) -> None:
    """A prompt that DSPy did not write is not mistaken for one."""
    assert prompts.read_layout(system) is None


@pytest.mark.parametrize(
    ("annotation", "schema"),
    [
        ("int", {"type": "integer"}),
        ("list", {"type": "array"}),
        ("Optional[str]", {"anyOf": [{"type": "string"}, {"type": "null"}]}),
        ("set[int]", {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}),
        ("tuple[int, ...]", {"type": "array", "items": {"type": "integer"}}),
        ("Literal['a', -1, True]", {"enum": ["a", -1, True]}),
        ("datetime.date", {"type": "string", "format": "date"}),
        (
            "dict[Literal['a'], int]",
            {
                "type": "object",
                "additionalProperties": {"type": "integer"},
                "propertyNames": {"enum": ["a"]},
            },
        ),
        ("Unheard", {UNTYPED: True}),
    ],
)
def test_annotations_become_schemas(annotation: str, schema: dict[str, Any]) -> None:
    """A printed annotation means the schema that pydantic would give it."""
    assert python_types.parse(annotation, {UNTYPED: True}) == schema


def test_the_sandbox_stands_alone() -> None:
    """The sandbox loads neither DSPy nor any other process's code."""
    program = (
        "import sys, sandbox.__main__; "
        "print([name for name in ('dspy', 'litellm', 'api', 'worker', 'autoscaler') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout.strip() == "[]"
