"""Ends a stack's processes when the stack itself is killed and cannot do it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

#: Each line names the processes alive: first Redis, which may save its file and go, then those to kill. The
#: input ends with the stack, in whatever way it dies; one that ends well has said before that none is left.
#: Its arguments, if any, are a command that ends what those processes have left in their turn.
_SCRIPT = """
while read -r redis others; do alive="$redis"; doomed="$others"; done
kill -KILL $doomed
[ "$alive$doomed" = - ] || "$@"
kill -TERM $alive
"""
_NONE = "-"


class OrphanGuard:
    """A tiny process that outlives the stack by a moment."""

    def __init__(self, data_dir: Path | None = None) -> None:
        """With a data folder the workers that an autoscaler notes in it are ended as well."""
        leftovers = [sys.executable, "-m", "dspy_jobs.stack.leftovers", str(data_dir)] if data_dir else []
        self._shell = subprocess.Popen(
            ["/bin/sh", "-c", _SCRIPT, "sh", *leftovers],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            text=True,
        )

    def watch(self, redis: int | None, others: Iterable[int]) -> None:
        """These processes are alive now; those named before and not now are forgotten."""
        assert self._shell.stdin
        self._shell.stdin.write(" ".join([str(redis or _NONE), *map(str, others)]) + "\n")
        self._shell.stdin.flush()

    def dismiss(self) -> None:
        """Everything has ended."""
        self.watch(None, [])
        self._shell.communicate()


@contextmanager
def orphan_guard(data_dir: Path | None = None) -> Iterator[OrphanGuard]:
    """A guard for as long as the block lasts; the block must have ended what it started when it leaves."""
    guard = OrphanGuard(data_dir)
    try:
        yield guard
    finally:
        guard.dismiss()
