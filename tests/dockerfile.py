"""Dockerfiles as lists of instructions, stage by stage."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Stage:
    """One `FROM … AS name` and what follows it."""

    name: str
    base: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def all(self, word: str) -> list[str]:
        """What follows each instruction of that word."""
        return [rest for instruction, rest in self.instructions if instruction == word]

    def command(self) -> list[str]:
        """The words of CMD in its exec form."""
        words: list[str] = json.loads(self.all("CMD")[-1])
        return words

    def environment(self) -> dict[str, str]:
        """What ENV sets."""
        return dict(word.split("=", 1) for line in self.all("ENV") for word in line.split())

    def copied(self) -> list[tuple[str, str]]:
        """Source and target of each COPY from the build context."""
        lines = [re.sub(r"^--chmod=\d+ ", "", line) for line in self.all("COPY") if not line.startswith("--from")]
        return [(a, b) for a, b in map(str.split, lines)]


def read_dockerfile(path: Path) -> tuple[dict[str, str], dict[str, Stage]]:
    """The arguments before the first stage with their defaults, and the stages by name in order."""
    arguments: dict[str, str] = {}
    stages: dict[str, Stage] = {}
    for line in _lines(path):
        word, _, rest = line.partition(" ")
        if word == "FROM":
            base, name = re.fullmatch(r"(\S+) AS (\S+)", rest).groups()  # type: ignore[union-attr]
            stages[name] = Stage(name, base)
        elif not stages:
            name, _, default = rest.partition("=")
            arguments[name] = default
        else:
            list(stages.values())[-1].instructions.append((word, rest.strip()))
    return arguments, stages


def _lines(path: Path) -> list[str]:
    text = re.sub(r"^#.*\n", "", path.read_text(), flags=re.MULTILINE)
    return [line for line in re.sub(r"\s*\\\n\s*", " ", text).splitlines() if line.strip()]


def lineage(stages: dict[str, Stage], name: str) -> list[Stage]:
    """A stage and those it is built on, the first one first."""
    stage = stages[name]
    return [*(lineage(stages, stage.base) if stage.base in stages else []), stage]
