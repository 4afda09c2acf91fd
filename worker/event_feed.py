"""Sends job events to whoever listens, from a thread of its own, so that no job waits for it.

Flower asks all workers for events every five seconds (`enable_events`). Redis says how many heard a message: once
nobody did, nothing is noted any more until somebody asks again. Written by hand in kombu's format, many events to a
message: Celery's own way costs several times as much for each event, in the threads that run jobs.
"""

from __future__ import annotations

import threading
from typing import Any

import orjson
import redis
import structlog
from redis.exceptions import RedisError

from worker.job_events import Event, JobEvents

log = structlog.get_logger("worker")

#: Seconds an event waits at most for others that go with it.
_ROUND_SECONDS = 0.5
#: Events in a message, some 60 KB.
_BATCH = 200
#: Celery's name for events of a kind, see `celery.events.event`.
_GROUP = "task"


class EventFeed(threading.Thread):
    """Sends what `events` notes while a Celery consumer's event dispatcher has task events enabled."""

    def __init__(self, events: JobEvents, client: redis.Redis) -> None:
        super().__init__(name="event-feed", daemon=True)
        self._events = events
        self._redis = client
        self._channel = f"/{client.get_connection_kwargs().get('db', 0)}.celeryev/task.multi"
        self._consumer: Any = None
        self._ended = threading.Event()

    def follow(self, consumer: Any) -> None:
        """Begin, as this Celery consumer; whether anybody listens already shows with the first events."""
        self._consumer = consumer
        consumer.event_dispatcher.groups.add(_GROUP)
        self._events.is_wanted = True
        self.start()

    def run(self) -> None:
        """Rounds until told to end."""
        while not self._ended.is_set():
            self._events.is_urgent.wait(_ROUND_SECONDS)
            self._events.is_urgent.clear()
            self.round()

    def end(self) -> None:
        """Send what is left and stop."""
        if self._consumer is not None:
            self._ended.set()
            self._events.is_urgent.set()
            self.join(timeout=5)
            if not self.is_alive():  # else it is sending still, to a Redis that does not answer
                self._send()

    def round(self) -> None:
        """Send what was noted, if somebody has asked for it."""
        dispatcher = self._consumer.event_dispatcher
        if dispatcher is None:  # Celery reconnects, and then knows again what was asked for
            return
        self._events.is_wanted = _GROUP in dispatcher.groups
        if not self._send():
            dispatcher.groups.discard(_GROUP)
            self._events.is_wanted = False

    def _send(self) -> bool:
        """Send what was noted, with the next round where Redis is away. Answers whether anybody heard it."""
        while batch := self._events.take(_BATCH):
            try:
                heard = self._redis.publish(self._channel, _message(self._consumer.hostname, batch))
            except RedisError as error:
                self._events.give_back(batch)
                log.debug("redis_unavailable", error=str(error))
                return True
            if not heard:
                self._events.forget()
                return False
        return True


def _message(hostname: str, events: list[Event]) -> bytes:
    body = orjson.dumps([{"hostname": hostname, **event} for event in events]).decode()
    return orjson.dumps(
        {"body": body, "content-type": "application/json", "headers": {}, "properties": {"delivery_tag": ""}}
    )
