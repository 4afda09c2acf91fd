"""The queues: one for each model."""

from __future__ import annotations

import time
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from api.answers import json_answer
from api.reading import query
from api.resources import resources_of
from dspy_jobs import names
from dspy_jobs.store.operations import read_queues
from dspy_jobs.store.records import QueueNumbers

#: Nothing closes a queue yet.
_OPEN = {"open": True, "reason": None, "until": None}


async def get_queues(request: Request) -> Response:
    """How much waits and runs in each queue, and how many workers serve it."""
    resources = resources_of(request)
    query(request, ())
    models = {names.queue(model): model for model in sorted(resources.settings.models)}
    queues = await resources.store.run(read_queues(list(models)))
    now = time.time() * 1000
    return json_answer({"data": [_view(queue, models[queue.name], now) for queue in queues]})


def _view(queue: QueueNumbers, model: str, now_ms: float) -> dict[str, Any]:
    waited = None if queue.oldest is None else round(max(0.0, now_ms - queue.oldest) / 1000, 3)
    return {
        "object": "queue",
        "name": queue.name,
        "model": model,
        "queued": queue.queued,
        "running": queue.running,
        "oldest_wait_seconds": waited,
        "gate": _OPEN,
        "workers": queue.workers,
    }
