"""Turns every failure that is to be expected into one message on stderr and an exit code; never a traceback."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperGroup

from dspy_jobs.cli.exit_codes import ExitCode
from dspy_jobs.errors import DspyJobsError
from dspy_jobs.settings import ConfigurationError

#: Mistakes of a file that are shown; the rest is counted.
SHOWN = 20


class InputMistake(DspyJobsError):
    """What the user gave is wrong; the message says what and where."""


class FailuresAsExitCodes(TyperGroup):
    """The command group all commands run in."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; an expected failure becomes an exit."""
        try:
            return super().invoke(ctx)
        except (DspyJobsError, ConfigurationError) as error:
            say(f"dspy-jobs: {_text(error)}")
            raise typer.Exit(_exit_code(error)) from None
        except KeyboardInterrupt:
            say("dspy-jobs: interrupted")
            raise typer.Exit(ExitCode.INTERRUPTED) from None


def say(message: str) -> None:
    """A message for people, on stderr; stdout is for data."""
    print(message, file=sys.stderr, flush=True)


def first_lines(lines: Sequence[str]) -> str:
    """Indented lines, the first ones of many."""
    shown = [f"  {line}" for line in lines[:SHOWN]]
    more = [f"  … and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    return "\n".join([*shown, *more])


def _exit_code(error: Exception) -> ExitCode:
    from dspy_jobs.client import ApiError, ServiceUnreachable, WaitTimeout

    codes: dict[type[Exception], ExitCode] = {
        ApiError: ExitCode.REFUSED,
        ServiceUnreachable: ExitCode.UNREACHABLE,
        WaitTimeout: ExitCode.WAITED_TOO_LONG,
    }
    return next((code for kind, code in codes.items() if isinstance(error, kind)), ExitCode.USAGE)


def _text(error: Exception) -> str:
    from dspy_jobs.client import ApiError

    if not isinstance(error, ApiError) or not error.problem.errors:
        return str(error)
    return f"{error}\n{first_lines([spell_out(mistake) for mistake in error.problem.errors])}"


def spell_out(mistake: dict[str, Any]) -> str:
    """One mistake of a request, as `errors` have it."""
    place = [f"line {mistake['line']}"] if mistake.get("line") else []
    place += [str(mistake[name]) for name in ("custom_id", "param") if mistake.get(name)]
    return f"{', '.join(place)}: {mistake.get('detail') or mistake.get('code')}"
