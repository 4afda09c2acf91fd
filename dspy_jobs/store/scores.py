"""What callers thought of a job's output, as numbers, kept by program, variant and name to compare variants by."""

from __future__ import annotations

from dspy_jobs.store.script import Operation, script
from dspy_jobs.store.wire import time_of

#: Names a program's scores may have, and jobs that may have a score of one name in one variant.
MOST_NAMES = 32
MOST_SCORES = 100_000


def score_job(
    job_id: str,
    name: str,
    value: float,
    now_ms: int | None = None,
    most_names: int = MOST_NAMES,
    most_scores: int = MOST_SCORES,
) -> Operation[str]:
    """Keep a score of an ended job; the same name again replaces it.

    Answers `scored`, `missing`, `too_many` (names of the program), `full` (no other job may have a score of this
    name), or the status that forbids it.
    """
    args = (time_of(now_ms), job_id, name, repr(value), most_names, most_scores)
    return Operation(script("score_job"), args, lambda raw: str(raw.decode()))
