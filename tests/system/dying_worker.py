"""A worker that kills itself, as `kill -9` would, at a chosen point of a job's life: `… dying_worker POINT`.

The point `call 3` is before the third model call of the process, `answer 3` when it was answered.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from dspy_jobs.store import SyncStore
from dspy_jobs.store.script import Operation
from worker import engine
from worker.__main__ import main
from worker.attempt import Runner

#: The point, and the store's operation before or after which it lies, or None where it lies beside the attempt.
POINTS = {
    "popped": ("before", "take_jobs"),
    "taken": ("after", "take_jobs"),
    "claimed": ("before", None),
    "answered": ("after", None),
    "published": ("after", "finish_job"),
}


def die(*_: object) -> NoReturn:
    """End as a killed process does: nothing is said, nothing is cleaned up."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("still alive")


def die_at_operation(when: str, script: str) -> None:
    """Die before the store sends that operation, or once it has its answer."""
    run_all = SyncStore.run_all

    def dying(store: SyncStore, operations: Sequence[Operation[Any]]) -> list[Any]:
        is_it = any(operation.script.name == script for operation in operations)
        if is_it and when == "before":
            die()
        replies = run_all(store, operations)
        return die() if is_it else replies

    SyncStore.run_all = dying  # type: ignore[method-assign]


def die_at_attempt(when: str) -> None:
    """Die before an attempt begins, or when its outcome is known and not yet published."""
    run = Runner.run

    def dying(*args: Any) -> Any:
        return die() if when == "before" else die(run(*args))

    Runner.run = dying  # type: ignore[method-assign]


def die_at_call(what: str, number: int) -> None:
    """Die before that model call, or once it is answered."""
    complete, calls = engine._complete, itertools.count(1)

    def dying(*args: Any) -> Any:
        if next(calls) < number:
            return complete(*args)
        return die() if what == "call" else die(complete(*args))

    engine._complete = dying


def prepare(point: str) -> None:
    """Arrange for the death."""
    if point in POINTS:
        when, script = POINTS[point]
        die_at_operation(when, script) if script else die_at_attempt(when)
    else:
        what, number = point.split()
        die_at_call(what, int(number))


if __name__ == "__main__":
    prepare(sys.argv.pop())
    sys.exit(main())
