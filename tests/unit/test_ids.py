"""Ids sort by the time they were made and are told apart by sight."""

from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspy_jobs.ids import first_batch_id, first_job_id, is_batch_id, is_job_id, made_at, new_batch_id, new_job_id

_CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"


def _milliseconds(identifier: str) -> int:
    number = 0
    for letter in identifier.split("_")[1]:
        number = number * 32 + _CROCKFORD.index(letter)
    return number >> 80


def test_ids_of_a_process_increase() -> None:
    """Ten thousand ids made one after the other, many within a millisecond, are distinct and in order."""
    ids = [new_job_id() for _ in range(10_000)]
    assert ids == sorted(set(ids))


def test_ids_of_many_threads_are_distinct() -> None:
    """Threads never get the same id, and each sees its own increase."""
    made: list[list[str]] = [[] for _ in range(8)]

    def make(mine: list[str]) -> None:
        mine.extend(new_job_id() for _ in range(1000))

    threads = [threading.Thread(target=make, args=(mine,)) for mine in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({job_id for mine in made for job_id in mine}) == 8000
    assert all(mine == sorted(mine) for mine in made)


def test_an_id_tells_when_it_was_made() -> None:
    """Its first 48 bits are milliseconds since 1970."""
    before = time.time_ns() // 1_000_000
    made = _milliseconds(new_batch_id())
    assert before <= made <= time.time_ns() // 1_000_000 + 1


@given(st.integers(0, 2**48 - 2))
def test_a_time_has_a_first_id(ms: int) -> None:
    """It is an id, tells the time, and sorts before every id of the next millisecond."""
    assert is_job_id(first_job_id(ms))
    assert is_batch_id(first_batch_id(ms))
    assert _milliseconds(first_job_id(ms)) == _milliseconds(first_batch_id(ms)) == ms
    assert first_job_id(ms) < first_job_id(ms + 1)


def test_an_id_sorts_between_the_first_ids_of_its_time() -> None:
    """So a time is a place in an index of ids."""
    made = new_job_id()
    assert first_job_id(_milliseconds(made)) <= made < first_job_id(_milliseconds(made) + 1)


def test_kinds_are_told_apart() -> None:
    """A job's id is no batch's id and the other way round."""
    ids = (new_job_id(), new_batch_id())
    assert [is_job_id(text) for text in ids] == [True, False]
    assert [is_batch_id(text) for text in ids] == [False, True]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "job_",
        "job_" + "0" * 25,
        "job_" + "0" * 27,
        "job_8" + "0" * 25,
        "job_0" + "I" * 25,
        "job_0" + "u" * 25,
        "job_0" + "0" * 25 + "\n",
        " job_0" + "0" * 25,
        "JOB_0" + "0" * 25,
        "job_0" + "\u0660" * 25,
    ],
)
def test_what_cannot_be_an_id_is_refused(text: str) -> None:
    """Wrong length, letters, case, digits of other scripts, and white space around it."""
    assert not is_job_id(text)


@given(st.text())
def test_no_text_is_both(text: str) -> None:
    """Any text at all is looked at without an error."""
    assert not (is_job_id(text) and is_batch_id(text))


def test_a_jobs_id_tells_when_it_was_made() -> None:
    """To the millisecond; what is no job's id tells nothing."""
    assert made_at(first_job_id(1_700_000_000_123)) == 1_700_000_000_123
    assert made_at(first_job_id(1_700_000_000_123)[:-1] + "z") == 1_700_000_000_123
    assert made_at("job_0001") is None
    assert made_at(new_batch_id()) is None
