"""What every dspy-jobs process agrees on, and what a user imports: states, records, settings, store, client.

Nothing here imports dspy, FastAPI or Celery, so that a client stays light.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dspy_jobs.client import (
        ApiError,
        AsyncClient,
        BatchPaused,
        Client,
        InvalidArgument,
        ServiceUnreachable,
        WaitTimeout,
    )

__version__ = "0.1.0"

__all__ = [
    "ApiError",
    "AsyncClient",
    "BatchPaused",
    "Client",
    "InvalidArgument",
    "ServiceUnreachable",
    "WaitTimeout",
    "__version__",
]


def __getattr__(name: str) -> Any:
    """The client's names, imported when first used: the service's own processes need none of httpx."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from dspy_jobs import client

    return getattr(client, name)
