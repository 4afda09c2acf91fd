"""Plain Celery as its documentation recommends: one message a job, results kept in Redis, a pool of threads.

`python -m benchmarks.plain_celery BROKER BACKEND SANDBOX {early,late}` runs its worker. Early acknowledgement has
Celery's defaults; late acknowledgement takes one message a thread (`worker_prefetch_multiplier = 1`), as the
documentation advises for tasks that may not be lost.
"""

from __future__ import annotations

import sys

from celery import Celery

TASK = "plain.answer"


def make_app(broker: str, backend: str, ack: str) -> Celery:
    """The app of the worker and of whoever submits."""
    app = Celery("plain", broker=broker, backend=backend, set_as_current=False)
    app.conf.update(task_default_queue=f"plain-{ack}", broker_connection_retry_on_startup=True)
    if ack == "late":
        app.conf.update(task_acks_late=True, worker_prefetch_multiplier=1)
    return app


def main() -> None:
    """Run the worker."""
    from benchmarks.bare_dspy import THREADS, bare, bare_model

    broker, backend, sandbox, ack = sys.argv[1:]
    app = make_app(broker, backend, ack)
    jobs = {name: bare(bare_model(name, f"{sandbox}/v1")) for name in ("sandbox", "sandbox-slow")}

    @app.task(name=TASK)  # type: ignore[untyped-decorator]
    def answer(model: str, text: str) -> str:
        return str(jobs[model](text))

    app.worker_main(["worker", "--pool=threads", f"--concurrency={THREADS}", f"--hostname={ack}@%h"])


if __name__ == "__main__":
    main()
