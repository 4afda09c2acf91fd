"""`dspy-jobs demo` with every real process."""

from __future__ import annotations

import json
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
from stack_process import BOUND, REPOSITORY, command, environ_for, still_alive

from dspy_jobs.stack.folder import sole_user_of

pytestmark = pytest.mark.system


def test_the_demo_answers_every_example(tmp_path: Path) -> None:
    """It exits 0, keeps a result of every example, says what the sandbox is not, and leaves no process behind."""
    run = _demo(environ_for(tmp_path))
    assert run.returncode == 0, run.stdout + run.stderr
    asked = [json.loads(line)["custom_id"] for line in _lines(REPOSITORY / "examples" / "questions.jsonl")]
    results = _results(tmp_path)
    assert sorted(result["custom_id"] for result in results) == sorted(asked)
    assert {result["status"] for result in results} == {"succeeded"}
    assert "not a language model" in run.stdout
    assert not still_alive(_pids(tmp_path))


def test_the_demo_gives_way_to_what_already_runs(tmp_path: Path) -> None:
    """With the data folder and the usual port taken it uses a private folder and a free port, and says so."""
    environ = environ_for(tmp_path)
    with sole_user_of(tmp_path), socket.create_server(("127.0.0.1", int(environ["DSPY_JOBS_API_PORT"]))):
        run = _demo(environ, "--file", str(_questions(tmp_path)))
    assert run.returncode == 0, run.stdout + run.stderr
    assert "A stack already runs on" in run.stdout
    assert len(_results(tmp_path)) == 2
    assert not (tmp_path / "appendonly.aof").exists()


def test_the_demo_fails_when_jobs_fail(tmp_path: Path) -> None:
    """It shows why jobs failed, keeps their results too, and exits 1."""
    down = {"DSPY_JOBS_DEFAULT_MODEL": "sandbox-down", "DSPY_JOBS_JOBS_MAX_ATTEMPTS": "1"}
    run = _demo(environ_for(tmp_path) | down, "--file", str(_questions(tmp_path)))
    assert run.returncode == 1, run.stdout + run.stderr
    assert "0 answers, 2 failed" in run.stdout
    assert [result["status"] for result in _results(tmp_path)] == ["failed", "failed"]


def test_the_demo_names_what_keeps_it_from_starting(tmp_path: Path) -> None:
    """When a process ends early it shows that process's last lines and where the logs are, and exits 1."""
    config = tmp_path / "dspy-jobs.toml"
    source = (REPOSITORY / "dspy-jobs.toml").read_text()
    config.write_text(source.replace("examples.programs:classify", "examples.programs:missing"))
    run = _demo(environ_for(tmp_path / "data", DSPY_JOBS_CONFIG=str(config)))
    assert run.returncode == 1
    assert "missing" in run.stdout
    assert str(tmp_path / "data" / "logs") in run.stdout.replace("\n", "")


def test_a_file_with_mistakes_starts_nothing(tmp_path: Path) -> None:
    """A bad line is named with its number, and exit code 2 says that nothing was started."""
    file = tmp_path / "bad.jsonl"
    file.write_text('{"program": "qa", "inputs": {"question": "?"}}\nnonsense\n')
    run = _demo(environ_for(tmp_path / "data"), "--file", str(file))
    assert run.returncode == 2
    assert "line 2" in run.stderr
    assert not (tmp_path / "data").exists()


def _demo(environ: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command("demo", *arguments), env=environ, cwd=REPOSITORY, capture_output=True, text=True, timeout=BOUND
    )


def _questions(folder: Path) -> Path:
    file = folder / "two.jsonl"
    file.write_text("".join(f'{{"program": "qa", "inputs": {{"question": "{n}?"}}}}\n' for n in (1, 2)))
    return file


def _results(folder: Path) -> list[dict[str, Any]]:
    [file] = (folder / "results").glob("demo-*.jsonl")
    return [json.loads(line) for line in _lines(file)]


def _pids(folder: Path) -> set[int]:
    events = [json.loads(line) for line in _lines(folder / "logs" / "stack.log")]
    pids = {event["pid"] for event in events if event["event"] == "started"}
    assert len(pids) == 4
    return pids


def _lines(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8").splitlines()
