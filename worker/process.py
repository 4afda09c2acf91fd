"""A worker process from start to end: build everything before consuming, register the task, drain when told to stop."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable
from typing import Any

import orjson
import redis
import structlog
from celery import Celery, signals
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from redis.backoff import NoBackoff
from redis.retry import Retry

from dspy_jobs import names
from dspy_jobs.redis_url import redis_url
from dspy_jobs.settings import Settings
from dspy_jobs.store import SyncStore, connect
from dspy_jobs.store.books import limits_of_spending
from worker import consumption
from worker.attempt import Runner
from worker.bookkeeping import Bookkeeper, impatient_store
from worker.broker import queues_of
from worker.cache_writer import CacheWriter
from worker.chunk import ChunkRunner
from worker.circuit import circuits_of
from worker.condition import Condition
from worker.drain import Drain
from worker.event_feed import EventFeed
from worker.housekeeping import Housekeeping
from worker.instruments import Instruments, Unmeasured
from worker.language_models import LanguageModels
from worker.pricing import prices_per_1k
from worker.programs import Program, load_programs
from worker.rates import rate_storage
from worker.remote_control import take_over
from worker.response_cache import ResponseCache
from worker.status_server import StatusServer
from worker.stored_answers import stored_answers
from worker.watchdog import Watchdog
from worker.witnesses import Witnesses

log = structlog.get_logger("worker")

#: Redis connections shared by all threads: a round trip is short against a model call, and each open socket
#: counts against the 1024 that `select` can watch.
_CONNECTIONS = 32


def new_worker_id() -> str:
    """Unique over hosts and restarts: a restarted worker must not take over its predecessor's jobs."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"


class WorkerProcess:
    """Everything one worker process owns."""

    def __init__(self, settings: Settings, before_exit: Callable[[], None]) -> None:
        """Builds programs and models. `before_exit` is called before the process ends at once, to save its last words.

        Raises:
            ConfigurationError: a program or model cannot be built, or the port for metrics is in use.
        """
        self.settings = settings
        self.worker_id = new_worker_id()
        self.programs = load_programs(settings)
        url, queues = redis_url(settings), queues_of(settings)
        cache = ResponseCache(settings)
        instruments = Instruments(settings, cache.counts) if settings.worker.instruments else Unmeasured()
        store = SyncStore(_shared_connections(url), instruments.round_trip)
        circuits = circuits_of(settings, store)
        models = LanguageModels(settings, circuits, rate_storage(url), instruments.calls_of)
        runner = Runner(settings, self.worker_id, self.programs, models, cache)
        bookkeeper = Bookkeeper(impatient_store(url, instruments.round_trip), self.worker_id)
        self.cache_writer = CacheWriter(cache)
        answers = stored_answers(runner, store)
        witnesses = Witnesses(self.worker_id, settings.log_content, instruments)
        self.chunks = ChunkRunner(
            runner, store, answers, witnesses, bookkeeper, gates=consumption.gates, keep_output=self.cache_writer.put
        )
        self.event_feed = EventFeed(witnesses.events, connect(url))
        self._own_store = SyncStore(connect(url))
        self._status = status_server(settings)
        address = self._status.address if self._status else None
        self.housekeeping = Housekeeping(self.chunks, self._own_store, queues, circuits, address)

        def last_words() -> None:
            self.housekeeping.send_report()
            before_exit()

        self.drain = Drain(self.chunks, SyncStore(connect(url)), queues, last_words)
        self.watchdog = Watchdog(self.chunks, last_words)

    def attach(self, app: Celery) -> None:
        """Register the task and follow the Celery worker's start and stop."""
        # No events of Celery's own, which knows messages, not jobs: `event_feed` tells of jobs.
        app.task(name=names.TASK, ignore_result=True, send_events=False)(self.chunks.run)
        take_over(SyncStore(connect(redis_url(self.settings))))
        signals.worker_ready.connect(self._on_ready, weak=False)
        signals.worker_shutting_down.connect(self._on_shutting_down, weak=False)
        signals.worker_shutdown.connect(self._on_shutdown, weak=False)

    def start(self) -> None:
        """Make the scripts and programs known and begin to renew the lease, before any message is taken."""
        if self._status:
            condition = Condition(self.chunks, self.housekeeping)
            self._status.start(
                whole_registry(self.chunks.witnesses.instruments.registry, condition), condition.document
            )
        self._own_store.load_scripts()
        publish_all(self._own_store.redis, self.settings, self.programs)
        self.housekeeping.start()
        self.cache_writer.start()

    def _on_ready(self, sender: Any, **_: Any) -> None:
        log.info("worker_ready", worker=self.worker_id, concurrency=self.settings.worker.concurrency)
        self.housekeeping.heartbeat.phase = "ready"
        self.watchdog.start()
        if self.settings.flower.job_events:
            self.event_feed.follow(sender)

    def _on_shutting_down(self, **_: Any) -> None:
        self.drain.begin()

    def _on_shutdown(self, **_: Any) -> None:
        self.housekeeping.end()
        self.cache_writer.end()
        self.event_feed.end()
        log.info("worker_stopped", worker=self.worker_id)


def status_server(settings: Settings) -> StatusServer | None:
    """The worker's own port, if it is to have one.

    Raises:
        ConfigurationError: it is in use.
    """
    port = settings.worker.metrics_port
    return None if port is None else StatusServer(settings.worker.metrics_host, port)


def whole_registry(registry: CollectorRegistry, condition: Condition) -> CollectorRegistry:
    """A worker's instruments with its gauges and those of any process beside them."""
    registry.register(condition)
    for kind in (ProcessCollector, PlatformCollector, GCCollector):
        kind(registry=registry)
    return registry


def publish_all(client: redis.Redis, settings: Settings, programs: dict[str, Program]) -> None:
    """Make everything known that others must know of a fleet before, and while, it runs."""
    publish_programs(client, programs)
    publish_prices(client, settings)
    publish_concurrency(client, settings)
    publish_budgets(client, settings)


def publish_programs(client: redis.Redis, programs: dict[str, Program]) -> None:
    """Tell every API process what this fleet can run."""
    with client.pipeline() as pipe:
        pipe.delete(names.PROGRAMS)
        for name, program in programs.items():
            pipe.hset(names.PROGRAMS, name, orjson.dumps(program.description.model_dump()))
        pipe.publish(names.PROGRAMS_CHANNEL, "")
        pipe.execute()


def publish_prices(client: redis.Redis, settings: Settings) -> None:
    """Tell every API process what is known of the models' prices; of a model that is absent nothing is."""
    with client.pipeline() as pipe:
        pipe.delete(names.MODELS)
        for model, prices in prices_per_1k(settings.models).items():
            pipe.hset(names.MODELS, model, orjson.dumps(prices))
        pipe.execute()


def publish_concurrency(client: redis.Redis, settings: Settings) -> None:
    """Tell the claims how many jobs of each model may run at once in the fleet; 0 is any number."""
    with client.pipeline() as pipe:
        for model, limits in settings.models.items():
            pipe.hset(names.queue_numbers(names.queue(model)), "most", str(limits.max_concurrent or 0))
        pipe.execute()


def publish_budgets(client: redis.Redis, settings: Settings) -> None:
    """Tell the claims what may be spent. A budget raised this way lets jobs run again by itself."""
    with client.pipeline() as pipe:
        pipe.delete(names.BUDGETS)
        for name, value in limits_of_spending(settings).items():
            pipe.hset(names.BUDGETS, name, str(value))
        pipe.execute()


def _shared_connections(url: str) -> redis.Redis:
    pool = redis.BlockingConnectionPool.from_url(
        url,
        max_connections=_CONNECTIONS,
        timeout=30,
        socket_timeout=5,
        socket_connect_timeout=2,
        retry=Retry(NoBackoff(), 0),
    )
    return redis.Redis(connection_pool=pool)
