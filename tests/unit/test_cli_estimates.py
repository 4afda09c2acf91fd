"""`dspy-jobs batch estimate` as a shell sees it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from dspy_jobs.cli.exit_codes import ExitCode
from dspy_jobs.problems import problem
from tests.unit.test_cli_commands import run

ESTIMATE = {
    "object": "batch_estimate", "program": "qa", "model": "fast", "valid": 3, "invalid": 0, "cached": 1, "repeated": 1,
    "est_input_tokens": 200, "est_output_tokens": 30, "est_cost_usd": {"low": 0.0002, "high": 0.0004},
    "est_seconds": 12.5, "error_count": 0, "errors": [], "notes": ["guessed"],
}  # fmt: skip


class Service:
    """Answers every estimate alike; remembers what was asked."""

    def __init__(self, **changed: Any) -> None:
        self.answer = {**ESTIMATE, **changed}
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        """Answer one request."""
        request.read()
        self.requests.append(request)
        return httpx.Response(200, json={**self.answer, "program": request.url.params["program"]})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Three lines of two programs, with an empty line between."""
    path = tmp_path / "items.jsonl"
    lines = [{"program": "qa", "inputs": {"question": "1"}}, None, {"program": "qa", "inputs": {"question": "2"}},
             {"program": "sum", "inputs": {"text": "3"}}]  # fmt: skip
    path.write_text("".join((json.dumps(line) if line else "") + "\n" for line in lines))
    return path


def test_a_table_for_people(file: Path) -> None:
    """A row for each program; what the numbers rest on is told beside it, once."""
    service = Service()
    result = run(service, "batch", "estimate", str(file))
    assert result.exit_code == ExitCode.OK
    header, *rows = result.stdout.splitlines()
    assert header.split() == ["program", "model", "valid", "invalid", "cached", "repeated", "tokens", "cost", "time"]
    assert [row.split()[0] for row in rows] == ["qa", "sum"]
    assert "200 in, 30 out" in rows[0]
    assert "$0.0002 to $0.0004" in rows[0]
    assert "12.5 s" in rows[0]
    assert result.stderr == "guessed\n"
    assert [dict(request.url.params) for request in service.requests] == [
        {"program": name, "dry_run": "true"} for name in ("qa", "sum")
    ]


def test_what_is_unknown_is_said(file: Path) -> None:
    """Not shown as nothing or zero."""
    service = Service(cached=None, est_cost_usd={"low": None, "high": None}, est_seconds=None)
    result = run(service, "batch", "estimate", str(file))
    assert result.stdout.count("unknown") == 2 * 3


def test_json_for_programs(file: Path) -> None:
    """As the service said it."""
    result = run(Service(), "batch", "estimate", str(file), "--program", "qa", "--json")
    decoder, text, found = json.JSONDecoder(), result.stdout.strip(), []
    while text:
        value, end = decoder.raw_decode(text)
        found.append(value)
        text = text[end:].strip()
    assert found == [ESTIMATE, {**ESTIMATE, "program": "sum"}]


def test_the_options_are_those_of_submit(file: Path) -> None:
    """Each becomes the same field."""
    options = ("--model", "fast", "--priority", "high", "--cache-only", "--max-age", "60", "--namespace", "eu",
               "--variant", "b", "--max-cost", "1.5", "--max-error-rate", "0.2", "--min-items", "3")  # fmt: skip
    service = Service()
    assert run(service, "batch", "estimate", str(file), *options).exit_code == ExitCode.OK
    submitted = Service()
    run(submitted, "batch", "submit", str(file), *options)
    asked, sent = (dict(s.requests[0].url.params) for s in (service, submitted))
    assert asked == {**sent, "dry_run": "true"}
    assert service.requests[0].content == submitted.requests[0].content


def test_mistakes_are_named_by_the_lines_of_the_file(file: Path) -> None:
    """The service counts items, people count lines; the batch would be refused, so the exit says so."""
    mistake = {"line": 2, "custom_id": None, "param": "inputs.question", "code": "invalid_input", "detail": "is wrong"}
    result = run(Service(invalid=1, errors=[mistake], error_count=1), "batch", "estimate", str(file))
    assert result.exit_code == ExitCode.USAGE
    assert "line 3, inputs.question: is wrong" in result.stderr


@pytest.mark.parametrize("command", ["estimate", "submit"])
def test_a_program_there_is_not_is_named_by_its_line(file: Path, command: str) -> None:
    """The other lines are estimated; what `--program` gave is no line's mistake."""
    detail = "There is no program 'sum'; there are: qa."
    mistake = {"param": "program", "code": "unknown_program", "detail": detail}
    refusal = problem("unknown_program", detail, errors=[mistake])
    service = Service(id="b", status="in_progress", counts={"total": 2})

    def handler(request: httpx.Request) -> httpx.Response:
        is_unknown = request.url.params["program"] == "sum"
        return httpx.Response(422, json=refusal.model_dump()) if is_unknown else service(request)

    result = run(handler, "batch", command, str(file))
    assert result.exit_code == (ExitCode.USAGE if command == "estimate" else ExitCode.REFUSED)
    assert f"line 4, program: {detail}" in result.stderr
    if command == "estimate":
        assert [line.split()[0] for line in result.stdout.splitlines()[1:]] == ["qa", "sum"]
        file.write_text('{"text": "3"}\n')
        result = run(handler, "batch", command, str(file), "--program", "sum")
        assert (result.exit_code, result.stdout) == (ExitCode.USAGE, "")
        assert result.stderr == f"dspy-jobs: unknown_program: program: {detail}\n"


def test_bad_lines_do_not_stop_the_others(file: Path) -> None:
    """Lines that are no items are counted and named, the others are estimated."""
    file.write_text(file.read_text() + "{no json\n" + '{"program": "qa", "inputs": 7}\n')
    service = Service()
    result = run(service, "batch", "estimate", str(file), "--json")
    assert result.exit_code == ExitCode.USAGE
    assert len(service.requests) == 2
    last = json.loads(result.stdout[result.stdout.rindex("\n{") :])
    assert (last["valid"], last["invalid"], [error["line"] for error in last["errors"]]) == (0, 1, [5])
    first = json.loads(result.stdout[: result.stdout.index("\n{")])
    assert (first["program"], first["invalid"], [error["line"] for error in first["errors"]]) == ("qa", 1, [6])
    assert "(bad lines)" in run(service, "batch", "estimate", str(file)).stdout


def test_a_repeated_custom_id_is_a_bad_line(tmp_path: Path) -> None:
    """And is not sent, so that the service does not name it again."""
    path = tmp_path / "items.csv"
    path.write_text("custom_id,question\na,1\nb,2\na,3\n")
    service = Service()
    result = run(service, "batch", "estimate", str(path), "--program", "qa")
    assert result.exit_code == ExitCode.USAGE
    assert "line 4: the custom_id 'a' is already that of line 2" in result.stderr
    assert [line.split()[:4] for line in result.stdout.splitlines()[1:]] == [["qa", "fast", "3", "1"]]
    assert [json.loads(line)["custom_id"] for line in service.requests[0].content.splitlines()] == ["a", "b"]


def test_a_model_there_is_not_exits_2(file: Path) -> None:
    """What all items share is wrong."""
    refusal = problem("unknown_model", "There is no model 'x'.")
    result = run(lambda _: httpx.Response(422, json=refusal.model_dump()), "batch", "estimate", str(file))
    assert (result.exit_code, result.stdout) == (ExitCode.USAGE, "")


def test_a_file_without_items_is_refused_here(tmp_path: Path) -> None:
    """Nothing is asked."""
    path = tmp_path / "empty.jsonl"
    path.write_text("\n")
    service = Service()
    assert run(service, "batch", "estimate", str(path)).exit_code == ExitCode.USAGE
    assert service.requests == []
