"""Work that takes many steps, as plans: generators that yield store operations and get their answers.

A plan does no input or output itself, so the API's event loop and a worker's threads follow the same one
(`AsyncStore.follow`, `SyncStore.follow`). Every step is atomic and may be repeated, also by several processes at
once: whoever finds a part of it undone goes on with it.
"""

from __future__ import annotations

import random

from dspy_jobs import names
from dspy_jobs.chunks import chunk_sizes
from dspy_jobs.settings import Settings
from dspy_jobs.store.counted import fold_books, names_of
from dspy_jobs.store.flights import send_waiting
from dspy_jobs.store.gates import rest_circuits
from dspy_jobs.store.operations import (
    cancel_batch,
    discard_staged,
    find_chores,
    read_release,
    recover_lost,
    release_jobs,
    resume_batch,
    wake_delayed,
)
from dspy_jobs.store.recovery import expire_due, resend_lost, trim_index
from dspy_jobs.store.script import Plan

#: Jobs released in one step.
RELEASE_STEP = 2000
#: Milliseconds without a new item after which an upload is taken for abandoned.
STALE_UPLOAD_MS = 600_000


def discard(batch_id: str) -> Plan[None]:
    """Remove an upload that was refused or abandoned."""
    while (yield discard_staged(batch_id)):
        pass


def release(batch_id: str, largest: int) -> Plan[None]:
    """Send the jobs of a batch that are not yet sent. `largest` is the most jobs in one message."""
    while True:
        left = yield read_release(batch_id)
        if left is None or left.status != "in_progress":
            return
        pointer = left.released
        while 0 <= pointer < left.total:
            sizes = chunk_sizes(left.total - pointer, left.slots, largest, RELEASE_STEP)
            pointer = yield release_jobs(batch_id, pointer, sizes)
        if pointer >= left.total:
            return


def cancel(batch_id: str) -> Plan[None]:
    """Cancel what of a batch is not yet canceled."""
    position = 0
    while position >= 0:
        _, position = yield cancel_batch(batch_id, position)


def send_rest(batch_id: str, largest: int) -> Plan[None]:
    """Send what of a batch in progress is not sent: jobs once parked, then those never released."""
    while (left := (yield read_release(batch_id))) and left.parked and left.status == "in_progress":
        size = chunk_sizes(left.parked, left.slots, largest, 1000)[0]
        yield resume_batch(batch_id, size, unpause=False)
    yield from release(batch_id, largest)


def wake() -> Plan[None]:
    """Send every job whose wait is over."""
    step = 500
    while (yield wake_delayed(step)) == step:
        pass


def recover(settings: Settings) -> Plan[None]:
    """Queue again what lost workers held."""
    step, losses, grace = 200, settings.jobs.max_worker_losses, settings.worker.lease_seconds
    while sum((yield recover_lost(losses, step, grace_seconds=grace))) == step:
        pass


def resend(settings: Settings) -> Plan[None]:
    """Send jobs again whose message has vanished: lost between Redis and a worker, or with a failed-over Redis."""
    for model in settings.models:
        step = 200
        while (yield resend_lost(names.queue(model), limit=step)) == step:
            pass


def expire(settings: Settings) -> Plan[None]:
    """End jobs that did not start in time."""
    step, queues = 500, [names.queue(model) for model in settings.models]
    while (yield expire_due(step, settings.jobs.expires_in_seconds, queues)) >= step:
        pass


def fold(settings: Settings) -> Plan[None]:
    """Add books that are over to the totals that are never forgotten."""
    while (yield fold_books(names_of(settings))):
        pass


def rare_chores(settings: Settings, now_ms: int) -> Plan[None]:
    """What need not be looked at each second."""
    yield from resend(settings)
    yield rest_circuits({model: one.breaker for model, one in settings.models.items()})
    jobs = settings.jobs
    kept = jobs.expires_in_seconds + jobs.retention_seconds + jobs.tombstone_seconds
    yield trim_index(now_ms - int(kept * 1000), share=random.random())  # noqa: S311  # any place is as good
    yield from fold(settings)


def all_chores(settings: Settings) -> Plan[None]:
    """One round of everything a dead process may have left."""
    yield from wake()
    yield from expire(settings)
    yield from recover(settings)
    found = yield find_chores(STALE_UPLOAD_MS)
    while (yield send_waiting()):
        pass
    for batch_id in found.canceling:
        yield from cancel(batch_id)
    for batch_id in found.releasing:
        yield from send_rest(batch_id, settings.worker.chunk_size)
    for batch_id in found.abandoned:
        yield from discard(batch_id)
