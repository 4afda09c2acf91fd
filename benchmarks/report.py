"""What a measurement found: a table, targets that hold or not, notes; as Markdown and as JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from benchmarks.figures import Spread


@dataclass(frozen=True, slots=True)
class Target:
    """A measured value and the bound it should keep."""

    what: str
    value: Spread
    bound: float
    at_least: bool = True
    """Whether the value must reach the bound; otherwise it must not exceed it."""
    unit: str = ""

    @property
    def holds(self) -> bool:
        """Whether the median keeps the bound."""
        return self.value.median >= self.bound if self.at_least else self.value.median <= self.bound

    def cells(self) -> list[str]:
        """As a row of a table."""
        sign = "≥" if self.at_least else "≤"
        digits = 2 if self.bound < 20 else 0
        bound = f"{sign} {self.bound:,g}{self.unit}"
        return [self.what, f"{self.value.text(digits)}{self.unit}", bound, "holds" if self.holds else "**missed**"]


@dataclass(slots=True)
class Report:
    """The outcome of one measurement."""

    title: str
    columns: list[str]
    rows: list[list[str]] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    samples: dict[str, Any] = field(default_factory=dict)
    """Every round's raw figures, for the JSON file."""

    def markdown(self) -> str:
        """Title, table, targets and notes."""
        parts = [f"## {self.title}", table(self.columns, self.rows)]
        if self.targets:
            parts.append(table(["target", "measured", "bound", ""], [target.cells() for target in self.targets]))
        if self.notes:
            parts.append("\n".join(f"- {note}" for note in self.notes))
        return "\n\n".join(parts) + "\n"

    def record(self) -> dict[str, Any]:
        """The same for machines."""
        targets = [
            {"what": t.what, "median": t.value.median, "low": t.value.low, "high": t.value.high, "bound": t.bound,
             "at_least": t.at_least, "holds": t.holds}
            for t in self.targets
        ]  # fmt: skip
        return {"title": self.title, "columns": self.columns, "rows": self.rows, "targets": targets,
                "notes": self.notes, "samples": self.samples}  # fmt: skip


def table(columns: list[str], rows: list[list[str]]) -> str:
    """A Markdown table with aligned columns, the first to the left, numbers to the right."""
    widths = [max(len(row[i]) for row in [columns, *rows]) for i in range(len(columns))]

    def line(cells: list[str]) -> str:
        first, *rest = cells
        return "| " + " | ".join([first.ljust(widths[0]), *map(str.rjust, rest, widths[1:])]) + " |"

    rule = "|" + "|".join(["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])]) + "|"
    return "\n".join([line(columns), rule, *map(line, rows)])
