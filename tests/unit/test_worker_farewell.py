"""How a worker ends whose last words nobody takes."""

from __future__ import annotations

import threading

import pytest

from worker import farewell


def test_a_process_ends_whatever_becomes_of_its_last_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are said; where they stand still or fail, the process ends all the same."""
    ended, said, nobody_listens = [], threading.Event(), threading.Event()
    monkeypatch.setattr(farewell.os, "_exit", ended.append)
    farewell.end_process(1, said.set)
    assert said.is_set()
    farewell.end_process(2, nobody_listens.wait, seconds=0.05)  # type: ignore[arg-type]
    nobody_listens.set()
    assert ended == [1, 2]
