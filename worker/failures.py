"""Every way an attempt can fail, as the problem a caller sees. Foreign errors are classified here and nowhere else."""

from __future__ import annotations

import dspy
from dspy.utils.exceptions import AdapterParseError, DSPyError, LMError, LMTransportError
from pydantic import ValidationError
from pydantic_core import PydanticSerializationError

from dspy_jobs.problems import CODES, Problem, problem
from dspy_jobs.redaction import without_secrets
from worker.context import AttemptStopped

#: Longest detail taken over from an error's own text.
_LONGEST_DETAIL = 500


def problem_of(error: BaseException) -> Problem:
    """The problem for whatever a program, DSPy or a provider raised. Keeps no answer, secret or stack trace."""
    if isinstance(error, AttemptStopped):
        return error.problem
    if isinstance(error, AdapterParseError):
        return problem("adapter_parse_error", _unreadable(error))
    if isinstance(error, LMError):
        return _model_failure(error)
    if isinstance(error, DSPyError):
        return problem(error.code if error.code in CODES else "program_error", _text(error))
    return problem("program_error", described(error))


def invalid_input(error: ValidationError) -> Problem:
    """Inputs that do not fit the program's types."""
    errors = [{"param": ".".join(["inputs", *map(str, e["loc"])]), "detail": e["msg"]} for e in error.errors()]
    return problem("invalid_input", f"{errors[0]['param']}: {errors[0]['detail']}", errors=errors)


def unstorable(error: BaseException) -> Problem:
    """An outcome that could be made but not stored."""
    return problem("unexpected", f"The outcome could not be stored: {described(error)}")


def invalid_output(error: ValidationError | PydanticSerializationError | TypeError) -> Problem:
    """An output that is missing, of the wrong type, or not expressible in JSON."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return problem("invalid_output", f"output.{'.'.join(map(str, first['loc']))}: {first['msg']}")
    return problem("invalid_output", f"The output cannot be written as JSON: {_text(error)}")


def is_a_bug(found: Problem) -> bool:
    """Whether somebody here must mend something: the program's authors or we, and not a provider or a caller."""
    return found.code in ("program_error", "unexpected")


def retry_after_of(error: BaseException) -> float | None:
    """Seconds the provider asked to wait, if it did."""
    asked = getattr(error, "retry_after", None)
    return float(asked) if isinstance(asked, int | float) and asked >= 0 else None


def _model_failure(error: LMError) -> Problem:
    code = error.code if error.code in CODES else "unexpected"
    if isinstance(error, LMTransportError) and _caused_by_timeout(error):
        # A client's own timeout arrives as a transport error.
        code = "timeout"
    more = {"provider_status": error.status} if error.status else {}
    return problem(code, _text(error), retryable=dspy.is_retryable_lm_error(error), **more)


def _caused_by_timeout(error: BaseException) -> bool:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, TimeoutError) or type(cause).__name__ == "ReadTimeout":
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def _unreadable(error: AdapterParseError) -> str:
    wanted = ", ".join(error.signature.output_fields)
    found = ", ".join(error.parsed_result) if isinstance(error.parsed_result, dict) else ""
    return f"{error.adapter_name} expected the fields [{wanted}] and could read [{found}]."


def described(error: BaseException) -> str:
    """An error's kind and what it says of itself, in a form that can be stored."""
    return f"{type(error).__name__}: {_text(error)}"


def _text(error: BaseException) -> str:
    """What an error says of itself, in a form that can be stored; users' own errors may say anything, or raise."""
    try:
        said = str(getattr(error, "message", None) or error)
    except Exception:  # noqa: BLE001  # its own code runs here
        said = ""
    text = without_secrets(said).strip()[:_LONGEST_DETAIL]
    return text.encode(errors="replace").decode() or type(error).__name__
