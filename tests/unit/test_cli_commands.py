"""The commands as a shell sees them: stdout, stderr and exit code."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner, Result

from dspy_jobs import ApiError, Client, __version__
from dspy_jobs.cli import app
from dspy_jobs.cli.exit_codes import MEANINGS, ExitCode
from dspy_jobs.problems import problem

Handler = Callable[[httpx.Request], httpx.Response]


def variant(name: str, weight: float, failed: int, values: list[float]) -> dict[str, Any]:
    """A variant of which a hundred jobs have ended."""
    times = {"mean_seconds": 1.5, "p50_seconds": 1.25, "p95_seconds": 3.0}
    scores = {"accuracy": {"n": len(values), "mean": 0.5, "values": values}}
    numbers = {"jobs": 100, "failed": failed, "error_rate": failed / 100, "cached": 25, "cost_usd": 0.5}
    return {"name": name, "weight": weight, "model": "fast", "version_name": "v1", **numbers, "cost_per_job": 0.005,
            "latency": times, "scores": scores}  # fmt: skip


VARIANTS = [variant("a", 3, 5, [0.1, 0.2, 0.3, 0.2]), variant("b", 1, 20, [0.7, 0.8, 0.9, 0.8])]


class FakeService:
    """Answers like the service; remembers what was asked."""

    def __init__(self, *, status: str = "succeeded", **members: Any) -> None:
        self.requests: list[httpx.Request] = []
        self.job = {"id": "job_1", "object": "job", "status": status, "program": "qa", **members}

    def __call__(self, request: httpx.Request) -> httpx.Response:
        """Answer one request."""
        request.read()
        self.requests.append(request)
        path = request.url.path
        if path.endswith("/results"):
            lines = json.dumps(self.job) + "\n"
            done = "after" in request.url.params
            return httpx.Response(200, text="" if done else lines, headers={"X-Next-Cursor": "1"})
        if path.endswith("/retry"):
            return httpx.Response(202, json={"requeued": 1})
        if path.startswith("/v1/queues"):
            queue = self.queue(path.split("/")[-1])
            return httpx.Response(200, json={"data": [queue]} if request.method == "GET" else queue)
        if path == "/v1/jobs" and request.method == "GET":
            return httpx.Response(200, json={"data": [self.job]})
        if path.startswith("/v1/batches"):
            return httpx.Response(202, json=self.batch())
        if path.endswith("/variants"):
            return httpx.Response(200, json={"data": VARIANTS})
        if path == "/v1/programs":
            schema: dict[str, Any] = {"properties": {"question": {}}}
            return httpx.Response(200, json={"data": [{"name": "qa", "input_schema": schema, "model": "[red]"}]})
        return httpx.Response(200, json=self.job)

    def batch(self) -> dict[str, Any]:
        """A batch of one job that has ended."""
        ok = int(self.job["status"] == "succeeded")
        counts = {"total": 1, "succeeded": ok, "failed": 1 - ok, "queued": 0}
        return {"id": "batch_1", "status": "ended", "ended_reason": "completed", "program": "qa", "counts": counts}

    @staticmethod
    def queue(change: str) -> dict[str, Any]:
        """A queue that is paused, or open."""
        closed = {"open": False, "reason": "paused", "until": None}
        return {"name": "dj.m", "queued": 2, "running": 1, "gate": closed if change == "pause" else {"open": True}}

    @property
    def bodies(self) -> list[Any]:
        """The lines of every body sent."""
        return [[json.loads(line) for line in r.content.splitlines()] for r in self.requests if r.method == "POST"]


def run(handler: Handler, *args: str, **more: Any) -> Result:
    """Run a command line against a service."""

    def connect(url: str | None, **_: float) -> Client:
        return Client(url or "http://service", transport=httpx.MockTransport(handler), retry_seconds=0)

    return CliRunner().invoke(app, args, obj=connect, catch_exceptions=False, **more)


def refusing(code: str, **more: Any) -> Handler:
    """A service that answers nothing but this problem."""
    refusal = problem(code, "no", **more)
    return lambda _: httpx.Response(refusal.status, json=refusal.model_dump())


def test_submit_prints_the_id() -> None:
    """A script gets the id and nothing else on stdout."""
    service = FakeService(status="queued")
    result = run(service, "submit", "qa", "--input", "question=1=1?", "--json", '{"n": 1}', "--model", "fast")
    assert (result.exit_code, result.stdout) == (0, "job_1\n")
    assert service.bodies == [[{"program": "qa", "inputs": {"n": 1, "question": "1=1?"}, "model": "fast"}]]


@pytest.mark.parametrize(
    ("options", "sent"),
    [
        (("--no-cache",), {"use_cache": False}),
        (("--refresh",), {"cache": {"mode": "refresh"}}),
        (
            ("--cache-only", "--max-age", "60", "--namespace", "eu"),
            {"cache": {"mode": "only", "max_age_seconds": 60.0, "namespace": "eu"}},
        ),
    ],
)
def test_submit_says_how_to_use_the_cache(options: tuple[str, ...], sent: dict[str, Any]) -> None:
    """Each option becomes its field; what is not given is not sent."""
    service = FakeService(status="queued")
    assert run(service, "submit", "qa", *options).exit_code == 0
    assert service.bodies == [[{"program": "qa", "inputs": {}, **sent}]]


def test_submit_and_wait_shows_the_output_as_text() -> None:
    """What a model wrote is shown as it is: no markup, no control characters."""
    output = {"answer": "[bold]4[/bold]\x1b[31m", "n": [1]}
    result = run(FakeService(output=output), "submit", "qa", "-i", "question=?", "--wait")
    assert result.exit_code == ExitCode.OK
    assert "[bold]4[/bold]\N{REPLACEMENT CHARACTER}[31m" in result.stdout
    assert "\x1b[31m" not in result.stdout


@pytest.mark.parametrize("args", [("wait", "job_1"), ("submit", "qa", "-i", "question=?", "--wait")])
def test_a_job_that_did_not_succeed_exits_1(args: tuple[str, ...]) -> None:
    """The problem is shown and the script can tell."""
    service = FakeService(status="failed", error=problem("program_error", "[boom]").model_dump())
    result = run(service, *args)
    assert result.exit_code == ExitCode.FAILED
    assert "program_error: [boom]" in result.stdout


def test_get_reads_whatever_became_of_the_job() -> None:
    """Reading a failed job is no failure; --json is the job as the service gave it."""
    service = FakeService(status="failed", colour="red")
    result = run(service, "get", "job_1", "--json")
    assert (result.exit_code, json.loads(result.stdout)) == (0, service.job)


@pytest.mark.parametrize(
    ("handler", "code", "text"),
    [
        (refusing("not_found"), ExitCode.REFUSED, "not_found: no"),
        (refusing("queue_full"), ExitCode.REFUSED, "queue_full: no"),
        (lambda _: httpx.Response(200, text="<html>"), ExitCode.REFUSED, "is this dspy-jobs?"),
    ],
)
def test_a_refusal_exits_5(handler: Handler, code: int, text: str) -> None:
    """The service's reason is told on stderr, without a traceback."""
    result = run(handler, "submit", "qa")
    assert (result.exit_code, result.stdout) == (code, "")
    assert text in result.stderr


@pytest.mark.parametrize(
    ("handler", "said"),
    [
        (refusing("invalid_input", errors=[{"param": "inputs.q", "detail": "missing"}]), "inputs.q: missing"),
        (refusing("unknown_program", errors=[{"param": "program", "detail": "no"}]), "unknown_program: program: no"),
        (refusing("unknown_variant", errors=[{"param": "variant", "detail": "no"}]), "unknown_variant: --variant: no"),
        (refusing("invalid_request_body", errors=[{"param": "cache.namespace", "detail": "no"}]), ": --namespace: no"),
        (refusing("invalid_request_body", errors=[{"param": "limits.max_cost_usd", "detail": "no"}]), "--max-cost: no"),
    ],
)
def test_what_the_service_finds_wrong_exits_2(handler: Handler, said: str) -> None:
    """As what is found here; the mistake is named once, by the option that gave it."""
    result = run(handler, "submit", "qa")
    assert (result.exit_code, result.stdout) == (ExitCode.USAGE, "")
    assert said in result.stderr
    assert "no: no" not in result.stderr
    assert result.stderr.count("missing") <= 1


@pytest.mark.parametrize(
    ("param", "detail", "said"),
    [
        ("group_by", "group_by must be some of day.", "invalid_parameter: --by: must be some of day."),
        ("from", "from must not be later than to.", "invalid_parameter: --from: must not be later than to."),
    ],
)
def test_a_wrong_option_of_costs_exits_2(param: str, detail: str, said: str) -> None:
    """The mistake is told once, by the option's name."""
    refusal = problem("invalid_parameter", detail, errors=[{"param": param, "detail": detail}])
    result = run(lambda _: httpx.Response(400, json=refusal.model_dump()), "costs")
    assert (result.exit_code, result.stderr) == (ExitCode.USAGE, f"dspy-jobs: {said}\n")


def test_a_refusal_names_options_in_place_of_fields() -> None:
    """Also where no single field is named."""
    refusal = problem("conflict", "Give limits.max_cost_usd $2.00 or more.").model_dump()
    result = run(lambda _: httpx.Response(409, json=refusal), "batch", "resume", "b")
    assert (result.exit_code, result.stderr) == (5, "dspy-jobs: conflict: Give --max-cost $2.00 or more.\n")


def test_an_unreachable_service_exits_3() -> None:
    """The message names the address and how to start the service."""

    def handler(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("connection refused", request=request)

    result = run(handler, "--url", "http://127.0.0.1:1", "programs")
    assert result.exit_code == ExitCode.UNREACHABLE
    assert "http://127.0.0.1:1" in result.stderr
    assert "make up" in result.stderr


def test_waiting_too_long_exits_4() -> None:
    """The job goes on, and the message says so."""
    result = run(FakeService(status="running"), "wait", "job_1", "--timeout", "0")
    assert result.exit_code == ExitCode.WAITED_TOO_LONG
    assert "it goes on" in result.stderr


@pytest.mark.parametrize(
    ("reason", "command"),
    [("max_cost", "batch resume b --max-cost USD"), ("max_error_rate", "batch resume b;")],
)
@pytest.mark.parametrize(
    "args",
    [("submit", "-", "--program", "qa", "--wait"), ("get", "b", "--wait"), ("get", "b", "--wait", "--json"),
     ("retry", "b", "--wait"), ("submit", "-", "--program", "qa", "-o", "-")],
)  # fmt: skip
def test_waiting_stops_at_a_batch_that_its_limits_have_paused(args: tuple[str, ...], reason: str, command: str) -> None:
    """It says why, once, and how the batch goes on; the exit code says that it has not ended."""
    pause = {"reason": reason, "detail": "It has spent $2."}
    batch = {"id": "b", "status": "paused", "counts": {"total": 8, "queued": 8}, "requeued": 1, "pause": pause}
    result = run(lambda _: httpx.Response(200, json=batch), "batch", *args, input='{"question":"a"}\n')
    assert result.exit_code == ExitCode.WAITED_TOO_LONG
    people = result.stderr if "--json" in args else result.stdout + result.stderr
    assert people.count("It has spent $2.") == 1
    assert f"dspy-jobs {command}" in result.stderr
    assert "goes on" not in result.stderr.replace("b goes on with:", "")


def test_a_paused_batch_does_not_keep_others_from_being_waited_for() -> None:
    """Each is followed to its end or pause, and both are shown."""
    pause = {"reason": "max_cost", "detail": "no room"}
    batches = {
        "a": {"id": "a", "program": "a", "status": "paused", "counts": {"total": 1, "queued": 1}, "pause": pause},
        "b": {"id": "b", "program": "b", "status": "in_progress", "counts": {"total": 1, "running": 1}},
    }

    def handler(request: httpx.Request) -> httpx.Response:
        name = request.url.params.get("program") or request.url.path[-1]
        answer = httpx.Response(200, json=batches[name], headers={"Preference-Applied": "wait=1"})
        if request.method == "GET":  # the next reading finds the other ended
            batches["b"] = {**batches["b"], "status": "ended", "counts": {"total": 1, "succeeded": 1}}
        return answer

    lines = '{"program":"a","inputs":{}}\n{"program":"b","inputs":{}}\n'
    result = run(handler, "batch", "submit", "-", "--wait", input=lines)
    assert result.exit_code == ExitCode.WAITED_TOO_LONG
    assert [line.split()[2] for line in result.stdout.splitlines()[1:3]] == ["paused", "ended"]


@pytest.mark.parametrize(
    ("waiting", "said", "goes_on"),
    [
        ({"wait_reason": "budget_exhausted", "until": "2026-02-01T00:00:00.000Z"},
         "it waits: budget_exhausted until 2026-02-01 00:00:00 UTC", False),
        ({"wait_reason": "no_workers"}, "it waits: no_workers", False),
        ({"wait_reason": "behind_n_jobs"}, "it waits: behind_n_jobs; it goes on", True),
        ({}, "it goes on", True),
    ],
)  # fmt: skip
def test_a_wait_that_ends_early_says_what_for(waiting: dict[str, str], said: str, goes_on: bool) -> None:
    """What stands still is not said to go on."""
    result = run(FakeService(status="queued", **waiting), "wait", "job_1", "--timeout", "0")
    assert result.exit_code == ExitCode.WAITED_TOO_LONG
    assert said in result.stderr
    assert ("goes on" in result.stderr) is goes_on


def test_a_pause_by_somebody_is_waited_out() -> None:
    """They will resume it; a timeout says that it is paused."""
    pause = {"reason": "operator", "detail": "Somebody paused it."}
    batch = {"id": "b", "status": "paused", "counts": {"total": 8, "queued": 8}, "pause": pause}
    result = run(lambda _: httpx.Response(200, json=batch), "batch", "get", "b", "--timeout", "0")
    assert result.exit_code == ExitCode.WAITED_TOO_LONG
    assert "it is paused by operator: Somebody paused it." in result.stderr


def test_an_interrupt_exits_130() -> None:
    """Ctrl-C ends the command without a traceback."""

    def handler(request: httpx.Request) -> httpx.Response:
        raise KeyboardInterrupt

    result = run(handler, "wait", "job_1")
    assert result.exit_code == ExitCode.INTERRUPTED
    assert "interrupted" in result.stderr


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (("submit", "qa", "--input", "question"), "NAME=VALUE"),
        (("submit", "qa", "--json", "{"), "--json is not JSON"),
        (("submit", "qa", "--json", "[1]"), "must be an object"),
        (("submit",), "Missing argument"),
        (("--url", "service:80", "programs"), "is not an address"),
        (("batch", "submit", "/nowhere/x.jsonl"), "/nowhere/x.jsonl cannot be read: No such file"),
        (("batch", "submit", "/"), "/ cannot be read: Is a directory"),
        (("batch", "submit", "-", "--output", "/nowhere/x"), "cannot be written"),
        (("batch", "results", "b", "--json", "--format", "csv"), "exclude each other"),
        (("submit", "qa", "--no-cache", "--refresh"), "exclude each other"),
        (("batch", "submit", "-", "--cache-only", "--refresh"), "exclude each other"),
        (("get", ".."), "is not a name or id"),
        (("config", "check", "/nowhere/x.toml"), "cannot be read"),
        (("nonsense",), "No such command"),
        (("batch", "submit", "-", "--max-cost", "0"), "must be more than 0"),
        (("batch", "submit", "-", "--max-cost", "inf"), "must be more than 0"),
        (("batch", "resume", "b", "--max-error-rate", "0"), "more than 0, at most 1"),
        (("submit", "qa", "--no-cache", "--namespace", "a"), "--max-age and --namespace do not go with it"),
        (("submit", "qa", "question=2+2?"), "-i name=value"),
    ],
)
def test_wrong_usage_exits_2_and_sends_nothing(args: tuple[str, ...], text: str) -> None:
    """A mistake is named on stderr."""
    service = FakeService()
    result = run(service, *args)
    assert (result.exit_code, result.stdout, service.requests) == (ExitCode.USAGE, "", [])
    assert text in result.stderr


def test_a_file_becomes_one_batch_a_program(tmp_path: Path) -> None:
    """Lines of several programs are sorted; the ids are all of stdout."""
    file = tmp_path / "x.jsonl"
    lines = [{"program": name, "custom_id": str(n), "inputs": {"x": n}} for n, name in enumerate("abab")]
    file.write_text("\n".join(map(json.dumps, lines)))
    service = FakeService()
    result = run(service, "batch", "submit", str(file), "--model", "fast", "--priority", "high", "--no-cache")
    assert (result.exit_code, result.stdout) == (0, "batch_1\nbatch_1\n")
    assert [r.url.params["program"] for r in service.requests] == ["a", "b"]
    assert dict(service.requests[0].url.params) == {
        "program": "a", "model": "fast", "priority": "high", "use_cache": "false",
    }  # fmt: skip
    assert [[item["custom_id"] for item in body] for body in service.bodies] == [["0", "2"], ["1", "3"]]
    assert service.bodies[0][0] == {"custom_id": "0", "inputs": {"x": 0}}


def test_stdin_is_jsonl() -> None:
    """`-` reads items from a pipe."""
    service = FakeService()
    result = run(service, "batch", "submit", "-", "--program", "qa", input='{"question":"a"}\n')
    assert result.exit_code == 0
    assert service.bodies == [[{"inputs": {"question": "a"}}]]


def test_a_demand_that_cannot_be_told_is_told_at_once() -> None:
    """Nobody who asks how things are now wants to wait half a minute for the news that they are bad."""
    tries = 0

    def handler(request: httpx.Request) -> httpx.Response:
        nonlocal tries
        tries += 1
        return refusing("unavailable")(request)

    with Client("http://service", transport=httpx.MockTransport(handler)) as client, pytest.raises(ApiError):
        client.autoscale()
    assert tries == 1
    assert run(handler, "autoscale").exit_code == ExitCode.REFUSED


@pytest.mark.parametrize("options", [("--min", "0"), ("--max", "3"), ("--min", "0", "--workers", "2")])
def test_bounds_without_autoscaling_are_refused(options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """They would mean nothing, and the fleet would stay as it is."""
    monkeypatch.setattr("dspy_jobs.stack.serve.serve", lambda *_: 0)
    done = run(FakeService(), "up", *options)
    assert done.exit_code == ExitCode.USAGE
    assert "--autoscale" in done.stderr


def test_bad_lines_send_nothing(tmp_path: Path) -> None:
    """All bad lines are reported by number and no line is sent."""
    file = tmp_path / "x.jsonl"
    file.write_text('{"question":"a"}\n{\n{"question":"b"}\n[]\n')
    service = FakeService()
    result = run(service, "batch", "submit", str(file), "--program", "qa")
    assert (result.exit_code, service.requests) == (ExitCode.USAGE, [])
    assert "2 bad line(s)" in result.stderr
    assert "line 2: is not JSON" in result.stderr
    assert "line 4: is not an object" in result.stderr


def test_refused_items_are_named_by_the_lines_of_the_file(tmp_path: Path) -> None:
    """The service counts items of a batch; the user hears lines of the file, and what was queued before."""
    file = tmp_path / "x.jsonl"
    file.write_text('\n{"program":"a","inputs":{}}\n\n{"program":"b","inputs":{}}\n{"program":"b","inputs":{}}\n')
    service = FakeService()
    refuse = refusing("invalid_input", errors=[{"line": 2, "param": "inputs.question", "detail": "missing"}])
    result = run(lambda r: refuse(r) if r.url.params["program"] == "b" else service(r), "batch", "submit", str(file))
    assert result.exit_code == ExitCode.REFUSED
    assert "line 5, inputs.question: missing" in result.stderr
    assert "queued before the lines of 'b' were not: batch_1" in result.stderr


@pytest.mark.parametrize(("status", "code"), [("succeeded", ExitCode.OK), ("failed", ExitCode.FAILED)])
def test_waiting_for_a_batch_ends_with_a_table_and_the_results(tmp_path: Path, status: str, code: int) -> None:
    """--output waits, writes the results and exits 1 unless all jobs succeeded; progress goes to stderr."""
    results = tmp_path / "out.csv"
    service = FakeService(status=status, output={"answer": "=4"})
    result = run(service, "batch", "submit", "-", "--program", "qa", "-o", str(results), input='{"question":"a"}\n')
    assert result.exit_code == code
    assert "batch_1" in result.stdout
    assert "completed" in result.stdout
    assert "'=4" in results.read_text()


def test_results_are_json_lines_on_stdout() -> None:
    """`batch results` writes data alone to stdout; the note for people goes to stderr."""
    service = FakeService(output={"answer": "4"})
    result = run(service, "batch", "results", "batch_1", "--status", "succeeded", "--input-order")
    assert [json.loads(line) for line in result.stdout.splitlines()] == [service.job]
    assert "1 results" in result.stderr
    asked = [r.url.params for r in service.requests if r.url.path.endswith("/results")]
    assert {(params["status"], params["order"]) for params in asked} == {("succeeded", "input")}


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (("batch", "get", "batch_1"), "batch_1"),
        (("programs",), "[red]"),
        (("queue", "list"), "dj.m"),
        (("queue", "pause", "dj.m"), "paused"),
        (("queue", "resume", "dj.m"), "open"),
        (("get", "job_1"), "job_1"),
    ],
)
def test_reading_commands_have_a_table_and_json(args: tuple[str, ...], text: str) -> None:
    """Every reading command shows a table for people and, with --json, one document for programs."""
    table, document = run(FakeService(), *args), run(FakeService(), *args, "--json")
    assert (table.exit_code, document.exit_code) == (0, 0)
    assert text in table.stdout
    assert text in json.dumps(json.loads(document.stdout))


def test_a_batch_shows_what_the_cache_has_saved_and_why_it_waits() -> None:
    """The share of cached jobs, the money they saved, and by what the batch is paused."""
    counts = {"total": 8, "succeeded": 4, "cached": 3, "queued": 4}
    pause = {"reason": "max_cost", "detail": "It has spent $2."}
    batch = {"id": "b", "status": "paused", "counts": counts, "saved_usd": 0.25, "pause": pause}
    shown = run(lambda _: httpx.Response(200, json=batch), "batch", "get", "b").stdout
    assert "3 (75%)" in shown
    assert "$0.25" in shown
    assert "b is paused: It has spent $2." in shown


@pytest.mark.parametrize(("ahead", "has_day"), [(timedelta(0), False), (timedelta(days=2), True)])
def test_what_waits_tells_until_when(ahead: timedelta, has_day: bool) -> None:
    """By the clock in UTC, with the day unless it is today."""
    until = datetime.now(UTC) + ahead
    waiting = {"wait_reason": "circuit_open", "until": until.isoformat()}
    said = f"circuit_open, until {until:{'%Y-%m-%d ' if has_day else ''}%H:%M:%S} UTC"
    batch = {"id": "b", "status": "in_progress", "counts": {"total": 1, "queued": 1}, **waiting}
    assert said in run(lambda _: httpx.Response(200, json=batch), "batch", "get", "b").stdout
    assert said in run(FakeService(status="queued", **waiting), "get", "job_1").stdout
    gate = {"open": False, "reason": "circuit_open", "until": until.isoformat()}
    queues = {"data": [{"name": "dj.m", "gate": gate}]}
    assert said in run(lambda _: httpx.Response(200, json=queues), "queue", "list").stdout


def test_programs_show_the_version_that_runs() -> None:
    """By the configuration's name, if it has one."""
    found = [{"name": "a", "version": "3f9a1c", "version_name": "v2"}, {"name": "b", "version": "a41b07"}]
    shown = run(lambda _: httpx.Response(200, json={"data": found}), "programs").stdout
    assert [line.split()[1:] for line in shown.splitlines()[1:]] == [["v2", "(3f9a1c)"], ["a41b07"]]


def test_costs_are_a_table_exact_to_the_nano_dollar_and_say_what_is_not_known() -> None:
    """A row a group and a total; unknown costs are told on stderr; --json is what the service answered."""
    asked: list[dict[str, str]] = []
    row = {"model": "fast", "variant": None, "calls": 3, "cost_nanos": 1_000_000_001, "cost_usd": 1.000000001}
    answer = {
        "from": "2026-01-01", "to": "2026-01-31", "group_by": ["model", "variant"], "data": [row],
        "total": {"calls": 3, "cost_nanos": 1_000_000_001, "unpriced_calls": 2, "complete": False}, "complete": False,
    }  # fmt: skip

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(dict(request.url.params))
        return httpx.Response(200, json=answer)

    options = ("costs", "--from", "2026-01-01", "--to", "2026-01-31", "--by", "model,variant")
    shown = run(handler, *options)
    assert asked == [{"from": "2026-01-01", "to": "2026-01-31", "group_by": "model,variant"}]
    assert shown.stdout.count("$1.000000001") == 2
    assert shown.stderr == "not all is known: 2 calls have no known price\n"
    assert json.loads(run(handler, *options, "--json").stdout) == answer


def test_what_nobody_knows_is_not_shown_as_nothing() -> None:
    """A sum of which a part is known is at least that; one of which none is, is unknown; only real causes are told."""
    rows = [
        {"model": "free", "calls": 2, "unpriced_calls": 2, "cached": 3, "unsaved_jobs": 3, "complete": False},
        {"model": "lost", "lost_attempts": 1, "complete": False},
        {"model": "part", "calls": 2, "cost_nanos": 10**9, "unpriced_calls": 1, "cached": 2, "saved_nanos": 2 * 10**9,
         "unsaved_jobs": 1, "complete": False},
        {"model": "zero", "calls": 1},
    ]  # fmt: skip
    total = {"calls": 5, "cost_nanos": 10**9, "unpriced_calls": 3, "lost_attempts": 1, "unsaved_jobs": 4, "cached": 5}
    answer = {"from": "2026-01-01", "to": "2026-01-31", "group_by": ["model"], "data": rows,
              "total": {**total, "saved_nanos": 2 * 10**9, "complete": False}, "complete": False}  # fmt: skip
    shown = run(lambda _: httpx.Response(200, json=answer), "costs", "--by", "model")
    cells = [re.split(r" {2,}", line.strip()) for line in shown.stdout.splitlines()[1:]]
    assert [(row[0], row[4], row[8]) for row in cells] == [
        ("free", "unknown", "unknown"),
        ("lost", "unknown", "$0.00"),
        ("part", "≥ $1.00", "≥ $2.00"),
        ("zero", "$0.00", "$0.00"),
        ("total", "≥ $1.00", "≥ $2.00"),
    ]
    for cause in ("3 calls have no known price", "1 attempts were lost", "4 cached jobs saved nobody knows"):
        assert cause in shown.stderr
    assert "retention" not in shown.stderr
    answer |= {"data": [], "total": {}}
    shown = run(lambda _: httpx.Response(200, json=answer), "costs")
    assert shown.stderr == "not all is known: the books of the first days are over (costs.retention_days)\n"


def test_budgets_say_what_is_left() -> None:
    """A row a budget; --json is the service's own."""
    whole = {"client": None, "period": "day", "limit_usd": None, "spent_usd": 0.000000001, "left_usd": None}
    used = {"client": "acme", "period": "month", "limit_usd": 5.0, "spent_usd": 5.5, "left_usd": 0.0, "exhausted": True}
    answer = {"data": [{**whole, "resets_at": "2026-01-06T00:00:00.000Z"}, used]}
    table, document = (run(lambda _: httpx.Response(200, json=answer), "budgets", *form) for form in ((), ("--json",)))
    first, second = table.stdout.splitlines()[1:]
    assert first.split() == ["all", "day", "none", "$0.000000001", "2026-01-06"]
    assert second.split() == ["acme", "month", "$5.00", "$5.50", "$0.00", "used", "up"]
    assert json.loads(document.stdout)[1] == used


def test_the_demand_is_told_by_queue_and_in_all() -> None:
    """A row a queue, one for all, and the metric; --json is the service's own."""
    queue = {"work_slots": 18.0, "waiting": 100, "inflight": 11, "oldest_wait_seconds": 12.4, "service_seconds": 6.0}
    closed = {"open": False, "reason": "paused", "until": None}
    narrow = {
        "work_slots": 2.0,
        "waiting": 7,
        "inflight": 0,
        "service_seconds": None,
        "max_concurrent": 2,
        "gate": closed,
    }
    fleet = {**queue, "work": 21.25, "work_slots": 17.0, "waiting": 107, "inflight": 8, "draining": 3, "concurrency": 8}
    answer = {**fleet, "queues": {"dspy.a": queue, "dspy.b": narrow}}
    table, document = (
        run(lambda _: httpx.Response(200, json=answer), "autoscale", *form) for form in ((), ("--json",))
    )
    first, second, total, metric = table.stdout.splitlines()[1:]
    assert first.split() == ["dspy.a", "100", "11", "12.4", "s", "6", "s", "18", "open"]
    assert second.split() == ["dspy.b", "7", "0", "0.0", "s", "unknown", "2", "2", "paused"]
    assert total.split() == ["total", "107", "8", "12.4", "s", "6", "s", "17"]
    assert metric == "work 21.25, 8 a worker, 3 jobs in draining workers left out"
    assert json.loads(document.stdout) == answer


@pytest.mark.parametrize("args", [("cancel", "job_1"), ("batch", "cancel", "batch_1")])
def test_canceling_says_what_became_of_it(args: tuple[str, ...]) -> None:
    """The message names the job or batch; --json gives it whole."""
    result = run(FakeService(status="running"), *args)
    assert (result.exit_code, result.stdout) == (0, "")
    assert f"{args[-1]} is" in result.stderr
    assert json.loads(run(FakeService(status="running"), *args, "--json").stdout)["id"] == args[-1]


@pytest.mark.parametrize("change", ["pause", "resume"])
def test_a_batch_is_paused_and_resumed(change: str) -> None:
    """The message says how the batch stands afterwards."""
    service = FakeService()
    result = run(service, "batch", change, "batch_1")
    assert (result.exit_code, "batch_1 is ended" in result.stderr) == (0, True)
    assert [(r.method, r.url.path) for r in service.requests] == [("POST", f"/v1/batches/batch_1/{change}")]


def test_a_batch_is_submitted_and_resumed_under_limits() -> None:
    """The options become the contract's limits."""
    service = FakeService()
    options = ("--max-cost", "2.5", "--max-error-rate", "0.25", "--min-items", "5")
    run(service, "batch", "submit", "-", "--program", "qa", *options, input='{"question":"a"}\n')
    assert dict(service.requests[0].url.params) == {
        "program": "qa", "max_cost_usd": "2.5", "max_error_rate": "0.25", "min_items": "5",
    }  # fmt: skip
    assert run(service, "batch", "resume", "batch_1", "--max-cost", "5").exit_code == 0
    assert service.bodies[1] == [{"limits": {"max_cost_usd": 5.0}}]


def test_retrying_a_batch_prints_how_many_jobs_wait_again() -> None:
    """Only the states asked for are sent; with --wait the batch is followed and a failure exits 1."""
    service = FakeService(status="failed")
    result = run(service, "batch", "retry", "batch_1", "--status", "failed", "--status", "expired", "--wait")
    assert (result.exit_code, result.stdout.splitlines()[0]) == (ExitCode.FAILED, "1")
    assert service.bodies[0] == [{"status": ["failed", "expired"]}]


def test_the_help_lists_every_exit_code() -> None:
    """Scripts can rely on what `dspy-jobs --help` says."""
    text = run(FakeService(), "--help").stdout
    assert set(MEANINGS) == set(ExitCode)
    for code, meaning in MEANINGS.items():
        assert f"{code.value:>3}  {meaning}" in text


def test_version() -> None:
    """`--version` needs neither a command nor a service."""
    assert run(FakeService(), "--version").stdout == f"dspy-jobs {__version__}\n"


def test_config_check_names_every_mistake(tmp_path: Path) -> None:
    """A wrong file exits 2 with the path of each mistake; a right one exits 0."""
    file = tmp_path / "dspy-jobs.toml"
    file.write_text("colour = 1\n[api]\nport = -1\n")
    result = run(FakeService(), "config", "check", str(file))
    assert result.exit_code == ExitCode.USAGE
    assert "colour" in result.stderr
    assert "api.port" in result.stderr
    file.write_text('[programs.qa]\nsignature = "question -> answer"\n')
    result = run(FakeService(), "config", "check", str(file))
    assert (result.exit_code, "1 programs" in result.stderr) == (0, True)


def test_config_check_builds_every_program(tmp_path: Path) -> None:
    """What a worker would refuse at its start is named, all of it at once."""
    (tmp_path / "my_programs.py").write_text(
        "def number(): return 42\ndef leave(): raise SystemExit(3)\n"
        "class Mute(Exception):\n    def __str__(self): raise RuntimeError\ndef mute(): raise Mute\n"
    )
    file = tmp_path / "dspy-jobs.toml"
    file.write_text(
        '[programs.a]\nfactory = "nowhere:f"\n[programs.b]\nfactory = "my_programs:number"\n'
        '[programs.c]\nsignature = "question answer"\n[programs.d]\nfactory = "my_programs:leave"\n'
        '[programs.e]\nfactory = "my_programs:mute"\n'
    )
    result = run(FakeService(), "config", "check", str(file))
    assert result.exit_code == ExitCode.USAGE
    for program, why in (("a", "nowhere"), ("b", "not a dspy.Module"), ("c", "->"), ("d", "SystemExit"), ("e", "Mute")):
        assert re.search(rf"programs\.{program}: cannot be built: .*{why}", result.stderr), result.stderr


def test_config_check_warns_of_models_that_no_budget_counts(tmp_path: Path) -> None:
    """It is no mistake, for the budget may be for others; without a budget there is nothing to warn of."""
    file = tmp_path / "dspy-jobs.toml"
    free = '[models.own]\nmodel = "openai/x"\nbase_url = "http://127.0.0.1:1/v1"\n'
    priced = '[models.m]\nmodel = "openai/x"\ninput_cost_per_1k = 1.0\noutput_cost_per_1k = 1.0\n'
    models = f'default_model = "m"\n[worker]\ndrain_seconds = 300\n{free}{priced}'
    file.write_text(f"{models}[budgets.clients.acme]\nday_usd = 1.0\n")
    result = run(FakeService(), "config", "check", str(file))
    assert result.exit_code == ExitCode.OK
    assert "warning: models.own: its price is not known" in result.stderr
    assert "models.m" not in result.stderr
    assert len(json.loads(run(FakeService(), "config", "check", str(file), "--json").stdout)["warnings"]) == 1
    file.write_text(models)
    assert "warning" not in run(FakeService(), "config", "check", str(file)).stderr


@pytest.mark.parametrize(("drain_seconds", "warns"), [(119, True), (120, False)])
def test_config_check_warns_of_drains_shorter_than_jobs(tmp_path: Path, drain_seconds: int, warns: bool) -> None:
    """Whoever stops workers himself would have their long calls made twice."""
    file = tmp_path / "dspy-jobs.toml"
    file.write_text(f"[jobs]\ntimeout_seconds = 120\n[worker]\ndrain_seconds = {drain_seconds}\n")
    result = run(FakeService(), "config", "check", str(file))
    assert result.exit_code == ExitCode.OK
    warning = f"warning: worker.drain_seconds ({drain_seconds}) is less than jobs.timeout_seconds (120)"
    assert (warning in result.stderr) is warns


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_config_show_keeps_secrets(tmp_path: Path, form: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Passwords in addresses and values of secret names are not shown; all else is."""
    monkeypatch.delenv("REDIS_URL", raising=False)
    file = tmp_path / "dspy-jobs.toml"
    file.write_text(
        'redis_url = "redis://user:hunter2@redis:6379/0"\ndefault_model = "m"\n'
        '[models.m]\nmodel = "openai/x"\napi_key_env = "MY_KEY"\nbase_url = "http://x/v1?api_key=hunter2&a=b"\n'
        'parameters = { api_key = "hunter2", max_tokens = 7, extra = [{ Authorization = "hunter2" }] }\n'
    )
    result = run(FakeService(), "config", "show", str(file), *form)
    assert result.exit_code == 0
    assert "hunter2" not in result.stdout
    for shown in ("redis://user:[redacted]@redis:6379/0", "MY_KEY", "a=b", "7", "items_per_batch"):
        assert shown in result.stdout


def test_variants_compare_shows_numbers_and_differences() -> None:
    """Counts, shares, times and costs of each; differences to the baseline with interval and p-value."""
    service = FakeService()
    result = run(service, "variants", "compare", "qa", "--score", "accuracy")
    assert result.exit_code == 0, result.stderr
    sent = service.requests[0].url
    assert (sent.path, dict(sent.params)) == ("/v1/programs/qa/variants", {"scores": "true", "score": "accuracy"})
    for shown in ("a (baseline)", "25.00 %", "20.00 %", "$0.005", "1.25 s", "+15.00 points", "times 4.00: ", "+0.6"):
        assert shown in result.stdout
    below = run(service, "variants", "compare", "qa", "--baseline", "b").stdout
    assert ("b (baseline)" in below, "-15.00 points" in below, "-0.6" in below) == (True, True, True)


def test_variants_compare_writes_json() -> None:
    """For programs, without the single values."""
    result = run(FakeService(), "variants", "compare", "qa", "--json")
    base, other = json.loads(result.stdout)
    assert (base["name"], base["is_baseline"], base["versus"]["error_rate"]) == ("a", True, None)
    accuracy = other["versus"]["scores"]["accuracy"]
    assert accuracy["low"] < accuracy["difference"] < accuracy["high"]
    assert accuracy["difference"] == pytest.approx(0.6)
    assert accuracy["p_value"] < 0.01
    assert "values" not in other["scores"]["accuracy"]


def test_comparing_with_nothing_is_a_mistake() -> None:
    """The message says what there is."""
    result = run(FakeService(), "variants", "compare", "qa", "--baseline", "z")
    assert (result.exit_code, result.stdout) == (ExitCode.USAGE, "")
    assert "qa: there is no variant 'z'; there are: a, b" in result.stderr


@pytest.mark.parametrize("posted", [[0.5], []])
def test_comparing_what_nobody_has_posted_is_a_mistake(posted: list[float]) -> None:
    """A program or a score that there is not exits 2, and the message says what there is."""
    missing = refusing("not_found")
    result = run(missing, "variants", "compare", "nope")
    assert (result.exit_code, "there is no program 'nope'" in result.stderr) == (ExitCode.USAGE, True)

    def handler(request: httpx.Request) -> httpx.Response:
        found = [variant("a", 1, 0, posted), variant("b", 1, 0, [])]
        for row in found:
            if "score" in request.url.params or not posted:
                row["scores"] = {}
        return httpx.Response(200, json={"data": found})

    result = run(handler, "variants", "compare", "qa", "--score", "nope")
    assert (result.exit_code, result.stdout) == (ExitCode.USAGE, "")
    assert "nobody has posted a score 'nope'" in result.stderr
    assert f"there are: {'accuracy' if posted else 'none'}" in result.stderr


def test_a_variant_can_be_chosen_for_jobs_and_batches(tmp_path: Path) -> None:
    """It is sent with the other options."""
    service, file = FakeService(status="queued"), tmp_path / "items.jsonl"
    file.write_text('{"inputs": {"question": "?"}}\n')
    run(service, "submit", "qa", "-i", "question=?", "--variant", "b")
    run(service, "batch", "submit", str(file), "--program", "qa", "--variant", "b")
    assert service.bodies[0][0]["variant"] == "b"
    assert service.requests[1].url.params["variant"] == "b"


def test_failed_jobs_are_listed_with_why_they_failed() -> None:
    """What the service is asked for is what the options say; each row has the id, to look further, and the error."""
    error = problem("program_error", "The program raised ZeroDivisionError.").model_dump(exclude_none=True)
    service = FakeService(status="failed", model="fast", error=error)
    result = run(service, "list", "--status", "failed", "--program", "qa", "--limit", "5")
    assert dict(service.requests[0].url.params) == {"status": "failed", "program": "qa", "limit": "5"}
    assert re.search(r"job_1 +failed +qa +fast +program_error: The program raised ZeroDivisionError", result.stdout)
    assert json.loads(run(service, "list", "--json").stdout)[0]["id"] == "job_1"
