"""Ends a stack's processes when the stack itself is killed and cannot do it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

#: Each line names the processes alive: first Redis, which may save its file and go, then those to kill. The
#: input ends with the stack, in whatever way it dies; one that ends well has said before that none is left.
_SCRIPT = """
while read -r redis others; do alive="$redis"; doomed="$others"; done
kill -KILL $doomed
kill -TERM $alive
"""
_NONE = "-"


class OrphanGuard:
    """A tiny process that outlives the stack by a moment."""

    def __init__(self) -> None:
        self._shell = subprocess.Popen(
            ["/bin/sh", "-c", _SCRIPT],
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
def orphan_guard() -> Iterator[OrphanGuard]:
    """A guard for as long as the block lasts; the block must have ended what it started when it leaves."""
    guard = OrphanGuard()
    try:
        yield guard
    finally:
        guard.dismiss()
