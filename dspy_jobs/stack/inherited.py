"""The environment a stack was started in, which its processes get with the stack's own settings over it."""

from __future__ import annotations

import os


def inherited_environ() -> dict[str, str]:
    """A copy. What it means is for `load_settings` to say, here and in each process."""
    return dict(os.environ)  # noqa: TID251 - handed on to the processes whole, not read
