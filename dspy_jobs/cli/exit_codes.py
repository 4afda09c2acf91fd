"""What a script can tell from the exit status of `dspy-jobs`."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Why the program ended; `MEANINGS` says it in words."""

    OK = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    WAITED_TOO_LONG = 4
    REFUSED = 5
    INTERRUPTED = 130


#: The lines of `dspy-jobs --help`.
MEANINGS = {
    ExitCode.OK: "done",
    ExitCode.FAILED: "the job waited for, or a job of the batch waited for, did not succeed",
    ExitCode.USAGE: "wrong usage or wrong input; nothing was queued",
    ExitCode.UNREACHABLE: "the service does not answer",
    ExitCode.WAITED_TOO_LONG: "what was waited for has not ended: --timeout ran out, or a limit paused the batch",
    ExitCode.REFUSED: "the service refused",
    ExitCode.INTERRUPTED: "interrupted by Ctrl-C; what was submitted goes on",
}


def listing() -> str:
    """The codes as lines of a help text."""
    return "\n".join(f"  {code.value:>3}  {meaning}" for code, meaning in MEANINGS.items())
