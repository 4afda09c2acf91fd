"""What `dspy-jobs demo` does: a stack of its own, one batch for each program of a file, tables, and all stops."""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from dspy_jobs.cli.exit_codes import ExitCode
from dspy_jobs.cli.failures import InputMistake
from dspy_jobs.cli.items import Item, by_program, read_items
from dspy_jobs.cli.results_file import Format, opened, write_results
from dspy_jobs.client import AsyncClient
from dspy_jobs.logs import configure_logging
from dspy_jobs.settings import Settings
from dspy_jobs.stack.answers import Answers, show_answers
from dspy_jobs.stack.inherited import inherited_environ
from dspy_jobs.stack.launch import run_stack
from dspy_jobs.stack.output import to_files
from dspy_jobs.stack.parts import api_url, parts_of, uses_sandbox
from dspy_jobs.stack.ports import load_with_ports
from dspy_jobs.stack.questions import ask
from dspy_jobs.stack.refusals import FolderInUse, PartDied

#: Columns of what is printed where there is no terminal to ask.
_PLAIN_WIDTH = 110

_NOTICE = (
    "These answers come from the sandbox. It is not a language model: it computes text of the right type by fixed "
    "rules, so that everything can be tried without a key. dspy-jobs.toml begins with how to use a real provider."
)


@dataclass(frozen=True)
class Demo:
    """One run. Results and logs stand in `home`, wherever its Redis keeps its data."""

    settings: Settings
    home: Path
    groups: dict[str, list[Item]]
    console: Console

    @property
    def logs(self) -> Path:
        """Folder of what the stack's processes write."""
        return self.home / "logs"


def run_demo(file: Path) -> int:
    """Run the file's jobs on a stack of their own; answers the exit code.

    Raises:
        ConfigurationError: the configuration is wrong.
        InputMistake: the file cannot be read or has bad lines.
        CannotStart: there is no Redis.
        ApiError: the service refused a batch.
    """
    settings = load_with_ports(_environ(), move_taken=True)
    settings = settings.model_copy(update={"redis_url": None})
    console = Console(width=None if Console().is_terminal else _PLAIN_WIDTH, highlight=False)
    demo = Demo(settings, settings.data_dir, _read(file), console)
    try:
        return _run(demo)
    except FolderInUse:
        console.print(f"A stack already runs on {settings.data_dir}; the demo uses a private folder.", markup=False)
    with tempfile.TemporaryDirectory(prefix="dspy-jobs-demo-") as private:
        apart = settings.model_copy(update={"data_dir": Path(private)})
        return _run(Demo(apart, demo.home, demo.groups, console))


def _environ() -> dict[str, str]:
    """The environment but for the Redis it names, whose jobs are not the demo's."""
    return {name: value for name, value in inherited_environ().items() if name != "REDIS_URL"}


def _read(file: Path) -> dict[str, list[Item]]:
    try:
        with file.open("rb") as source:
            return by_program(read_items(source, str(file), None))
    except OSError as error:
        raise InputMistake(f"{file}: cannot be read: {error.strerror}") from None


def _run(demo: Demo) -> int:
    demo.console.print("Starting Redis, sandbox, worker and API …", markup=False)
    write = to_files(demo.logs)
    with (demo.logs / "stack.log").open("a", encoding="utf-8") as log:
        configure_logging(demo.settings, "stack", log)
        try:
            code = run_stack(demo.settings, parts_of(demo.settings, 1, flower=False), write, lambda: _use(demo))
        except PartDied as death:
            _explain(demo, death)
            return ExitCode.FAILED
    if code is None:
        demo.console.print(f"Stopped. The logs are in {demo.logs}.", markup=False)
    return ExitCode.INTERRUPTED if code is None else code


async def _use(demo: Demo) -> int:
    """Ask everything, show and keep the answers."""
    began = time.monotonic()
    total = sum(map(len, demo.groups.values()))
    demo.console.print(f"The service is up at {api_url(demo.settings)}; {total} jobs go in.\n", markup=False)
    async with AsyncClient(api_url(demo.settings)) as client:
        answers = await ask(client, demo.groups, demo.console)
    seconds = time.monotonic() - began
    for program, of_program in answers.items():
        show_answers(program, of_program, demo.console)
    failed = sum(of_program.failed for of_program in answers.values())
    demo.console.print(
        f"{total} jobs in {seconds:.1f} s, {failed} failed. Results: {_save(demo, answers)}", markup=False
    )
    if uses_sandbox(demo.settings):
        demo.console.print(f"\n{_NOTICE}", markup=False)
    return ExitCode.FAILED if failed else ExitCode.OK


def _save(demo: Demo, answers: dict[str, Answers]) -> Path:
    folder = demo.home / "results"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"demo-{datetime.now(UTC):%Y%m%d-%H%M%S}-{os.getpid()}.jsonl"
    with opened(path) as file:
        write_results((job for of in answers.values() for job in of.jobs), file, Format.JSONL)
    return path


def _explain(demo: Demo, death: PartDied) -> None:
    lines = "".join(f"\n  {line}" for line in death.last_lines)
    demo.console.print(f"The demo ended early: {death}. The logs are in {demo.logs}.{lines}", markup=False)
