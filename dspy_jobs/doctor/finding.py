"""What a look found: whether it is well, what is wrong and how to mend it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from dspy_jobs.redis_state import Complaint


class Verdict(StrEnum):
    """How a check went."""

    OK = "ok"
    WARN = "warn"
    """It works, and will not always or not well."""
    FAIL = "fail"
    """It does not work, or does harm."""
    SKIP = "skip"
    """It was not looked at; the detail says why."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of a diagnosis."""

    check: str
    verdict: Verdict
    detail: str
    remedy: str = ""
    """How to mend it; empty where nothing is to be mended."""


#: Looks at one thing. It may raise what it did not foresee.
Look = Callable[[], Iterable[Finding]]


def ok(check: str, detail: str) -> Finding:
    """All is well."""
    return Finding(check, Verdict.OK, detail)


def warn(check: str, detail: str, remedy: str) -> Finding:
    """It works for now."""
    return Finding(check, Verdict.WARN, detail, remedy)


def fail(check: str, detail: str, remedy: str) -> Finding:
    """It does not work."""
    return Finding(check, Verdict.FAIL, detail, remedy)


def skip(check: str, why: str) -> Finding:
    """It was not looked at."""
    return Finding(check, Verdict.SKIP, why)


def of_complaint(check: str, complaint: Complaint) -> Finding:
    """What a server's own words come to."""
    verdict = Verdict.FAIL if complaint.stops_work or complaint.is_mistake else Verdict.WARN
    return Finding(check, verdict, complaint.what, complaint.remedy)


def findings(looks: Iterable[tuple[str, Look]]) -> Iterator[Finding]:
    """Every look's findings, as they come. A look that breaks is a finding itself: the others must go on."""
    for name, look in looks:
        try:
            yield from look()
        except Exception as error:  # noqa: BLE001  # a sick installation fails in ways that nobody has thought of
            yield fail(name, f"could not be looked at: {type(error).__name__}: {error}", "mend that, and look again")
