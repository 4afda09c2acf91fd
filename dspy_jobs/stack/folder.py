"""One stack a data folder: two Redis servers writing the same file would destroy it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dspy_jobs.stack.refusals import FolderInUse


@contextmanager
def sole_user_of(folder: Path) -> Iterator[None]:
    """Hold the folder as long as the block lasts. The kernel lets go when the process ends, however it ends.

    Raises:
        FolderInUse: another stack holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        _lock(handle, folder)
        yield
    finally:
        os.close(handle)


def _lock(handle: int, folder: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        remedy = "stop it or set DSPY_JOBS_DATA_DIR"
        raise FolderInUse(f"another stack already runs on {folder}; {remedy}") from None
