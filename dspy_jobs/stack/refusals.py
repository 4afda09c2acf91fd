"""Why a stack did not start, or ended without being asked."""

from __future__ import annotations

from dspy_jobs.errors import DspyJobsError


class CannotStart(DspyJobsError):
    """Something must be put right first; nothing was left running. The message says what."""


class FolderInUse(CannotStart):
    """Another stack runs on this data folder."""


class PartDied(DspyJobsError):
    """A process the stack cannot do without ended by itself; everything else was stopped."""

    def __init__(self, part: str, reason: str, last_lines: list[str], is_misconfigured: bool = False) -> None:
        super().__init__(f"{part} {reason}")
        self.part = part
        self.last_lines = last_lines
        self.is_misconfigured = is_misconfigured
