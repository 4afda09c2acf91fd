"""The store: jobs, batches and queues in Redis. Each operation is one atomic Lua script, built once for all users."""

from dspy_jobs.store.async_store import AsyncStore, connect_async
from dspy_jobs.store.sync_store import SyncStore, connect

__all__ = ["AsyncStore", "SyncStore", "connect", "connect_async"]
