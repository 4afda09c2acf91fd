"""Scales a service of Docker Compose by its own command.

Tested with a command that records what it is given; no Docker Engine was available. Which container ``--scale``
removes is Compose's choice, so give the service a ``stop_grace_period`` longer than ``worker.drain_seconds``. Needs
whatever the command needs, usually Docker's socket: inside of a container prefer the process backend.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from autoscaler.fleet import BackendError, Fleet, Unattended

_LOOK_SECONDS = 10.0


class ComposeService(Unattended):
    """One service. A change runs in the background: Compose waits for each container that stops."""

    def __init__(self, service: str, command: Sequence[str] = ("docker", "compose")) -> None:
        """``command`` is Compose's with whatever options name the project and its files."""
        self._service, self._command = service, tuple(command)
        self._wanted: int | None = None
        self._change: subprocess.Popen[bytes] | None = None

    def take_over(self) -> None:
        """Count the containers anew; a change this process began earlier comes to its own end."""
        self._wanted = None

    def fleet(self) -> Fleet:
        """The size asked for last, at first the containers there are; raises BackendError if a change failed."""
        running = len(self._containers())
        self._see_change()
        wanted = running if self._wanted is None else self._wanted
        return Fleet(wanted, min(running, wanted), max(0, running - wanted))

    def scale(self, replicas: int) -> None:
        """Have Compose add or remove containers; none of the others is touched."""
        if self._change and self._change.poll() is None:
            raise BackendError(f"Compose is still at {self._wanted} of {self._service}")
        self._change = self._start("up", "--detach", "--no-recreate", "--no-deps", "--scale",
                                   f"{self._service}={replicas}", self._service)  # fmt: skip
        self._wanted = replicas

    def _containers(self) -> list[str]:
        try:
            done = subprocess.run(
                [*self._command, "ps", "--quiet", self._service],
                capture_output=True,
                text=True,
                timeout=_LOOK_SECONDS,
                check=True,
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise BackendError(f"Compose cannot be asked: {error}") from error
        return done.stdout.split()

    def _see_change(self) -> None:
        code = self._change.poll() if self._change else None
        if code is None:
            return
        self._change = None
        if code:
            self._wanted = None
            raise BackendError(f"Compose could not scale {self._service}: exit code {code}")

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen([*self._command, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        except OSError as error:
            raise BackendError(f"Compose cannot be run: {error}") from error
