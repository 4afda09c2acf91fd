"""Reports of what a worker has measured: only what is new, each until it has arrived."""

from __future__ import annotations

from typing import Any

from worker.fleet_report import FleetReport


class Scene:
    """A worker that measures, and what it would send."""

    def __init__(self) -> None:
        self.measured: dict[str, int] = {}
        self.report = FleetReport("w1", lambda: dict(self.measured))

    def sent(self) -> list[Any]:
        """The number and the additions of the next report; empty if there is none."""
        return [args for operation in self.report.operations() for args in _read(operation.args)]

    def arrive(self) -> None:
        """The next report arrives."""
        self.report.arrived(self.report.operations())


def _read(args: tuple[Any, ...]) -> tuple[int, dict[str, int]]:
    return args[1], dict(zip(args[3::2], args[4::2], strict=True))


def test_only_what_is_new_is_sent() -> None:
    """Nothing at first, then what was added since the report before; reports are numbered."""
    scene = Scene()
    assert scene.sent() == []
    scene.measured.update(a=2, b=0)
    assert scene.sent() == [1, {"a": 2}]
    scene.arrive()
    assert scene.sent() == []
    scene.measured.update(a=5, c=1)
    assert scene.sent() == [2, {"a": 3, "c": 1}]


def test_a_report_stays_as_it_is_until_it_arrives() -> None:
    """It may have arrived with its answer lost, so nothing is added to it; that goes with the next."""
    scene = Scene()
    scene.measured["a"] = 2
    first = scene.report.operations()
    scene.measured["a"] = 9
    assert scene.report.operations() == first
    scene.report.arrived(first)
    assert scene.sent() == [2, {"a": 7}]


def test_a_late_answer_ends_no_other_report() -> None:
    """Two threads sent the same report; the second answer does not count for the one that came after."""
    scene = Scene()
    scene.measured["a"] = 1
    first = scene.report.operations()
    scene.report.arrived(first)
    scene.measured["a"] = 2
    scene.report.operations()
    scene.report.arrived(first)
    assert scene.sent() == [2, {"a": 1}]
