"""Writes docs/configuration.md from the settings themselves: `python docs/configuration_reference.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from dspy_jobs.settings import (
    SECTIONS,
    BreakerSettings,
    ClientBudget,
    ModelSettings,
    ProgramSettings,
    Settings,
    StateSettings,
    VariantSettings,
)

PAGE = Path(__file__).parent / "configuration.md"

HEAD = """# Configuration

<!-- Written by `python docs/configuration_reference.py`; a test holds it against the settings. -->

One file, `dspy-jobs.toml`, searched upwards from the working directory or named by `DSPY_JOBS_CONFIG`, and the
environment over it: `[worker] concurrency` is `DSPY_JOBS_WORKER_CONCURRENCY`, a key outside any section such as
`data_dir` is `DSPY_JOBS_DATA_DIR`. `REDIS_URL` and `CACHE_URL` keep their usual names. In the file, `${NAME}` and
`${NAME:-default}` are replaced from the environment. Secrets never stand in the file: it names the variable that holds
them (`api_key_env`), or `NAME_FILE` names a file with the value.

`dspy-jobs config check` reads everything as a worker would and names every mistake with its path; `dspy-jobs config
show` prints the result without secrets. `GET /config` and `GET /v1/limits` show what a running API uses.
"""

INTRODUCTIONS = {
    "models": "Clients name a model only by its short name, here `fast`. Prices, if given, override DSPy's own table.",
    "programs": "A program is a DSPy signature, or a factory: a function that returns a `dspy.Module`, imported from "
    "beside the configuration file or from anything installed. A saved state must be pinned by its SHA-256.",
}


PARTS: dict[str, dict[str, type[BaseModel]]] = {
    "budgets": {"budgets.clients.acme": ClientBudget},
    "models": {"models.fast.breaker": BreakerSettings},
    "programs": {"programs.qa.versions.v2": StateSettings, "programs.qa.variants.b": VariantSettings},
}


def page() -> str:
    """The whole page."""
    plain = [name for name in Settings.model_fields if name not in (*SECTIONS, "models", "programs", "source")]
    parts = [HEAD, "## Top level\n", _table(Settings, plain, "DSPY_JOBS_")]
    for name in SECTIONS:
        section = type(Settings.model_fields[name].default)
        parts += [f"## [{name}]\n", f"{section.__doc__}\n", _table(section, None, f"DSPY_JOBS_{name.upper()}_")]
        for title, part in PARTS.get(name, {}).items():
            parts += [f"### [{title}]\n", f"{part.__doc__}\n", _table(part, None, None)]
    for name, section in (("models", ModelSettings), ("programs", ProgramSettings)):
        example = {"models": "fast", "programs": "qa"}[name]
        parts += [f"## [{name}.{example}]\n", f"{INTRODUCTIONS[name]}\n", _table(section, None, None)]
        for title, part in PARTS[name].items():
            parts += [f"### [{title}]\n", f"{part.__doc__}\n", _table(part, None, None)]
    return "\n".join(parts)


def _table(section: type[BaseModel], names: list[str] | None, prefix: str | None) -> str:
    head = ["key", "default", "meaning"] + (["environment"] if prefix else [])
    rows = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, field in section.model_fields.items():
        if names is None or name in names:
            row = [f"`{name}`", _default(field.default, field.default_factory), field.description or ""]
            rows.append("| " + " | ".join(row + ([f"`{prefix}{name.upper()}`"] if prefix else [])) + " |")
    return "\n".join(rows) + "\n"


def _default(value: Any, factory: Any) -> str:
    if value is PydanticUndefined:
        return "`{}`" if factory else "required"
    return "–" if value is None else f"`{value}`"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
