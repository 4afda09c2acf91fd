"""Waits for the next frame, and for the key that ends it all."""

from __future__ import annotations

import select
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager

#: Waits so many seconds at most; whether it was asked to quit.
Wait = Callable[[float], bool]


@contextmanager
def quitting_by_key() -> Iterator[tuple[Wait, bool]]:
    """How to wait for the next frame, and whether the key `q` ends the wait: only where a person types."""
    if not sys.stdin.isatty():
        yield _sleep, False
        return
    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin)
        yield _wait_for_key, True
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _sleep(seconds: float) -> bool:
    time.sleep(seconds)
    return False


def _wait_for_key(seconds: float) -> bool:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if select.select([sys.stdin], [], [], left)[0] and sys.stdin.read(1) in ("q", "Q", ""):
            return True
    return False
