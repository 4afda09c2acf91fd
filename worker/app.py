"""The Celery app: the one task, and what a worker process does when it starts and stops.

Celery delivers each message once and then forgets it: the job's own record says who holds it, and another process
queues it again if that worker is lost. So a cut connection gives no running job out twice, a worker survives Redis
going away, and no visibility timeout has to be longer than a job.
"""

from __future__ import annotations

from celery import Celery

from dspy_jobs.redis_url import celery_url, redis_url
from dspy_jobs.settings import Settings, load_settings
from worker.broker import broker_app


def make_app(settings: Settings) -> Celery:
    """The Celery app for these settings; connects to nothing yet."""
    app = broker_app(settings)
    app.conf.update(
        result_backend=celery_url(redis_url(settings)),
        task_acks_late=False,
        task_ignore_result=True,  # outcomes are written by the ledger's own scripts, under Celery's keys
        task_store_errors_even_if_ignored=False,
        result_expires=int(settings.jobs.retention_seconds),
        worker_pool="worker.consumption:ThreadPool",
        worker_prefetch_multiplier=0,  # no limit of Celery's: the open queues are the limit
        worker_disable_rate_limits=True,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            **app.conf.broker_transport_options,
            "queue_order_strategy": "worker.consumption:OpenQueues",
            "ack_emulation": False,
        },
        result_accept_content=["json"],
        redis_socket_timeout=5,
        redis_socket_connect_timeout=2,
    )
    return app


settings = load_settings()
app = make_app(settings)
