"""Runs a stack from the first process to the last: everything in here is undone in the opposite order."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen

import structlog

from dspy_jobs.foreign_logs import watch_loop
from dspy_jobs.redis_server import RedisServerError, embedded_redis
from dspy_jobs.redis_url import redis_url
from dspy_jobs.settings import Settings
from dspy_jobs.stack.child import Place
from dspy_jobs.stack.folder import sole_user_of
from dspy_jobs.stack.guard import OrphanGuard, orphan_guard
from dspy_jobs.stack.inherited import inherited_environ
from dspy_jobs.stack.leftovers import end_leftovers
from dspy_jobs.stack.output import Output
from dspy_jobs.stack.parts import Part
from dspy_jobs.stack.refusals import CannotStart
from dspy_jobs.stack.supervisor import Supervisor

log = structlog.get_logger("stack")

#: Exit code after a second Ctrl-C, as shells give it.
HURRIED = 130

#: What is done while the stack is up; its number is the exit code.
Use = Callable[[], Awaitable[int]]


def run_stack(settings: Settings, parts: list[Part], output: Output, use: Use) -> int | None:
    """Start Redis (if the settings name none) and the parts, do `use` once they are up, stop everything.

    Returns what `use` returned, None if asked to stop before that, 130 if asked twice.

    Raises:
        FolderInUse: another stack runs on the data folder.
        CannotStart: the embedded Redis does not start.
        PartDied: a part ended by itself and cannot be started again.
    """
    # Until the event loop takes over, both signals end the blocks below in order.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        noted_in = _noting_workers(settings, parts)
        with orphan_guard(noted_in) as guard, _redis(settings, guard) as server, _no_leftovers(noted_in):
            stack = Supervisor(parts, _place(settings, output), guard, server, settings)
            return asyncio.run(_supervise(stack, settings, use))
    except KeyboardInterrupt:
        return None
    except RedisServerError as error:
        raise CannotStart(str(error)) from None


def _place(settings: Settings, output: Output) -> Place:
    """Where a child reads the very same settings, and finds the programs that stand beside their file."""
    environ = {
        **inherited_environ(),
        "REDIS_URL": redis_url(settings),
        "DSPY_JOBS_DATA_DIR": str(settings.data_dir),
        "DSPY_JOBS_API_PORT": str(settings.api.port),
        "DSPY_JOBS_SANDBOX_PORT": str(settings.sandbox.port),
        "DSPY_JOBS_FLOWER_PORT": str(settings.flower.port),
    }
    if settings.source is None:
        return Place(environ, None, output)
    return Place({**environ, "DSPY_JOBS_CONFIG": str(settings.source)}, settings.source.parent, output)


def _noting_workers(settings: Settings, parts: list[Part]) -> Path | None:
    """The data folder, if an autoscaler notes the workers there that it started."""
    return settings.data_dir if "autoscaler" in {part.name for part in parts} else None


@contextmanager
def _no_leftovers(noted_in: Path | None) -> Iterator[None]:
    """End last the workers that the autoscaler did not end itself, as after a second Ctrl-C."""
    try:
        yield
    finally:
        if noted_in and (left := end_leftovers(noted_in)):
            log.warning("killed", process="worker", number=left)


@contextmanager
def _redis(settings: Settings, guard: OrphanGuard) -> Iterator[Popen[bytes] | None]:
    if settings.redis_url:
        yield None
        return
    with sole_user_of(settings.data_dir), embedded_redis(settings.data_dir) as server:
        guard.watch(server.pid, [])
        log.info("started", process="redis", pid=server.pid)
        yield server
    log.info("stopped", process="redis", exit_code=server.returncode)


async def _supervise(stack: Supervisor, settings: Settings, use: Use) -> int | None:
    code = None
    watch_loop(asyncio.get_running_loop())
    async with stack:
        if await stack.ready(settings):
            code = await _until_stopped(use, stack.stopping)
    if stack.failure:
        raise stack.failure
    return HURRIED if stack.was_hurried else code


async def _until_stopped(use: Use, stopping: asyncio.Event) -> int | None:
    using = asyncio.ensure_future(use())
    stopped = asyncio.create_task(stopping.wait())
    await asyncio.wait({using, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if using.done():
        return using.result()
    using.cancel()
    return None
