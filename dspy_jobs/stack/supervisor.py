"""Starts a stack's processes, watches over them and stops them in order."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog

from dspy_jobs.settings import Settings
from dspy_jobs.stack.child import Child, Place
from dspy_jobs.stack.guard import OrphanGuard
from dspy_jobs.stack.parts import Part
from dspy_jobs.stack.readiness import until_up
from dspy_jobs.stack.refusals import PartDied

log = structlog.get_logger("stack")

#: How a process ends whose configuration is wrong.
WRONG_CONFIGURATION = 2
#: Seconds from start until every part must have said that it is up.
_READY_SECONDS = 120.0
#: Seconds between looks whether Redis still runs.
_REDIS_SECONDS = 0.2
#: Waits before a process is started again: doubling from the first to the last.
_FIRST_PAUSE_SECONDS, _LAST_PAUSE_SECONDS = 0.5, 30.0
#: A process that lived this long was well: its next restart waits the first pause again.
_WELL_SECONDS = 60.0


class Supervisor:
    """The running processes, between entering and leaving the block. Redis starts and stops around it."""

    def __init__(
        self,
        parts: list[Part],
        place: Place,
        guard: OrphanGuard,
        redis: subprocess.Popen[bytes] | None,
        settings: Settings,
    ) -> None:
        self.stopping = asyncio.Event()
        #: What ended the stack without being asked.
        self.failure: PartDied | None = None
        self.was_hurried = False
        self._parts = parts
        self._place = place
        self._guard = guard
        self._redis = redis
        self._settings = settings
        self._is_ready = False
        self._children: dict[str, Child] = {}
        self._once = {part.name: asyncio.Event() for part in parts if part.runs_once}
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._asked_to_stop)
        loop.add_signal_handler(signal.SIGHUP, self._lost_terminal)
        self._tasks = [asyncio.create_task(self._keep(part)) for part in self._parts]
        if self._redis:
            self._tasks.append(asyncio.create_task(self._watch_redis(self._redis)))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stopping.set()
        by_order = sorted(self._parts, key=lambda part: part.stop_order)
        for _, group in groupby(by_order, key=lambda part: part.stop_order):
            children = (self._children.get(part.name) for part in group)
            await asyncio.gather(*(child.stop() for child in children if child))
        await asyncio.gather(*self._tasks)

    async def ready(self, settings: Settings) -> bool:
        """Wait until every part is up; False when the stack was stopped before that."""
        up = asyncio.create_task(self._until_up(settings))
        stopped = asyncio.create_task(self.stopping.wait())
        done, pending = await asyncio.wait({up, stopped}, timeout=_READY_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        if up in done:
            up.result()
            self._is_ready = True
        if not done:
            self._fail(PartDied("the stack", f"was not up after {_READY_SECONDS:.0f} s", []))
        return self._is_ready

    async def _until_up(self, settings: Settings) -> None:
        await until_up(self._parts, settings)
        for done in self._once.values():
            await done.wait()

    def _asked_to_stop(self) -> None:
        if not self.stopping.is_set():
            self.stopping.set()
            log.info("stopping")
            return
        self.was_hurried = True
        for child in self._children.values():
            child.kill()

    def _lost_terminal(self) -> None:
        # Nothing can be written to a closed window any more; failing at it must not disturb the stop.
        with Path(os.devnull).open("w") as nowhere:
            for stream in (1, 2):
                os.dup2(nowhere.fileno(), stream)
        self._asked_to_stop()

    def _fail(self, why: PartDied) -> None:
        self.failure = self.failure or why
        self.stopping.set()

    async def _keep(self, part: Part) -> None:
        """Run a part until the stack stops, starting it again whenever it dies."""
        pause = _FIRST_PAUSE_SECONDS
        while not self.stopping.is_set():
            began = time.monotonic()
            code = await self._run(part)
            if self.stopping.is_set():
                return
            if part.runs_once and code == 0:
                self._once[part.name].set()
                return
            # A part that never came up will not the next time: wrong settings are an error, not a loop.
            if not self._is_ready:
                last_lines = list(self._children[part.name].last_lines)
                self._fail(PartDied(part.name, f"ended with code {code}", last_lines, code == WRONG_CONFIGURATION))
                return
            pause = _FIRST_PAUSE_SECONDS if time.monotonic() - began > _WELL_SECONDS else pause
            log.info("restarting", process=part.name, in_seconds=pause)
            await self._stopped_within(pause)
            pause = min(2 * pause, _LAST_PAUSE_SECONDS)

    async def _run(self, part: Part) -> int:
        child = await Child.start(part, self._place)
        self._children[part.name] = child
        self._tell_guard()
        log.info("started", process=part.name, pid=child.pid)
        if self.stopping.is_set():
            await child.stop()
        code = await child.ended()
        self._tell_guard()
        if self.stopping.is_set() or (part.runs_once and code == 0):
            log.info("stopped", process=part.name, exit_code=code)
        else:
            log.error("died", process=part.name, exit_code=code, **self._last_lines(child))
        return code

    def _last_lines(self, child: Child) -> dict[str, str]:
        """What a process said last; once there are jobs, native code may have said there what they were given."""
        may_be_told = self._settings.log_content or not self._is_ready
        return {"last_lines": "\n".join(child.last_lines)} if may_be_told else {}

    def _tell_guard(self) -> None:
        alive = (child.pid for child in self._children.values() if child.is_running)
        self._guard.watch(self._redis.pid if self._redis else None, alive)

    async def _watch_redis(self, server: subprocess.Popen[bytes]) -> None:
        while server.poll() is None:
            if await self._stopped_within(_REDIS_SECONDS):
                return
        log.error("died", process="redis", exit_code=server.returncode)
        where = self._settings.data_dir / "redis.log"
        why = f"ended with code {server.returncode}: {where} says why. What it held is on disk; start the stack again"
        self._fail(PartDied("redis", why, []))

    async def _stopped_within(self, seconds: float) -> bool:
        try:
            return await asyncio.wait_for(self.stopping.wait(), seconds)
        except TimeoutError:
            return False
