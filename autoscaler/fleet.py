"""What the loop asks of whoever runs the workers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class BackendError(Exception):
    """The fleet could not be read or changed this time; the message says why. Nothing is decided upon it."""


class Misconfigured(Exception):
    """Workers cannot start as they are configured, however often it is tried; the message says why."""


@dataclass(frozen=True)
class Fleet:
    """The workers there are. A draining one finishes its jobs but is no replica any more.

    ``replicas`` is the size asked for last, ``ready`` how many of these work (None: not known here), ``draining`` how
    many others are on their way out.
    """

    replicas: int
    ready: int | None = None
    draining: int = 0


class Backend(Protocol):
    """Runs the workers. Only the leader calls anything but ``stand_by`` and ``stop``."""

    @property
    def place(self) -> str:
        """Where its workers can be seen: backends of the same place have the same ones. Empty if it has none."""
        ...

    def take_over(self) -> None:
        """Find the workers there are; called whenever this process becomes the leader."""
        ...

    def fleet(self) -> Fleet:
        """The workers there are now; raises BackendError."""
        ...

    def scale(self, replicas: int) -> None:
        """Ask for this size; returns before it is reached. Raises BackendError."""
        ...

    def tend(self) -> None:
        """What has to be done between decisions, several times a second.

        Raises:
            BackendError: it could not be done this time.
            Misconfigured: it never will be.
        """
        ...

    def stand_by(self, leader: str | None) -> None:
        """In place of ``tend`` while this process does not lead.

        ``leader`` is the place of the one who does: workers that it cannot see would be nobody's, and beyond its
        bounds. None means that nobody may lead just now; then nothing changes.
        """
        ...

    def stop(self) -> bool:
        """Called again and again once the autoscaler was told to end; True when it may."""
        ...

    def hurry(self) -> None:
        """The autoscaler was told to end a second time."""
        ...


class Unattended:
    """The parts of a backend whose workers somebody else keeps running: nothing to tend, nothing to stop."""

    #: Not on this machine.
    place = "elsewhere"

    def take_over(self) -> None:
        """Nothing: the fleet is read anew each time."""

    def tend(self) -> None:
        """Nothing: somebody else keeps the workers running."""

    def stand_by(self, leader: str | None) -> None:
        """Nothing: whoever leads sees the same workers."""

    def stop(self) -> bool:
        """At once; the workers run on."""
        return True

    def hurry(self) -> None:
        """Nothing."""
