"""`python -m worker [NAME]`: one Celery worker in this very process, everything built before it takes a message.

Its log lines bear the name, by default `worker`.
"""

from __future__ import annotations

import logging
import sys

from celery import signals
from celery.apps import worker as celery_worker
from redis.exceptions import RedisError

from dspy_jobs import error_reports, telemetry
from dspy_jobs.line_writer import LineWriter
from dspy_jobs.logs import adopt_loggers, carry_ids, configure_logging
from dspy_jobs.printed_lines import own_stdout, tell_prints
from dspy_jobs.settings import ConfigurationError

#: Seconds in which a process that ends at once sends its last spans.
_HURRIED_SECONDS = 2.0


def main() -> int:
    """Run until SIGTERM or SIGINT. Exit code 0 after a clean stop, 2 for a wrong configuration, 3 without Redis."""
    name = sys.argv[1] if len(sys.argv) > 1 else "worker"
    try:
        from worker.app import app, settings
        from worker.broker import queues_of

        lines = LineWriter(own_stdout())
        configure_logging(settings, name, lines=lines)
        tell_prints(settings)
        from worker.job_lines import ids_of_program
        from worker.process import WorkerProcess

        adopt_loggers()
        carry_ids(ids_of_program)
        telemetry.start(settings, "worker")
        error_reports.start(settings, "worker")

        def last_words() -> None:
            telemetry.stop(_HURRIED_SECONDS)
            error_reports.stop()
            lines.flush()

        process = WorkerProcess(settings, before_exit=last_words)
        process.start()
    except ConfigurationError as error:
        print(error, file=sys.__stderr__)
        return 2
    except RedisError as error:
        print(f"Redis cannot be reached: {error}; set REDIS_URL or start the stack", file=sys.__stderr__)
        return 3
    process.attach(app)
    celery_worker.safe_say = _say
    # A receiver here keeps Celery from configuring logging a second time.
    signals.setup_logging.connect(lambda **_: None, weak=False)
    try:
        app.worker_main(
            [
                "--quiet", "worker", f"--concurrency={settings.worker.concurrency}",
                f"--queues={','.join(queues_of(settings))}", f"--hostname=worker-{process.worker_id}@%h",
                "--without-gossip", "--without-mingle", "--loglevel=warning",
            ]
        )  # fmt: skip
    finally:
        telemetry.stop()
    return 0


def _say(message: str, *_: object) -> None:
    """What Celery says of a signal: not past the log. Stacks of all threads, which SIGUSR1 asks for, are no event."""
    if "\n" in message:
        print(message, file=sys.__stderr__, flush=True)
    else:
        logging.getLogger("celery").info(message)


if __name__ == "__main__":
    sys.exit(main())
