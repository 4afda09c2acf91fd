"""What has failed lately, as health tells it from totals."""

from __future__ import annotations

from collections import Counter

from api.failures import KEEP_SECONDS, WINDOW_SECONDS, FailureWatch
from dspy_jobs.counted import Counted, Work


class Clock:
    """A clock that is set."""

    now = 0.0

    def __call__(self) -> float:
        """The time."""
        return self.now


def totals(jobs: int, failed: int, code: str = "program_error", program: str = "qa") -> Counted:
    """Everything counted of a service with one program."""
    work = {Work(program, "fast", variant): Counter(jobs=jobs // 2, failed=failed // 2) for variant in ("", "b")}
    return Counted(work, Counter({("fast", code): failed}))


def watched(clock: Clock, *seen: tuple[float, Counted]) -> FailureWatch:
    """A watch that has seen totals at these times."""
    watch = FailureWatch(clock)
    for clock.now, counted in seen:
        watch.take(counted)
    return watch


def test_the_growth_of_totals_is_what_failed_lately() -> None:
    """What failed before this process looked is no news; variants are one program."""
    watch = watched(Clock(), (0, totals(100, 50)), (10, totals(120, 70)))
    (found,) = watch.recent().programs
    assert (found.program, found.model, found.ended, found.failed) == ("qa", "fast", 20, 20)
    assert (found.codes, found.share, watch.recent().seconds) == ({"program_error": 20}, 1.0, 10)


def test_what_a_caller_asked_for_is_no_failure_of_a_program() -> None:
    """A job that was to be answered from the cache alone fails by intent."""
    assert not watched(Clock(), (0, totals(0, 0)), (10, totals(20, 20, "not_cached"))).recent().programs


def test_only_so_long_is_looked_back_with_few_totals_kept() -> None:
    """An hour of looks every two seconds leaves the last ten minutes, in steps of half a minute."""
    clock = Clock()
    watch = watched(clock, *((2.0 * look, totals(2 * look, 2 * look)) for look in range(1800)))
    recent = watch.recent()
    assert WINDOW_SECONDS <= recent.seconds <= WINDOW_SECONDS + 2 * KEEP_SECONDS
    assert recent.programs[0].failed == recent.seconds
    assert len(watch._kept) < 25
    assert not watch.is_due()
    clock.now += 2
    assert watch.is_due()


def test_nothing_is_known_before_there_are_two_totals() -> None:
    """One look tells no growth."""
    assert watched(Clock(), (0, totals(100, 100))).recent().seconds == 0
