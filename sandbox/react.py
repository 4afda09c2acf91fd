"""A ReAct agent's next step by a fixed rule: call the first tool once, then finish. So every run ends."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sandbox import answers
from sandbox.prompts import Layout
from sandbox.source import Source

#: What dspy.ReAct calls the fields of a step, and the tool that ends a run.
THOUGHT, TOOL, ARGUMENTS = "next_thought", "next_tool_name", "next_tool_args"
FINISH = "finish"

_EARLIER_CALL = re.compile(r"^(?:\[\[ ## |<)tool_name_\d+", re.MULTILINE)


def is_step(layout: Layout) -> bool:
    """Whether the prompt is a ReAct agent asking for its next step."""
    return {TOOL, ARGUMENTS} <= {field.name for field in layout.outputs} and FINISH in layout.tools


def step(layout: Layout, user: str, inputs: Mapping[str, str]) -> dict[str, Any]:
    """The fields of the next step; `user` is the message that carries the trajectory."""
    tool = next((name for name in layout.tools if name != FINISH), FINISH)
    if tool == FINISH or _EARLIER_CALL.search(user):
        return {
            THOUGHT: "The trajectory holds what is needed.",
            TOOL: FINISH,
            ARGUMENTS: {},
        }
    source = Source.of({name: value for name, value in inputs.items() if name != "trajectory"})
    arguments = {
        name: answers.answer(name, schema, source)
        for name, schema in layout.tools[tool].items()
        if "default" not in schema
    }
    return {
        THOUGHT: f"Nothing is known yet, so {tool} comes first.",
        TOOL: tool,
        ARGUMENTS: arguments,
    }
