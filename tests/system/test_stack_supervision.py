"""How a stack treats its processes, shown with small ones that do as they are told in place of API and worker."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest
from stack_process import BOUND, StackProcess, environ_for, running_stack, still_alive

from dspy_jobs.redis_url import embedded_socket
from dspy_jobs.stack.folder import sole_user_of
from dspy_jobs.waiting import wait_until

pytestmark = pytest.mark.system

_API = """
from http.server import BaseHTTPRequestHandler, HTTPServer
from dspy_jobs.settings import load_settings

class Ready(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_): ...

print("api stand-in listens", flush=True)
HTTPServer(("127.0.0.1", load_settings().api.port), Ready).serve_forever()
"""

_WORKER = """
import os, signal, sys, time
import redis
from dspy_jobs import names
from dspy_jobs.redis_url import redis_url
from dspy_jobs.settings import load_settings

if os.environ.get("STAND_IN") == "broken":
    sys.exit("no such factory")
if os.environ.get("STAND_IN") == "misconfigured":
    print("no such factory", file=sys.stderr)
    sys.exit(2)
if os.environ.get("STAND_IN") == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
else:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
ledger = redis.Redis.from_url(redis_url(load_settings()))
ledger.zadd(names.WORKERS, {f"w{os.getpid()}": time.time() * 1000 + 60_000})
while True:
    signal.pause()
"""

_CONFIG = """
default_model = "elsewhere"
[models.elsewhere]
model = "openai/elsewhere"
[worker]
drain_seconds = 1
"""


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """A configuration beside which stand-ins for the API and the worker are found first."""
    for package, source in (("api", _API), ("worker", _WORKER)):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
        (tmp_path / package / "__main__.py").write_text(source)
    (tmp_path / "dspy-jobs.toml").write_text(_CONFIG)
    return environ_for(tmp_path / "data", DSPY_JOBS_CONFIG=str(tmp_path / "dspy-jobs.toml"))


def _leaves_nothing(stack: StackProcess, pids: set[int]) -> bool:
    socket_file = embedded_socket(Path(stack.environ["DSPY_JOBS_DATA_DIR"]))
    return not still_alive(pids) and not socket_file.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_either_signal_stops_everything_in_order(environ: dict[str, str], number: signal.Signals) -> None:
    """SIGINT and SIGTERM end API, workers and Redis in this order, with exit code 0 and nothing left behind."""
    with running_stack(environ, "--no-flower", "--workers", "2") as stack:
        stack.wait_for("ready")
        pids = stack.pids()
        stack.signal(number)
        assert stack.exit_code() == 0
    stopped = [e["process"] for e in stack.events("stopped")]
    assert stopped in (["api", "worker-1", "worker-2", "redis"], ["api", "worker-2", "worker-1", "redis"])
    # API, two workers, Redis and the shell that ends them when the stack cannot.
    assert len(pids) == 5
    assert _leaves_nothing(stack, pids)


def test_a_closed_terminal_stops_everything(environ: dict[str, str]) -> None:
    """Closing the window ends the stack as cleanly as Ctrl-C."""
    with running_stack(environ, "--no-flower") as stack:
        stack.wait_for("ready")
        pids = stack.pids()
        stack.signal(signal.SIGHUP)
        assert stack.exit_code() == 0
    assert _leaves_nothing(stack, pids)


def test_a_signal_during_start_stops_everything(environ: dict[str, str]) -> None:
    """A stack told to stop before it is up stops as cleanly as one that is."""
    with running_stack(environ, "--no-flower") as stack:
        stack.wait_for("started", "worker")
        pids = stack.pids()
        stack.signal(signal.SIGINT)
        assert stack.exit_code() == 0
    assert _leaves_nothing(stack, pids)


def test_a_killed_stack_takes_its_processes_along(environ: dict[str, str]) -> None:
    """When the parent itself is killed, no child and no socket stays, and the next start works."""
    with running_stack(environ, "--no-flower") as stack:
        stack.wait_for("ready")
        pids = stack.pids()
        stack.process.kill()
        assert wait_until(lambda: _leaves_nothing(stack, pids), BOUND)
    with running_stack(environ, "--no-flower") as again:
        again.wait_for("ready")


def test_a_stubborn_process_is_killed_after_its_time(environ: dict[str, str]) -> None:
    """A worker that ignores SIGTERM is killed after its drain time, and the stop still counts as clean."""
    with running_stack(environ | {"STAND_IN": "stubborn"}, "--no-flower") as stack:
        stack.wait_for("ready")
        pids = stack.pids()
        stack.signal(signal.SIGTERM)
        assert stack.exit_code() == 0
    assert stack.events("killed", "worker")
    assert _leaves_nothing(stack, pids)


def test_a_second_ctrl_c_stops_at_once(environ: dict[str, str]) -> None:
    """A second SIGINT kills what still runs instead of waiting for it."""
    environ |= {"STAND_IN": "stubborn", "DSPY_JOBS_WORKER_DRAIN_SECONDS": "3600"}
    with running_stack(environ, "--no-flower") as stack:
        stack.wait_for("ready")
        pids = stack.pids()
        stack.signal(signal.SIGINT)
        stack.wait_for("stopped", "api")
        stack.signal(signal.SIGINT)
        assert stack.exit_code() == 130
    assert _leaves_nothing(stack, pids)


@pytest.mark.parametrize("part", ["worker", "api"])
def test_a_dead_process_is_started_again(environ: dict[str, str], part: str) -> None:
    """A process that dies is reported with its exit code and replaced by a new one; the others run on."""
    with running_stack(environ, "--no-flower") as stack:
        stack.wait_for("ready")
        first = stack.pid_of(part)
        os.kill(first, signal.SIGKILL)
        assert stack.wait_for("died", part)["exit_code"] == -signal.SIGKILL
        stack.wait_for("started", part, times=2)
        assert stack.pid_of(part) != first
    assert "last_lines" not in stack.wait_for("died", part), "of a process that had jobs they may be a caller's"
    assert [event["process"] for event in stack.events("died")] == [part]


def test_losing_redis_stops_the_stack(environ: dict[str, str]) -> None:
    """A dead Redis, which holds everything, is one event with its exit code, and the stack ends with exit code 1."""
    with running_stack(environ, "--no-flower") as stack:
        stack.wait_for("ready")
        pids = stack.pids()
        os.kill(stack.pid_of("redis"), signal.SIGKILL)
        assert stack.exit_code() == 1
    [died] = stack.events("died")
    assert (died["process"], died["exit_code"]) == ("redis", -signal.SIGKILL)
    assert "redis.log says why" in stack.wait_for("stack_failed")["reason"]
    assert not stack.events("error_ignored")
    assert not still_alive(pids)


@pytest.mark.parametrize(("stand_in", "code"), [("broken", 1), ("misconfigured", 2)])
def test_a_worker_that_cannot_start_ends_the_stack(environ: dict[str, str], stand_in: str, code: int) -> None:
    """A worker that dies before the stack is up is an error with its last lines, not a loop of restarts."""
    with running_stack(environ | {"STAND_IN": stand_in}, "--no-flower") as stack:
        assert stack.exit_code() == code
    assert "no such factory" in stack.wait_for("died", "worker")["last_lines"]
    assert "no such factory" in stack.wait_for("stack_failed")["last_lines"]
    assert len(stack.events("started", "worker")) == 1


def test_a_line_printed_by_a_process_becomes_an_event(environ: dict[str, str]) -> None:
    """Whatever a process prints stands in the log as an event that names the process."""
    with running_stack(environ, "--no-flower") as stack:
        stack.wait_for("ready")
    assert stack.wait_for("output", "api")["line"] == "api stand-in listens"
    assert all(line.startswith("{") for line in stack.lines)


def test_a_taken_port_is_named_before_anything_starts(environ: dict[str, str]) -> None:
    """A port in use ends the start with exit code 2, the port and the setting that moves it."""
    with socket.create_server(("127.0.0.1", int(environ["DSPY_JOBS_API_PORT"]))):
        stack = StackProcess(environ, "--no-flower")
        assert stack.exit_code() == 2
    port = environ["DSPY_JOBS_API_PORT"]
    assert stack.lines == [f"dspy-jobs: port {port} is in use: stop what listens there or set DSPY_JOBS_API_PORT"]


def test_a_wrong_configuration_is_explained(environ: dict[str, str]) -> None:
    """A mistake in the configuration ends the start with exit code 2 and its message."""
    stack = StackProcess(environ | {"DSPY_JOBS_API_PORT": "many"})
    assert stack.exit_code() == 2
    assert "api.port" in "\n".join(stack.lines)


def test_a_data_folder_is_held_before_its_redis_answers(environ: dict[str, str]) -> None:
    """A stack that still loads its data already keeps others out."""
    with sole_user_of(Path(environ["DSPY_JOBS_DATA_DIR"])):
        stack = StackProcess(environ, "--no-flower")
        assert stack.exit_code() == 2
    assert "another stack already runs on" in stack.lines[-1]


def test_a_data_folder_has_one_stack(environ: dict[str, str]) -> None:
    """A second stack on the same data folder is refused with exit code 2; the first runs on."""
    with running_stack(environ, "--no-flower") as first:
        first.wait_for("ready")
        second = StackProcess(environ | {"DSPY_JOBS_API_PORT": "0"}, "--no-flower")
        assert second.exit_code() == 2
        assert "another stack already runs on" in second.lines[-1]
        assert first.process.poll() is None
