"""The Python client: submit, wait, read results; blocking (`Client`) or for asyncio (`AsyncClient`)."""

from __future__ import annotations

from dspy_jobs.client.awaited import AsyncClient
from dspy_jobs.client.blocking import Client
from dspy_jobs.client.errors import ApiError, BatchPaused, InvalidArgument, ServiceUnreachable, WaitTimeout

__all__ = ["ApiError", "AsyncClient", "BatchPaused", "Client", "InvalidArgument", "ServiceUnreachable", "WaitTimeout"]
