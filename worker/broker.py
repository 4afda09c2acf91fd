"""The broker as Celery's apps see it: which queues there are, and how kombu names their lists."""

from __future__ import annotations

from celery import Celery
from kombu import Queue

from dspy_jobs import names
from dspy_jobs.redis_url import celery_url, redis_url
from dspy_jobs.settings import Settings
from dspy_jobs.states import PRIORITY_STEPS


def queues_of(settings: Settings) -> list[str]:
    """The queues a worker consumes: one for each configured model."""
    return [names.queue(model) for model in settings.models]


def broker_app(settings: Settings) -> Celery:
    """The app for those who look at queues and events, and have no business with results; connects to nothing yet."""
    app = Celery("dspy-jobs", broker=celery_url(redis_url(settings)), set_as_current=False)
    app.conf.update(
        task_queues=[Queue(queue, routing_key=queue) for queue in queues_of(settings)],
        task_default_queue=names.queue(settings.default_model),
        broker_transport_options={
            "sep": names.PRIORITY_SEPARATOR,
            "priority_steps": sorted(PRIORITY_STEPS.values()),
            "socket_timeout": 5,
            "socket_connect_timeout": 2,
            "socket_keepalive": True,
            "health_check_interval": 10,
        },
        accept_content=["json"],
    )
    return app
