"""The client for ordinary code."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Self

import httpx

from dspy_jobs.client import operations
from dspy_jobs.client.call import Call, T
from dspy_jobs.client.flow import Flow, Outcome, Pause, Session
from dspy_jobs.client.http import base_url, options, request
from dspy_jobs.models import Job

P = ParamSpec("P")


def _blocking(operation: Callable[Concatenate[Session, P], Flow[T]]) -> Callable[Concatenate[Client, P], T]:
    @wraps(operation)
    def method(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._run(operation(self._session, *args, **kwargs))

    return method


class Client:
    """Talks to dspy-jobs at `url`, else DSPY_JOBS_URL, else where the configuration says that the API listens.

    Safe to share between threads. Every call raises `ApiError` where the service refuses and `ServiceUnreachable`
    where it does not answer; what may be sent again is, for up to `retry_seconds`.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        retry_seconds: float = 30.0,
        timeout: float = 30.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """`timeout`: seconds without a byte after which an answer is given up, on top of a wait asked for."""
        self._session = Session(base_url(url), retry_seconds)
        self._http = httpx.Client(transport=transport, **options(self._session.url, timeout))

    @property
    def url(self) -> str:
        """Where the service is."""
        return self._session.url

    submit = _blocking(operations.submit)
    get = _blocking(operations.get)
    wait = _blocking(operations.wait)
    jobs = _blocking(operations.jobs)
    cancel = _blocking(operations.cancel)
    retry = _blocking(operations.retry)
    delete = _blocking(operations.delete)
    score = _blocking(operations.score)
    predict = _blocking(operations.predict)
    submit_batch = _blocking(operations.submit_batch)
    estimate_batch = _blocking(operations.estimate_batch)
    batch = _blocking(operations.batch)
    wait_batch = _blocking(operations.wait_batch)
    cancel_batch = _blocking(operations.cancel_batch)
    pause_batch = _blocking(operations.pause_batch)
    resume_batch = _blocking(operations.resume_batch)
    retry_batch = _blocking(operations.retry_batch)
    result_page = _blocking(operations.result_page)
    programs = _blocking(operations.programs)
    program = _blocking(operations.program)
    variants = _blocking(operations.variants)
    queues = _blocking(operations.queues)
    pause_queue = _blocking(operations.pause_queue)
    resume_queue = _blocking(operations.resume_queue)
    costs = _blocking(operations.costs)
    budgets = _blocking(operations.budgets)
    autoscale = _blocking(operations.autoscale)
    limits = _blocking(operations.limits)
    config = _blocking(operations.config)
    health = _blocking(operations.health)
    metrics = _blocking(operations.metrics)
    ready = _blocking(operations.ready)

    def results(
        self, batch_id: str, *, after: str | None = None, status: str | None = None, order: str | None = None
    ) -> Iterator[Job]:
        """The batch's results that there are, page by page; at any time. See `result_page`."""
        more = True
        while more:
            page = self.result_page(batch_id, after=after, status=status, order=order)
            yield from page.jobs
            more, after = page.next not in (None, after), page.next

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, flow: Flow[T]) -> T:
        outcome: Outcome | None = None
        try:
            while True:
                outcome = self._take(flow.send(outcome))
        except StopIteration as end:
            result: T = end.value
            return result

    def _take(self, step: Call[Any] | Pause) -> Outcome | None:
        if isinstance(step, Pause):
            time.sleep(step.seconds)
            return None
        try:
            return self._http.send(request(self._http, step))
        except httpx.TransportError as error:
            return error
