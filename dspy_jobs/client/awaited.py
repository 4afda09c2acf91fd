"""The client for asyncio: the same operations, awaited."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Self

import httpx

from dspy_jobs.client import operations
from dspy_jobs.client.call import Call, T
from dspy_jobs.client.flow import Flow, Outcome, Pause, Session
from dspy_jobs.client.http import base_url, options, request
from dspy_jobs.models import Job

P = ParamSpec("P")


def _awaited(
    operation: Callable[Concatenate[Session, P], Flow[T]],
) -> Callable[Concatenate[AsyncClient, P], Awaitable[T]]:
    @wraps(operation)
    async def method(self: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._run(operation(self._session, *args, **kwargs))

    return method


class AsyncClient:
    """As `Client`, with the same calls and errors, for one event loop."""

    def __init__(
        self,
        url: str | None = None,
        *,
        retry_seconds: float = 30.0,
        timeout: float = 30.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """`timeout`: seconds without a byte after which an answer is given up, on top of a wait asked for."""
        self._session = Session(base_url(url), retry_seconds)
        self._http = httpx.AsyncClient(transport=transport, **options(self._session.url, timeout))

    @property
    def url(self) -> str:
        """Where the service is."""
        return self._session.url

    submit = _awaited(operations.submit)
    get = _awaited(operations.get)
    wait = _awaited(operations.wait)
    jobs = _awaited(operations.jobs)
    cancel = _awaited(operations.cancel)
    retry = _awaited(operations.retry)
    delete = _awaited(operations.delete)
    score = _awaited(operations.score)
    predict = _awaited(operations.predict)
    submit_batch = _awaited(operations.submit_batch)
    estimate_batch = _awaited(operations.estimate_batch)
    batch = _awaited(operations.batch)
    wait_batch = _awaited(operations.wait_batch)
    cancel_batch = _awaited(operations.cancel_batch)
    pause_batch = _awaited(operations.pause_batch)
    resume_batch = _awaited(operations.resume_batch)
    retry_batch = _awaited(operations.retry_batch)
    result_page = _awaited(operations.result_page)
    programs = _awaited(operations.programs)
    program = _awaited(operations.program)
    variants = _awaited(operations.variants)
    queues = _awaited(operations.queues)
    pause_queue = _awaited(operations.pause_queue)
    resume_queue = _awaited(operations.resume_queue)
    costs = _awaited(operations.costs)
    budgets = _awaited(operations.budgets)
    autoscale = _awaited(operations.autoscale)
    limits = _awaited(operations.limits)
    config = _awaited(operations.config)
    health = _awaited(operations.health)
    metrics = _awaited(operations.metrics)
    ready = _awaited(operations.ready)

    async def results(
        self, batch_id: str, *, after: str | None = None, status: str | None = None, order: str | None = None
    ) -> AsyncIterator[Job]:
        """The batch's results that there are, page by page; at any time. See `result_page`."""
        more = True
        while more:
            page = await self.result_page(batch_id, after=after, status=status, order=order)
            for job in page.jobs:
                yield job
            more, after = page.next not in (None, after), page.next

    async def aclose(self) -> None:
        """Close its connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _run(self, flow: Flow[T]) -> T:
        outcome: Outcome | None = None
        try:
            while True:
                outcome = await self._take(flow.send(outcome))
        except StopIteration as end:
            result: T = end.value
            return result

    async def _take(self, step: Call[Any] | Pause) -> Outcome | None:
        if isinstance(step, Pause):
            await asyncio.sleep(step.seconds)
            return None
        try:
            return await self._http.send(request(self._http, step))
        except httpx.TransportError as error:
            return error
