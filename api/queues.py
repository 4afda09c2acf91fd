"""The queues: one for each model."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from api.answers import json_answer
from api.reading import query
from api.resources import resources_of
from dspy_jobs import names
from dspy_jobs.problems import fail
from dspy_jobs.states import WaitReason
from dspy_jobs.store.gates import close_gate, open_gate
from dspy_jobs.store.operations import read_queues
from dspy_jobs.store.records import QueueNumbers
from dspy_jobs.store.script import Operation
from dspy_jobs.views import gate_view


async def get_queues(request: Request) -> Response:
    """How much waits and runs in each queue, and how many workers serve it."""
    resources = resources_of(request)
    query(request, ())
    models = {names.queue(model): model for model in sorted(resources.settings.models)}
    queues = await resources.store.run(read_queues(list(models)))
    now = time.time() * 1000
    return json_answer({"data": [_view(queue, models[queue.name], now) for queue in queues]})


async def post_pause(request: Request) -> Response:
    """Let no further job of a queue start until it is resumed; submitting goes on."""
    return await _turn(request, lambda queue: close_gate(queue, WaitReason.PAUSED))


async def post_resume(request: Request) -> Response:
    """Let a paused queue's jobs run again."""
    return await _turn(request, lambda queue: open_gate(queue, WaitReason.PAUSED))


async def _turn(request: Request, change: Callable[[str], Operation[int]]) -> Response:
    resources = resources_of(request)
    query(request, ())
    name = request.path_params["name"]
    model = name.removeprefix(names.queue(""))
    if model not in resources.settings.models or name != names.queue(model):
        raise fail("not_found", f"There is no queue {name!r}; see GET /v1/queues.")
    await resources.store.run(change(name))
    queue = (await resources.store.run(read_queues([name])))[0]
    return json_answer(_view(queue, model, time.time() * 1000))


def _view(queue: QueueNumbers, model: str, now_ms: float) -> dict[str, Any]:
    waited = None if queue.oldest is None else round(max(0.0, now_ms - queue.oldest) / 1000, 3)
    return {
        "object": "queue",
        "name": queue.name,
        "model": model,
        "queued": queue.queued,
        "running": queue.running,
        "oldest_wait_seconds": waited,
        "gate": gate_view(queue.gate),
        "workers": queue.workers,
    }
