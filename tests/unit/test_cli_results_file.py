"""Results as files: whole, faithful, and harmless in a spreadsheet."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from dspy_jobs.cli.failures import InputMistake
from dspy_jobs.cli.results_file import Format, check_writable, format_of, opened, write_results
from dspy_jobs.models import Job
from dspy_jobs.problems import problem


def job(number: int, output: dict[str, Any] | None = None, **more: Any) -> Job:
    """An ended job."""
    status = "failed" if output is None else "succeeded"
    members = {"id": f"job_{number}", "status": status, "program": "qa", "output": output, **more}
    return Job.model_validate({name: value for name, value in members.items() if value is not None})


def as_csv(*jobs: Job) -> list[list[str]]:
    """The rows written for these jobs."""
    text = io.StringIO(newline="")
    write_results(jobs, text, Format.CSV)
    return list(csv.reader(io.StringIO(text.getvalue(), newline="")))


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("+1", "'+1"),
        ("-1", "'-1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t=1"),
        ("1=1", "1=1"),
        ('a,"b"\r\nc', 'a,"b"\r\nc'),
        (-1.5, "-1.5"),
        (True, "true"),
        (None, ""),
        (["ü", 1], '["ü", 1]'),
    ],
)
def test_a_cell_is_data(value: Any, cell: str) -> None:
    """Text that a spreadsheet would take for a formula gets a ' before it; all else stays as it is."""
    [header, row] = as_csv(job(1, {"answer": value}))
    assert row[header.index("answer")] == cell


def test_columns_are_the_fields_of_all_jobs() -> None:
    """A failed job has its error's columns; fields with the name of a column keep apart."""
    failed = job(2, custom_id="=x", error=problem("program_error", "-boom").model_dump())
    header, first, second = as_csv(job(1, {"answer": "4", "status": "fine"}), failed)
    assert header == ["custom_id", "id", "status", "error_code", "error_detail", "answer", "output.status"]
    assert first == ["", "job_1", "succeeded", "", "", "4", "fine"]
    assert second == ["'=x", "job_2", "failed", "program_error", "'-boom", "", ""]


def test_json_lines_are_jobs_as_read() -> None:
    """Each line is the job with the members it came with, also those this version does not know."""
    text = io.StringIO()
    raw = {"id": "job_1", "status": "succeeded", "program": "qa", "output": {"a": "\n"}, "colour": "red"}
    assert write_results([Job.model_validate(raw)] * 2, text, Format.JSONL) == 2
    assert [json.loads(line) for line in text.getvalue().splitlines()] == [raw, raw]


@pytest.mark.parametrize(
    ("path", "given", "wanted"),
    [
        (None, None, "jsonl"),
        (Path("x.CSV"), None, "csv"),
        (Path("x.txt"), None, "jsonl"),
        (Path("x.csv"), Format.JSONL, "jsonl"),
    ],
)
def test_the_format_is_told_by_the_name(path: Path | None, given: Format | None, wanted: str) -> None:
    """Unless it is given."""
    assert format_of(path, given) == wanted


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    """An interrupted write leaves the old content and nothing beside it."""
    path = tmp_path / "results.jsonl"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), opened(path) as file:  # noqa: PT012 - the interrupt comes while writing
        file.write("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    with opened(path) as file:
        file.write("whole")
    assert path.read_text() == "whole"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_cannot_be_written_is_found_out_early(tmp_path: Path) -> None:
    """A missing folder or a folder in place of the file is a mistake that names the path."""
    for path in (tmp_path, tmp_path / "none" / "x.csv"):
        with pytest.raises(InputMistake, match=str(path)):
            check_writable(path)
    check_writable(tmp_path / "x.csv")
    check_writable(Path("-"))
