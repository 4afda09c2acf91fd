"""A service as it answers `GET /health` and `GET /metrics`, made up, for tests of what shows it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import httpx

OPEN = {"open": True, "reason": None, "until": None}


def queue(name: str, **changes: Any) -> dict[str, Any]:
    """A queue at work."""
    numbers = {"queued": 1204, "running": 128, "oldest_wait_seconds": 3.2, "workers": 2, "gate": OPEN}
    return {"name": f"dspy.{name}", **numbers, **changes}


def worker(number: int, **changes: Any) -> dict[str, Any]:
    """A worker at work."""
    return {
        "id": f"node-{number}-{4711 + number}-5d2c0e", "host": f"node-{number}", "heartbeat_age_seconds": 0.3,
        "running": 96, "held": 128, "concurrency": 128, "draining": False, "consuming": True, "stuck_threads": 0,
        "version": "0.1.0", "config": "9c1f0d7e22ab", **changes,
    }  # fmt: skip


HEALTH: dict[str, Any] = {
    "status": "healthy",
    "version": "0.1.0",
    "checked_at": "2026-01-01T03:00:00.000Z",
    "problems": [],
    "components": {
        "redis": {
            "status": "healthy", "latency_ms": 0.31, "version": "7.2.5", "used_memory_bytes": 52 * 2**20,
            "max_memory_bytes": 768 * 2**20, "max_memory_policy": "noeviction",
        },
        "cache": {"status": "healthy", "enabled": True, "latency_ms": 0.28, "shares_redis": False},
        "programs": {"status": "healthy", "described": 3},
        "workers": {"status": "healthy", "live": 2, "draining": 0, "lost": 0, "workers": [worker(1), worker(2)]},
        "queues": {"status": "healthy", "queues": [queue("fast"), queue("slow", queued=0, oldest_wait_seconds=None)]},
        "circuits": {"status": "healthy", "models": {"fast": "closed", "slow": "closed"}},
        "budgets": {
            "status": "healthy",
            "clients_exhausted": 0,
            "budgets": [
                {"scope": "all", "period": "day", "limit_usd": 20.0, "spent_usd": 1.25, "exhausted": False,
                 "resets_at": "2026-01-02T00:00:00.000Z"},
            ],
        },
    },
}  # fmt: skip


def health(**components: dict[str, Any]) -> dict[str, Any]:
    """The document, with changes to its components; its status is the worst of theirs."""
    document = copy.deepcopy(HEALTH)
    for name, changes in components.items():
        document["components"].setdefault(name, {}).update(changes)
    statuses = {component["status"] for component in document["components"].values()}
    document["status"] = next((s for s in ("unhealthy", "degraded") if s in statuses), "healthy")
    document["problems"] = [f"{n}: {c['detail']}" for n, c in document["components"].items() if "detail" in c]
    return document


def metrics(jobs: int = 0, failed: int = 0, dollars: float = 0.0, unpriced: int = 0, hits: int = 0) -> str:
    """Numbers of a service that has run so many jobs of `qa` in a quarter and of `deep` in three seconds each."""
    slow = jobs // 10
    return f"""# TYPE dspy_predictions_total counter
dspy_predictions_total{{program="qa",model="fast",variant="",status="succeeded"}} {jobs - failed}
dspy_predictions_total{{program="qa",model="fast",variant="",status="failed"}} {failed}
# TYPE dspy_prediction_cost_total counter
dspy_prediction_cost_total{{program="qa",model="fast",variant=""}} {dollars}
# TYPE dspy_unpriced_calls_total counter
dspy_unpriced_calls_total{{program="qa",model="fast",variant=""}} {unpriced}
# TYPE dspy_cache_operations_total counter
dspy_cache_operations_total{{level="memory",operation="hit"}} {hits}
dspy_cache_operations_total{{level="redis",operation="miss"}} {jobs - hits}
# TYPE dspy_prediction_duration_seconds histogram
dspy_prediction_duration_seconds_bucket{{program="qa",model="fast",le="0.1"}} 0
dspy_prediction_duration_seconds_bucket{{program="qa",model="fast",le="0.5"}} {jobs - slow}
dspy_prediction_duration_seconds_bucket{{program="qa",model="fast",le="+Inf"}} {jobs - slow}
dspy_prediction_duration_seconds_bucket{{program="deep",model="fast",le="2"}} 0
dspy_prediction_duration_seconds_bucket{{program="deep",model="fast",le="4"}} {slow}
dspy_prediction_duration_seconds_bucket{{program="deep",model="fast",le="+Inf"}} {slow}
"""


class Service:
    """Answers like the API; what it answers can be changed while somebody looks."""

    def __init__(self, document: dict[str, Any] | None = None, numbers: Callable[[], str] = metrics) -> None:
        self.document, self.numbers = document or health(), numbers
        self.is_gone = False

    def __call__(self, request: httpx.Request) -> httpx.Response:
        """Answer one request."""
        if self.is_gone:
            raise httpx.ConnectError("Connection refused", request=request)
        if request.url.path == "/metrics":
            return httpx.Response(200, text=self.numbers())
        status = 503 if self.document["status"] == "unhealthy" else 200
        return httpx.Response(status, json=self.document)
