"""The application: which address leads to which handler."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache, partial
from typing import Any

from fastapi import FastAPI
from starlette.routing import Route

from api import (
    autoscale,
    batch_retry,
    batches,
    budgets,
    costs,
    docs_page,
    health,
    jobs,
    metrics,
    openapi,
    problems,
    programs,
    queues,
    results,
    scores,
    service,
    tracing,
    variants,
)
from api.idempotency import once
from api.own_metrics import OwnMetrics
from api.request_scope import RequestScope
from api.resources import open_resources
from dspy_jobs import __version__, error_reports, telemetry
from dspy_jobs.foreign_logs import watch_loop
from dspy_jobs.settings import Settings, load_settings

#: Method, path, handler. Those asked most often come first: the router looks from the top.
ROUTES = (
    ("GET", "/v1/jobs/{job_id}", jobs.get_job),
    ("POST", "/v1/jobs", jobs.post_job),
    ("POST", "/v1/predict", jobs.post_predict),
    ("GET", "/v1/jobs", jobs.get_jobs),
    ("DELETE", "/v1/jobs/{job_id}", jobs.delete_job),
    ("POST", "/v1/jobs/{job_id}/cancel", jobs.post_cancel),
    ("POST", "/v1/jobs/{job_id}/retry", jobs.post_retry),
    ("POST", "/v1/jobs/{job_id}/score", scores.post_score),
    ("POST", "/v1/batches", batches.post_batch),
    ("GET", "/v1/batches", batches.get_batches),
    ("GET", "/v1/batches/{batch_id}", batches.get_batch),
    ("GET", "/v1/batches/{batch_id}/results", results.get_results),
    ("POST", "/v1/batches/{batch_id}/cancel", batches.post_cancel),
    ("POST", "/v1/batches/{batch_id}/pause", batches.post_pause),
    ("POST", "/v1/batches/{batch_id}/resume", batches.post_resume),
    ("POST", "/v1/batches/{batch_id}/retry", batch_retry.post_retry),
    ("GET", "/v1/programs", programs.get_programs),
    ("GET", "/v1/programs/{name}", programs.get_program),
    ("GET", "/v1/programs/{name}/variants", variants.get_variants),
    ("GET", "/v1/queues", queues.get_queues),
    ("POST", "/v1/queues/{name}/pause", queues.post_pause),
    ("POST", "/v1/queues/{name}/resume", queues.post_resume),
    ("GET", "/v1/autoscale", autoscale.get_autoscale),
    ("GET", "/v1/limits", service.get_limits),
    ("GET", "/v1/budgets", budgets.get_budgets),
    ("GET", "/costs", costs.get_costs),
    ("GET", "/metrics", metrics.get_metrics),
    ("GET", "/", service.get_root),
    ("GET", "/config", service.get_config),
    ("GET", "/health", health.get_health),
    ("GET", "/health/live", health.get_live),
    ("GET", "/health/ready", health.get_ready),
    ("GET", "/ready", health.get_ready),
    ("GET", "/problems/{code}", problems.read_problem),
)


def create_app(settings: Settings) -> FastAPI:
    """The application for a configuration. Redis need not be there when it starts.

    Raises:
        ConfigurationError: it is to be traced, or bugs are to be reported, and that cannot be.
    """
    telemetry.start(settings, "api")
    error_reports.start(settings, "api")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        watch_loop(asyncio.get_running_loop())
        try:
            async with open_resources(settings, app.state.own_metrics) as app.state.resources:
                yield
        finally:
            await asyncio.to_thread(telemetry.stop)

    app = FastAPI(
        title="dspy-jobs",
        version=__version__,
        summary="Run DSPy programs as queued jobs.",
        lifespan=lifespan,
        redirect_slashes=False,
        telemetry=tracing.of_requests(),
        docs_url=None,
        redoc_url=None,
    )
    # Served by plain routes: handlers read requests and build answers themselves, and FastAPI's machinery for
    # parameters and response models would cost a third of a poll. FastAPI describes them all the same.
    for method, path, handler in ROUTES:
        # Each is an endpoint of its own, for the router tells which one it took, not which address.
        endpoint = once(path, handler) if method == "POST" else partial(handler)
        app.add_route(path, endpoint, methods=[method])
    app.add_route("/docs", docs_page.get_docs, methods=["GET"])
    problems.install(app)
    openapi.install(app, ROUTES)
    templates = {route.endpoint: route.path for route in app.routes if isinstance(route, Route)}
    app.state.own_metrics = OwnMetrics()
    app.add_middleware(RequestScope, metrics=app.state.own_metrics, templates=templates)
    return app


@cache
def _configured() -> FastAPI:
    return create_app(load_settings())


def __getattr__(name: str) -> Any:
    # `uvicorn api.app:app` finds the configured application, while importing this module reads no configuration.
    if name == "app":
        return _configured()
    raise AttributeError(name)
