"""How a worker ends that cannot wait for Python's own end: threads of programs would hold it up."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

#: Seconds the last words may take. They go to Redis, to collectors of traces and errors and to whoever reads the log,
#: and each of these may stand still.
_SECONDS = 10.0


def end_process(code: int, last_words: Callable[[], None], seconds: float = _SECONDS) -> None:
    """Say the last words, for so many seconds at most, and end this process whatever becomes of them."""
    speaker = threading.Thread(target=last_words, name="last-words", daemon=True)
    speaker.start()
    speaker.join(seconds)
    os._exit(code)
