"""The next message of a queue, for the thread that has just ended a job of it.

Of a model with `max_concurrent` a few threads use all the room there is. Celery's consumer, waiting for other queues
by then, would not look at the model's own queue for up to a second, and the room would stand empty.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import redis

from dspy_jobs import names
from dspy_jobs.messages import job_ids
from dspy_jobs.states import Priority


class Message(NamedTuple):
    """A message that still lies in its list."""

    list_name: str
    raw: bytes
    ids: list[str]


def next_message(client: redis.Redis, queue: str) -> Message | None:
    """What Celery would receive next from a queue. It is left there: its jobs are taken first, then it is dropped."""
    for priority in sorted(Priority, key=lambda priority: priority.step):
        list_name = names.queue_list(queue, priority.step)
        raw = cast("bytes | None", client.lindex(list_name, -1))
        if raw is not None:
            return Message(list_name, raw, job_ids(raw))
    return None


def drop_message(client: redis.Redis, message: Message) -> None:
    """Take a message out of its list, if nobody has by now. No two messages are the same."""
    client.lrem(message.list_name, -1, message.raw)  # type: ignore[arg-type]
