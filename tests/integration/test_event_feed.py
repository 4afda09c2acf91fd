"""Job events on their way through Redis to an unmodified Celery receiver."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from celery.events import EventReceiver

from dspy_jobs.redis_url import celery_url
from dspy_jobs.store import SyncStore, connect
from dspy_jobs.store.records import Claim
from dspy_jobs.waiting import wait_until
from tests.system.own_redis import OwnRedis
from worker.event_feed import EventFeed
from worker.job_events import JobEvents


class Feed:
    """A worker's feed, with a consumer that is nothing but what the feed needs of Celery's."""

    def __init__(self, url: str) -> None:
        self.events = JobEvents()
        self.dispatcher = SimpleNamespace(groups={"worker"})
        self.consumer: Any = SimpleNamespace(hostname="worker@here", event_dispatcher=self.dispatcher)
        self.feed = EventFeed(self.events, connect(url))

    def follow(self) -> None:
        """Begin, with rounds by hand."""
        self.feed.start = lambda: None  # type: ignore[method-assign]
        self.feed.follow(self.consumer)

    def start(self, number: int) -> None:
        """An attempt of that job starts."""
        self.events.started(Claim(f"job_{number}", 1, 0, 0, "", "qa", "fast", {}, 3, 0, 0, (), False))


@pytest.fixture
def feed(redis_url: str) -> Iterator[Feed]:
    """A feed that has begun; nobody listens yet."""
    feed = Feed(redis_url)
    feed.follow()
    yield feed
    feed.feed._redis.close()


@contextmanager
def listener(url: str) -> Iterator[Callable[[], list[str]]]:
    """Celery's own receiver; called, it answers which jobs' events it has heard."""
    app = Celery("listener", broker=celery_url(url), set_as_current=False)
    heard: list[dict[str, Any]] = []

    with app.connection() as given:
        receiver = EventReceiver(given, handlers={"task-started": heard.append}, app=app)
        with receiver.consumer_context() as (connection, _, _):

            def listen() -> list[str]:
                with suppress(TimeoutError):
                    connection.drain_events(timeout=0.05)
                assert all(event["hostname"] == "worker@here" for event in heard)
                return [event["uuid"] for event in heard]

            listen()
            yield listen


def test_a_listener_hears_every_event_in_order(feed: Feed, redis_url: str) -> None:
    """More than a message holds arrive one after the other, as Celery's own would."""
    with listener(redis_url) as listen:
        for number in range(450):
            feed.start(number)
        feed.feed.round()
        assert wait_until(lambda: listen() == [f"job_{number}" for number in range(450)], 10)
        assert feed.events.is_wanted


def test_nobody_is_told_for_nothing(feed: Feed, redis_url: str) -> None:
    """Once nobody heard a message nothing more is noted, until somebody asks, as Flower does every five seconds."""
    feed.start(1)
    feed.feed.round()
    assert feed.dispatcher.groups == {"worker"}
    feed.start(2)
    assert feed.events.take(1) == []
    with listener(redis_url) as listen:
        feed.dispatcher.groups.add("task")
        feed.feed.round()
        feed.start(3)
        feed.feed.round()
        assert wait_until(lambda: listen() == ["job_3"], 10)
    feed.dispatcher.groups.discard("task")
    feed.feed.round()
    assert not feed.events.is_wanted


def test_events_wait_for_redis_and_for_celery(own_redis: OwnRedis) -> None:
    """What was noted while Redis was away, or while Celery reconnected, is sent afterwards."""
    feed = Feed(own_redis.url)
    feed.follow()
    own_redis.kill()
    feed.start(1)
    feed.feed.round()
    own_redis.start()
    feed.consumer.event_dispatcher = None
    with listener(own_redis.url) as listen:
        feed.feed.round()
        feed.start(2)
        feed.consumer.event_dispatcher = feed.dispatcher
        feed.feed.round()
        assert wait_until(lambda: listen() == ["job_1", "job_2"], 10)


def test_the_last_events_are_sent(redis_url: str, store: SyncStore) -> None:
    """A worker that ends says first what became of its jobs; a retry is told at once, not with the next round."""
    feed = Feed(redis_url)
    with listener(redis_url) as listen:
        feed.feed.follow(feed.consumer)
        feed.start(1)
        feed.events.is_urgent.set()
        assert wait_until(lambda: listen() == ["job_1"], 10)
        feed.consumer.event_dispatcher = None  # as Celery has it by then
        feed.start(2)
        feed.feed.end()
        assert wait_until(lambda: listen() == ["job_1", "job_2"], 10)
    assert not feed.feed.is_alive()
    feed.feed._redis.close()


def test_a_feed_that_hangs_is_left_alone_at_the_end(feed: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its thread sends still; two that take events would get into one another's way."""
    feed.start(1)
    monkeypatch.setattr(feed.feed, "join", lambda timeout: None)
    monkeypatch.setattr(feed.feed, "is_alive", lambda: True)
    feed.feed.end()
    assert len(feed.events.take(10)) == 1
