"""Ends the workers an autoscaler left running: they outlive it on purpose, but never the stack it was a part of.

`python -m dspy_jobs.stack.leftovers DATA_DIR` does it for a stack that was killed.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from dspy_jobs.pid_files import worker_pids


def end_leftovers(data_dir: Path) -> int:
    """Kill every worker that the data folder names; answers how many there were."""
    pids = worker_pids(data_dir)
    left = pids.read()
    for name, mark in left.items():
        mark.send(signal.SIGKILL)
        pids.remove(name, mark)
    return len(left)


if __name__ == "__main__":
    end_leftovers(Path(sys.argv[1]))
