"""A worker whose consumer asks for no second message, as Celery's has been seen to do after a reconnect."""

from __future__ import annotations

import sys

from worker import watchdog
from worker.__main__ import main
from worker.consumption import OpenQueues, ThreadPool

#: Instead of a minute, so that nobody waits that long.
STALLED_SECONDS = 3.0

_on_apply = ThreadPool.on_apply


def deaf(self: ThreadPool, *args: object, **options: object) -> object:
    """Take the first message and hear nothing more."""
    OpenQueues.consume = lambda *_: []  # type: ignore[assignment]
    return _on_apply(self, *args, **options)


if __name__ == "__main__":
    watchdog.STALLED_SECONDS = STALLED_SECONDS
    ThreadPool.on_apply = deaf  # type: ignore[method-assign]
    sys.exit(main())
