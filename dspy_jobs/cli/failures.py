"""Turns every failure that is to be expected into one message on stderr and an exit code; never a traceback."""

from __future__ import annotations

import re
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


class PartlyDone(DspyJobsError):
    """The service refused the rest after some of what was asked had been done; the message says why."""


#: Problems by which the service names a mistake in what the user gave.
_OF_THE_USER = frozenset(
    (
        "invalid_parameter",
        "invalid_request_body",
        "malformed_body",
        "invalid_input",
        "unknown_program",
        "unknown_model",
        "unknown_variant",
    )
)

#: The contract's fields as the options that give them. Words of every day are fields only where a mistake names them.
_OPTIONS = {
    "limits.max_cost_usd": "--max-cost",
    "max_cost_usd": "--max-cost",
    "limits.max_error_rate": "--max-error-rate",
    "max_error_rate": "--max-error-rate",
    "limits.min_items": "--min-items",
    "min_items": "--min-items",
    "cache.namespace": "--namespace",
    "cache_namespace": "--namespace",
    "cache.max_age_seconds": "--max-age",
    "cache_max_age_seconds": "--max-age",
    "group_by": "--by",
}
_SHORT_OPTIONS = {name: f"--{name}" for name in ("from", "to", "model", "variant", "priority")}
_FIELD = re.compile(rf"(?<![\w.-])({'|'.join(map(re.escape, _OPTIONS))})(?![\w-])")


class FailuresAsExitCodes(TyperGroup):
    """The command group all commands run in."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; an expected failure becomes an exit."""
        try:
            return super().invoke(ctx)
        except (DspyJobsError, ConfigurationError) as error:
            say(f"dspy-jobs: {told(error)}")
            raise typer.Exit(_exit_code(error)) from None
        except KeyboardInterrupt:
            say("dspy-jobs: interrupted")
            raise typer.Exit(ExitCode.INTERRUPTED) from None
        except Exception as error:
            _add_hint(ctx.invoked_subcommand, error)
            raise


def _add_hint(command: str | None, error: Any) -> None:
    """Tell who writes a job's inputs as arguments how they are given. The parser's own class has no public name."""
    message = str(getattr(error, "message", ""))
    if command == "submit" and "unexpected extra argument" in message and "=" in message:
        error.message = f"{message}. Inputs are given with -i: -i name=value"


def say(message: str) -> None:
    """A message for people, on stderr; stdout is for data."""
    print(message, file=sys.stderr, flush=True)


def first_lines(lines: Sequence[str]) -> str:
    """Indented lines, the first ones of many."""
    shown = [f"  {line}" for line in lines[:SHOWN]]
    more = [f"  … and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    return "\n".join([*shown, *more])


def as_options(text: str) -> str:
    """The service's words with fields of the contract named as the options that give them."""
    return _FIELD.sub(lambda found: _OPTIONS[found[1]], text)


def _exit_code(error: Exception) -> ExitCode:
    from dspy_jobs.client import ApiError, ServiceUnreachable, WaitTimeout

    if isinstance(error, ApiError) and error.problem.code in _OF_THE_USER:
        return ExitCode.USAGE
    codes: dict[type[Exception], ExitCode] = {
        ApiError: ExitCode.REFUSED,
        PartlyDone: ExitCode.REFUSED,
        ServiceUnreachable: ExitCode.UNREACHABLE,
        WaitTimeout: ExitCode.WAITED_TOO_LONG,
    }
    return next((code for kind, code in codes.items() if isinstance(error, kind)), ExitCode.USAGE)


def told(error: Exception) -> str:
    """What an error says, with every mistake that the service named; each once."""
    from dspy_jobs.client import ApiError

    if not isinstance(error, ApiError):
        return str(error)
    problem = error.problem
    mistakes = problem.errors or []
    if len(mistakes) == 1 and str(mistakes[0].get("detail")) in problem.detail:
        return f"{problem.code}: {spell_out(mistakes[0])}"
    lines = [first_lines([spell_out(mistake) for mistake in mistakes])] if mistakes else []
    return "\n".join([as_options(str(error)), *lines])


def spell_out(mistake: dict[str, Any]) -> str:
    """One mistake of a request, as `errors` have it."""
    place = [f"line {mistake['line']}"] if mistake.get("line") else []
    place += [str(mistake["custom_id"])] if mistake.get("custom_id") else []
    param, detail = mistake.get("param"), str(mistake.get("detail") or mistake.get("code"))
    if param:
        # A line has fields of its own; what all share was given as options.
        place += [str(param) if mistake.get("line") else _SHORT_OPTIONS.get(param, as_options(param))]
        detail = detail.removeprefix(f"{param} ")
    detail = detail if mistake.get("line") else as_options(detail)
    return f"{', '.join(place)}: {detail}" if place else detail
