"""Writes jobs as JSON lines or as CSV, to stdout or to a file that appears whole or not at all."""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any, TextIO

from dspy_jobs.cli.failures import InputMistake
from dspy_jobs.models import Job

#: A spreadsheet takes cells that begin so for formulas.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")

_COLUMNS = ("custom_id", "id", "status", "error_code", "error_detail")


class Format(StrEnum):
    """How results are written."""

    JSONL = "jsonl"
    CSV = "csv"


def format_of(path: Path | None, given: Format | None = None) -> Format:
    """The format asked for, else the one the file's name tells, else JSON lines."""
    by_name = Format.CSV if path and path.suffix.lower() == ".csv" else Format.JSONL
    return given or by_name


def write_results(jobs: Iterable[Job], to: TextIO, wanted: Format) -> int:
    """Write the jobs; answers how many."""
    return _write_csv(list(jobs), to) if wanted is Format.CSV else _write_jsonl(jobs, to)


@contextmanager
def opened(path: Path | None) -> Iterator[TextIO]:
    """A file to write, or stdout for None and `-`. A file takes its name only once the block has ended well.

    Raises:
        InputMistake: it cannot be written.
    """
    if path is None or str(path) == "-":
        yield sys.stdout
        return
    is_device = path.exists() and not path.is_file()
    part = path if is_device else path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("w", encoding="utf-8", newline="") as file:
            yield file
        if not is_device:
            part.replace(path)
    except OSError as error:
        raise InputMistake(f"{path} cannot be written: {error.strerror}") from None
    finally:
        if not is_device:
            part.unlink(missing_ok=True)


def check_writable(path: Path | None) -> None:
    """Find out before any work is done for it that a file cannot be written.

    Raises:
        InputMistake: it cannot.
    """
    if path is None or str(path) == "-":
        return
    target = path if path.exists() else path.parent
    if path.is_dir() or not target.exists() or not os.access(target, os.W_OK):
        raise InputMistake(f"{path} cannot be written: its folder is missing, or it is one, or it is protected")


def _write_jsonl(jobs: Iterable[Job], to: TextIO) -> int:
    written = 0
    for job in jobs:
        to.write(job.model_dump_json(exclude_unset=True) + "\n")
        written += 1
    return written


def _write_csv(jobs: list[Job], to: TextIO) -> int:
    names = list(dict.fromkeys(name for job in jobs for name in job.output or {}))
    writer = csv.writer(to, lineterminator="\n")
    writer.writerow([*_COLUMNS, *(_cell(f"output.{name}" if name in _COLUMNS else name) for name in names)])
    for job in jobs:
        output = job.output or {}
        error = (job.error.code, job.error.detail) if job.error else (None, None)
        values = [job.custom_id, job.id, job.status.value, *error, *(output.get(name) for name in names)]
        writer.writerow([_cell(value) for value in values])
    return len(jobs)


def _cell(value: Any) -> str:
    """A value as a spreadsheet takes it for data. Numbers stay as they are; nested values become JSON."""
    if value is None:
        return ""
    if not isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return f"'{value}" if value.startswith(_FORMULA) else value
