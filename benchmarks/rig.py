"""Everything a measurement runs on: a private Redis, a sandbox model, and processes of the project on free ports."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.process import PATIENCE_SECONDS, Process
from dspy_jobs import names
from dspy_jobs.redis_server import embedded_redis
from dspy_jobs.redis_url import embedded_socket
from dspy_jobs.settings import Settings, load_settings
from dspy_jobs.store import SyncStore, connect, operations
from dspy_jobs.waiting import wait_until

#: As shipped, except for a limit raised so that 100,000 jobs fit into one batch.
_CONFIG = """
log_format = "json"
[limits]
items_per_batch = 100000
[models.sandbox]
model = "openai/sandbox"
base_url = "{sandbox}/v1"
input_cost_per_1k = 0.0001
output_cost_per_1k = 0.0004
[models.sandbox-slow]
model = "openai/sandbox-slow"
base_url = "{sandbox}/v1"
[programs.qa]
signature = "question -> answer"
[programs.echo]
factory = "benchmarks.programs:echo"
"""


class Rig:
    """A running Redis and sandbox. `store` is the project's ledger in it."""

    def __init__(self, folder: Path, closing: ExitStack, cache: str, worker: str, more: str) -> None:
        self.folder = folder
        self._closing = closing
        closing.enter_context(embedded_redis(folder))
        self.socket = embedded_socket(folder)
        sandbox = self.start("sandbox", "--port", "0")
        self.sandbox_url = sandbox.find(r"(http://\S+)")
        config = folder / "dspy-jobs.toml"
        sections = f"[cache]\n{cache}\n[worker]\n{worker}\n{more}"
        config.write_text(_CONFIG.format(sandbox=self.sandbox_url) + sections)
        self.environ = {"REDIS_URL": self.redis_url(0), "DSPY_JOBS_CONFIG": str(config)}
        self.settings: Settings = load_settings(config, self.environ)
        self.store = SyncStore(closing.enter_context(connect(self.redis_url(0))))

    def redis_url(self, database: int) -> str:
        """The address of one of the server's databases."""
        return f"unix://{self.socket}?db={database}"

    def start(self, module: str, *arguments: str, **environ: str) -> Process:
        """Start a process that ends with the rig at the latest."""
        process = Process(module, *arguments, folder=self.folder, environ=environ)
        self._closing.callback(process.stop)
        return process

    def start_worker(self) -> Process:
        """Start a worker process with the default 128 threads and wait until it consumes.

        Raises:
            RuntimeError: it does not come up.
        """
        before = self.workers()
        process = self.start("worker", **self.environ)
        if not wait_until(lambda: self.workers() > before, PATIENCE_SECONDS):
            raise RuntimeError(f"the worker did not start:\n{process.written()[-2000:]}")
        return process

    def start_api(self, module: str = "api") -> tuple[Process, int]:
        """Start an API process; answers it and its port."""
        process = self.start(module, **self.environ, DSPY_JOBS_API_PORT="0")
        return process, int(process.find(r"http://[\d.]+:(\d+)"))

    def workers(self) -> int:
        """How many take jobs."""
        return self.store.run(operations.read_queues([names.queue("sandbox")]))[0].workers


@contextmanager
def rig(cache: str = "enabled = false", worker: str = "", more: str = "") -> Iterator[Rig]:
    """A rig in a folder of its own; leaves nothing behind. `cache` and `worker` hold settings of these sections (TOML).

    `more` holds further sections of the configuration.

    By default nothing is taken from a cache, for the contenders get the same questions again in each round.
    """
    with tempfile.TemporaryDirectory(prefix="dj-bench-") as folder, ExitStack() as closing:
        yield Rig(Path(folder), closing, cache, worker, more)
