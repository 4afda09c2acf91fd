"""Runs `dspy-jobs up` and `dspy-jobs demo` as a person would, and tells what they left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import orjson

from dspy_jobs.stack.ports import free_port
from dspy_jobs.waiting import wait_until

REPOSITORY = Path(__file__).parents[2]
#: Seconds any step of a stack may take on a busy machine.
BOUND = 90.0


def environ_for(folder: Path, **more: str) -> dict[str, str]:
    """An environment for a stack of its own: free ports and this data folder."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("DSPY_JOBS_", "REDIS_URL"))}
    ports = {f"DSPY_JOBS_{part}_PORT": str(free_port()) for part in ("API", "SANDBOX", "FLOWER")}
    config = {"DSPY_JOBS_CONFIG": str(REPOSITORY / "dspy-jobs.toml"), "DSPY_JOBS_DATA_DIR": str(folder)}
    return own | ports | config | {"DSPY_JOBS_LOG_FORMAT": "json"} | more


def command(*arguments: str) -> list[str]:
    """The command line of `dspy-jobs` in the environment the tests run in."""
    return [str(Path(sys.executable).parent / "dspy-jobs"), *arguments]


class StackProcess:
    """A running `dspy-jobs up` and every line it has written."""

    def __init__(self, environ: dict[str, str], *arguments: str) -> None:
        self.environ = environ
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            command("up", *arguments),
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def events(self, event: str, process: str | None = None) -> list[dict[str, Any]]:
        """The events of that name so far, of that process if one is given."""
        found = [orjson.loads(line) for line in list(self.lines) if line.startswith("{")]
        return [e for e in found if e["event"] == event and process in (None, e["process"])]

    def wait_for(self, event: str, process: str | None = None, times: int = 1) -> dict[str, Any]:
        """The event, once it has been written that often."""
        wait_until(lambda: len(self.events(event, process)) >= times or self._is_over(), BOUND)
        found = self.events(event, process)
        assert len(found) >= times, f"no {event} of {process}:\n" + "\n".join(self.lines[-40:])
        return found[-1]

    def pid_of(self, process: str) -> int:
        """The process's id, as the stack announced it last."""
        return int(self.wait_for("started", process)["pid"])

    def pids(self) -> set[int]:
        """Every process the stack announced and every child it has now."""
        announced = {int(e["pid"]) for e in self.events("started")}
        return announced | set(children_of(self.process.pid))

    def client(self) -> httpx.Client:
        """For requests to its API."""
        base = f"http://127.0.0.1:{self.environ['DSPY_JOBS_API_PORT']}"
        return httpx.Client(base_url=base, timeout=BOUND, trust_env=False)

    def signal(self, number: signal.Signals) -> None:
        """Send it to the stack alone."""
        self.process.send_signal(number)

    def exit_code(self) -> int:
        """The exit code, once the stack has ended."""
        code = self.process.wait(BOUND)
        self._reader.join(BOUND)
        return code

    def _is_over(self) -> bool:
        return self.process.poll() is not None and not self._reader.is_alive()

    def _read(self) -> None:
        assert self.process.stdout
        with self.process.stdout as lines:
            for line in lines:
                self.lines.append(line.rstrip("\n"))


@contextmanager
def running_stack(environ: dict[str, str], *arguments: str) -> Iterator[StackProcess]:
    """A stack that is ended with the block, if it has not ended by then."""
    stack = StackProcess(environ, *arguments)
    try:
        yield stack
    finally:
        if stack.process.poll() is None:
            stack.signal(signal.SIGTERM)
        try:
            stack.exit_code()
        except subprocess.TimeoutExpired:
            stack.process.kill()
            raise


def children_of(pid: int) -> list[int]:
    """The process's children, of all its threads."""
    return [int(child) for path in Path(f"/proc/{pid}/task").glob("*/children") for child in path.read_text().split()]


def still_alive(pids: set[int]) -> set[int]:
    """Which of these processes run; those that ended and wait to be collected do not count."""
    return {pid for pid in pids if _state(pid) not in (None, "Z", "X")}


def _state(pid: int) -> str | None:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][:1]
    except (FileNotFoundError, ProcessLookupError):
        return None
