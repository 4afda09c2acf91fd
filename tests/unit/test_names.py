"""Python and Lua spell the same keys, and the table of keys is whole."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from importlib.resources import files

import pytest

from dspy_jobs import names
from dspy_jobs.states import Priority

SCRIPTS = {
    path.name: "\n".join(line.partition("--")[0] for line in path.read_text().splitlines())
    for path in (files("dspy_jobs.store") / "scripts").iterdir()
    if path.name.endswith(".lua")
}
SCHEMA = SCRIPTS["_schema.lua"]
#: The start of a key in Lua, and a function of `names` that gives a key with that start.
STARTS = {
    "dj:": names.job("")[:3],
    "dj:queue:": names.queue_numbers(""),
    "dj:worker:": names.worker(""),
    "dj:circuit:": names.circuit(""),
    "dj:flight:": names.flight(""),
    "dj:client:": names.client_parked("").removesuffix(":parked"),
    "dj:variant:": names.variant("", "").removesuffix(":"),
    "dj:scores:": names.score_names(""),
    "dj:costs:": names.costs(""),
    "dj:costs:%04d%02d%02d": names.costs("%04d%02d%02d"),
    "dj:spent:%04d%02d%02d": names.spent("%04d%02d%02d"),
    "dj:spent:%04d%02d": names.spent("%04d%02d"),
    "celery-task-meta-": names.outcome(""),
}
#: The end of a key in Lua, and the same of `names`. `:yields` lives for milliseconds, beside a queue's numbers.
ENDS = {
    ":request": names.job_request("")[3:],
    ":attempts": names.job_attempts("")[3:],
    ":journal": names.job_journal("")[3:],
    ":followers": names.followers("").removeprefix("dj:flight:"),
    ":jobs": names.batch_jobs("")[3:],
    ":results": names.batch_results("")[3:],
    ":parked": names.batch_parked("")[3:],
    ":waiting:": names.queue_waiting("", 0)[:-1].removeprefix("dj:queue:"),
    ":gates": names.queue_gates("").removeprefix("dj:queue:"),
    ":calls": names.circuit_calls("").removeprefix("dj:circuit:"),
    ":probe": names.circuit_probe("").removeprefix("dj:circuit:"),
    ":workers": names.queue_workers("").removeprefix("dj:queue:"),
    ":closed": names.closed_costs("").removeprefix("dj:costs:"),
    ":held": names.worker_held("").removeprefix("dj:worker:"),
    ":cancel": names.worker_cancel("").removeprefix("dj:worker:"),
    ":reported": names.worker_reported("").removeprefix("dj:worker:"),
    ":yields": ":yields",
    ":": names.PRIORITY_SEPARATOR,
}
WHOLE = {name for name, value in vars(names).items() if isinstance(value, str) and value.startswith("dj:")}


def _lua_function(name: str) -> Callable[..., str]:
    """A one-line function of the schema that concatenates literals and its parameters."""
    found = re.search(rf"local function {name}\((.*?)\)\s+return (.*?) end\n", SCHEMA)
    assert found, f"{name} is no one-line function of _schema.lua"
    parameters = found[1].split(", ")

    def build(*values: str) -> str:
        given = dict(zip(parameters, values, strict=True))
        return "".join(given.get(part, part.strip("'")) for part in found[2].split(" .. "))

    return build


@pytest.mark.parametrize(
    ("function", "ours"),
    [
        ("job_key", names.job),
        ("batch_key", names.batch),
        ("queue_key", names.queue_numbers),
        ("held_key", names.worker_held),
        ("cancel_key", names.worker_cancel),
        ("outcome_key", names.outcome),
    ],
)
def test_lua_builds_the_keys_python_does(function: str, ours: Callable[[str], str]) -> None:
    """The key functions of `_schema.lua` give what those of `names` give."""
    assert _lua_function(function)("x_1") == ours("x_1")


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_key_a_script_writes_down_is_in_names(script: str) -> None:
    """Whole keys are constants of `names`; starts and ends of keys are those its functions use."""
    literals = set(re.findall(r"'((?:dj:|celery-|:)[^' ]*)'", SCRIPTS[script]))
    whole = {getattr(names, name) for name in WHOLE}
    unknown = literals - whole - STARTS.keys() - ENDS.keys()
    assert not unknown
    assert all(ours == lua for lua, ours in {**STARTS, **ENDS}.items())


def test_queue_lists_of_a_lower_step_are_served_first() -> None:
    """The most urgent step is the queue's own name, as kombu has it; Lua knows the same steps."""
    assert [names.queue_list("q", priority.step) for priority in Priority] == ["q", "q:3", "q:6"]
    steps = "{" + ", ".join(f"'{priority.step}'" for priority in Priority) + "}"
    assert steps in SCRIPTS["claim_job.lua"]


def test_the_table_of_keys_names_every_key() -> None:
    """Each constant and each function's key has its line in the module's table."""
    described = set(
        re.findall(r"[\w:{}-]*[a-z}]", " ".join(re.findall(r"^\| ([^|]+) \|", names.__doc__ or "", re.MULTILINE)))
    )
    functions = [
        f for _, f in inspect.getmembers(names, inspect.isfunction) if f.__name__ not in ("queue", "queue_list")
    ]
    short = {"job_id": "{job}", "batch_id": "{batch}", "queue_name": "{queue}", "worker_id": "{worker}"}
    built = {f(*(short.get(p, f"{{{p}}}") for p in inspect.signature(f).parameters)) for f in functions}
    assert built <= described
    assert set(names.PERMANENT) <= described
