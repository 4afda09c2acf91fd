"""A process under measurement: started in a clean environment, watched through /proc, ended by its id."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from dspy_jobs.waiting import wait_until

ROOT = Path(__file__).parent.parent

#: Seconds a process may take to come up or to end on a busy machine.
PATIENCE_SECONDS = 60.0
_TICKS = os.sysconf("SC_CLK_TCK")
_numbers = itertools.count(1)


class Process:
    """`python -m <module>` with its output in a file."""

    def __init__(self, module: str, *arguments: str, folder: Path, environ: Mapping[str, str] | None = None) -> None:
        self._log = folder / f"{module}-{next(_numbers)}.log"
        clean = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(folder), "PYTHONPATH": str(ROOT)}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                env={**clean, **(environ or {})}, cwd=folder, stdin=subprocess.PIPE, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def find(self, pattern: str, seconds: float = PATIENCE_SECONDS) -> str:
        """The first group of the pattern, once the process has written it.

        Raises:
            RuntimeError: it ended or did not write it in time.
        """
        found: list[str] = []

        def look() -> bool:
            found[:] = re.findall(pattern, self.written())
            return bool(found) or self._process.poll() is not None

        wait_until(look, seconds)
        if not found:
            raise RuntimeError(f"no {pattern!r} from {self._log.stem}:\n{self.written()[-2000:]}")
        return found[0]

    def written(self) -> str:
        """Everything it wrote."""
        return self._log.read_text(errors="replace")

    def ask(self, question: dict[str, Any]) -> None:
        """Write a line of JSON to its standard input."""
        assert self._process.stdin is not None
        self._process.stdin.write(orjson.dumps(question) + b"\n")
        self._process.stdin.flush()

    def wait(self, seconds: float) -> None:
        """Wait until it ends by itself.

        Raises:
            subprocess.TimeoutExpired: it does not.
        """
        self._process.wait(seconds)

    def cpu_seconds(self) -> float:
        """Processor time all its threads have used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(") ")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def rss_mib(self) -> float:
        """Resident memory in MiB."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def stop(self) -> None:
        """Ask it to end; kill it if it does not."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.terminate()
        try:
            self._process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(PATIENCE_SECONDS)
