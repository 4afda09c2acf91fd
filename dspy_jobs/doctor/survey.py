"""What a worker with this configuration would run, found out in a process of its own: it loads dspy and user's code."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from dspy_jobs.settings import Settings
from dspy_jobs.stack.inherited import inherited_environ

#: Seconds the survey may take; importing dspy and a user's programs takes a few.
_PATIENCE_SECONDS = 120.0


@dataclass(frozen=True)
class Survey:
    """What `python -m worker.survey` tells; None where it could not be made."""

    programs: dict[str, dict[str, Any]] | None = None
    """Version, and version of each variant, by program."""
    models: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Provider, address, whether there is a key and where it is looked for, by model."""
    why_not: str = ""
    """Why it could not be made."""
    mistakes: str = ""
    """What is wrong with the configuration, as a worker would say."""


class Surveying:
    """A survey under way, while other things are looked at."""

    def __init__(self, settings: Settings) -> None:
        self._process: subprocess.Popen[str] | None = None
        if find_spec("dspy") is None:
            return
        environ, folder = inherited_environ(), None
        if settings.source:
            environ["DSPY_JOBS_CONFIG"], folder = str(settings.source), settings.source.parent
        self._process = subprocess.Popen(
            [sys.executable, "-m", "worker.survey"],
            env=environ, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def result(self) -> Survey:
        """What came of it, once it has."""
        if self._process is None:
            return Survey(why_not="dspy is not installed here (pip install 'dspy-jobs[worker]')")
        try:
            out, error = self._process.communicate(timeout=_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            return Survey(why_not=f"building the programs took longer than {_PATIENCE_SECONDS:.0f} s")
        if self._process.returncode:
            mistakes = error.strip() or f"building them ended with code {self._process.returncode}"
            return Survey(why_not="the programs cannot be built", mistakes=mistakes)
        # A program's own module may print something, too.
        found = json.loads(out.strip().splitlines()[-1])
        return Survey(found["programs"], found["models"])
