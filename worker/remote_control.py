"""What can be done to a worker from afar, with Flower's buttons or `celery control`.

Celery's own commands know nothing of the ledger: a revoked message would be thrown away and sent again for ever, a
shutdown would not drain, and threads cannot be added. Here a command does what it says by the service's own means, or
is refused with the reason.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable
from typing import Any

import structlog
from celery.worker.control import Panel
from redis.exceptions import RedisError

from dspy_jobs.ids import is_job_id
from dspy_jobs.store import SyncStore, operations

log = structlog.get_logger("worker")

Answer = dict[str, str]

#: Commands that are refused, and what to do instead.
REFUSED = {
    "pool_grow": "set worker.concurrency, or run more workers",
    "pool_shrink": "set worker.concurrency, or run fewer workers",
    "pool_restart": "shut the worker down; what runs it starts another",
    "autoscale": "workers are scaled, not their threads",
    "add_consumer": "a worker serves the queue of every configured model",
    "cancel_consumer": "pause the queue: dspy-jobs queue pause",
    "rate_limit": "set models.<name>.requests_per_minute",
    "time_limit": "give the job a timeout_seconds, or set jobs.timeout_seconds",
    "revoke_by_stamped_headers": "cancel jobs by their ids, or their batch",
}


def take_over(store: SyncStore) -> None:
    """Put our commands in the place of Celery's."""

    def revoke(_: Any, task_id: Any, **__: Any) -> Answer:
        return _cancel(store, [task_id] if isinstance(task_id, str) else task_id)

    refusals = {name: _refusal(instead) for name, instead in REFUSED.items()}
    Panel.data.update({**refusals, "revoke": revoke, "terminate": revoke, "shutdown": _shutdown})


def _cancel(store: SyncStore, ids: Iterable[str]) -> Answer:
    """Cancel jobs, as the API does; every worker gets the command, and it may be repeated."""
    try:
        told = {job_id: store.run(operations.cancel_job(job_id))[0] for job_id in ids if is_job_id(job_id)}
    except RedisError as error:
        return {"error": str(error)}
    log.info("canceled_from_afar", jobs=told)
    return {"ok": f"{told}"} if told else {"error": "only jobs can be canceled, by their ids"}


def _refusal(instead: str) -> Callable[..., Answer]:
    return lambda *_, **__: {"error": instead}


def _shutdown(_: Any, **__: Any) -> None:
    """Drain and end, as on a signal."""
    log.warning("shutdown_from_afar")
    os.kill(os.getpid(), signal.SIGTERM)
