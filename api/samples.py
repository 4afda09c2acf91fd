"""Examples of the OpenAPI document, made by the code that makes the answers, so that they cannot drift apart."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import Any

import orjson

from api.health_checks import CacheServer, Ledger
from api.health_rules import health_document
from api.looks import Known, Seen
from dspy_jobs import __version__
from dspy_jobs.budgets import budget_views
from dspy_jobs.costs import Costs
from dspy_jobs.demand import QueueLoad, WorkerLoad, demand_of
from dspy_jobs.disk_space import DiskSpace
from dspy_jobs.problems import problem
from dspy_jobs.redis_state import RedisState
from dspy_jobs.settings import LimitSettings, Settings
from dspy_jobs.states import CircuitState
from dspy_jobs.store.demand import Outstanding
from dspy_jobs.store.records import StoredBatch, StoredJob
from dspy_jobs.views import batch_view, demand_view, job_result, job_view

_JOB_ID = "job_01jd3v5k8e2m4n6p8q0r2s4t6v"
_BATCH_ID = "batch_01jd3v5k8e2m4n6p8q0r2s4t6w"
_NOW = 1_732_100_000_000
_REQUEST = {"program_version": "3f9a1c", "request_id": "req_01jd3v5k8e2m4n6p8q0r2s4t6x"}
_FIELDS = {
    "status": "queued", "program": "qa", "model": "fast", "attempt": "0", "created_at": str(_NOW),
    "expires_at": str(_NOW + 86_400_000),
}  # fmt: skip
_USAGE = {
    "input_tokens": 120,
    "cached_input_tokens": None,
    "output_tokens": 9,
    "reasoning_tokens": None,
    "calls": 1,
    "source": "provider",
}
_ATTEMPT = {
    "number": 1, "model": "fast", "started_at": _NOW + 40, "ended_at": _NOW + 900, "usage": _USAGE,
    "cost_usd": 0.0000156,
}  # fmt: skip

SUBMISSION = {
    "program": "qa",
    "inputs": {"question": "What is the capital of France?"},
    "metadata": {"team": "docs"},
}
SHORT_SUBMISSION = {"model": "fast", "input": "What is 2+2?"}
_ITEMS: list[dict[str, Any]] = [
    {"custom_id": "row-1", "inputs": {"question": "What is the capital of France?"}},
    {"custom_id": "row-2", "inputs": {"question": "Who wrote Faust?"}},
]
BATCH_SUBMISSION = {"program": "qa", "model": "fast", "items": _ITEMS}
LINES = "".join(orjson.dumps(item).decode() + "\n" for item in _ITEMS)
RETRY = {"status": "failed"}
RESUMPTION = {"limits": {"max_cost_usd": 5}}


def _job(status: str, outcome: dict[str, Any] | None = None, **fields: Any) -> StoredJob:
    metadata = {"metadata": SUBMISSION["metadata"]}
    given = {name: str(value) for name, value in fields.items()}
    return StoredJob(
        _JOB_ID, {**_FIELDS, "status": status, **given}, {**_REQUEST, **metadata}, outcome, [], None, 1, ""
    )


_OUTCOME = {
    "result": {"answer": "Paris"}, "attempt": _ATTEMPT, "cache": "miss", "program_version": "3f9a1c",
    "cache_key": "5d2c0ee0a7b3c9f41e86d0a1b2c3d4e5f6071829",
}  # fmt: skip
_ENDED = _job("succeeded", _OUTCOME, attempt=1, started_at=_NOW + 40, ended_at=_NOW + 900)
_CANCELED = {"problem": problem("canceled", "The job was canceled before it ended.").model_dump(exclude_none=True)}

QUEUED_JOB = job_view(_job("queued"))
RUNNING_JOB = job_view(_job("running", attempt=1, started_at=_NOW + 40, attempt_at=_NOW + 40))
ENDED_JOB = job_view(_ENDED)
CANCELED_JOB = job_view(_job("canceled", _CANCELED, ended_at=_NOW + 900))
JOBS = {"data": [ENDED_JOB], "has_more": False, "next": None}
RESULTS = orjson.dumps(job_result(_ENDED)).decode() + "\n"


def _batch(**fields: Any) -> dict[str, Any]:
    numbers = {
        "total": 2,
        "queued": 1,
        "succeeded": 1,
        "calls": 1,
        "input_tokens": 120,
        "output_tokens": 9,
        "cost": 15_600,
        "miss": 1,
    }
    times = {
        "created_at": _NOW,
        "retention": 604_800_000,
        "tombstone": 2_592_000_000,
        "expires_in": 86_400_000,
    }
    known = {"status": "in_progress", "program": "qa", "model": "fast", **numbers, **times, **fields}
    return batch_view(
        StoredBatch(_BATCH_ID, {name: str(value) for name, value in known.items()}, _REQUEST, 1, 1),
        _NOW + 1000,
    )


BATCH = _batch()
PAUSED_BATCH = _batch(status="paused", pause_reason="operator", paused_at=_NOW + 900)
CANCELING_BATCH = _batch(status="canceling")
BATCHES = {"data": [BATCH], "has_more": False, "next": None}

ESTIMATE = {
    "object": "batch_estimate", "program": "qa", "model": "fast", "valid": 9_998, "invalid": 2, "cached": 4_000,
    "repeated": 998, "est_input_tokens": 600_000, "est_output_tokens": 45_000,
    "est_cost_usd": {"low": 0.0702, "high": 0.0858}, "est_seconds": 47.5, "error_count": 2,
    "errors": [
        {"line": 17, "custom_id": "row-17", "param": "inputs.question", "code": "invalid_input",
         "detail": '"question" is a required property'},
        {"line": 18, "custom_id": None, "param": None, "code": "invalid_request_body",
         "detail": "an item must be a JSON object with `inputs`"},
    ],
    "notes": [],
}  # fmt: skip

PROGRAM: dict[str, Any] = {
    "object": "program", "name": "qa", "version": "3f9a1c", "version_name": "v1", "model": "fast",
    "description": "Answers a question.",
    "versions": {"v1": "3f9a1c", "v2": "a41b07"},
    "variants": {
        "a": {"weight": 0.9, "model": "fast", "version": "3f9a1c", "version_name": "v1"},
        "b": {"weight": 0.1, "model": "fast", "version": "a41b07", "version_name": "v2"},
    },
    "input_schema": {"type": "object", "properties": {"question": {"type": "string"}}, "required": ["question"]},
    "output_schema": {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]},
}  # fmt: skip
SCORE = {
    "object": "score", "job_id": _JOB_ID, "program": "qa", "variant": "b", "name": "accuracy", "value": 0.9,
}  # fmt: skip
VARIANTS = [
    {
        "object": "variant", "name": "b", **PROGRAM["variants"]["b"], "jobs": 120, "failed": 3, "error_rate": 0.025,
        "cached": 12, "cost_usd": 0.00216, "cost_per_job": 0.00002,
        "latency": {"mean_seconds": 1.31, "p50_seconds": 1.1, "p95_seconds": 2.4},
        "scores": {"accuracy": {"n": 80, "mean": 0.87}},
    }
]  # fmt: skip
QUEUE = {
    "object": "queue", "name": "dspy.fast", "model": "fast", "queued": 12, "running": 128, "oldest_wait_seconds": 0.8,
    "gate": {"open": True, "reason": None, "until": None}, "workers": 1,
}  # fmt: skip
PAUSED_QUEUE = {**QUEUE, "gate": {"open": False, "reason": "paused", "until": None}}
LIMITS = {
    **LimitSettings().model_dump(), "timeout_seconds": 300, "max_timeout_seconds": 3600, "expires_in_seconds": 86400,
    "max_attempts": 5, "retention_seconds": 604800, "tombstone_seconds": 2592000, "idempotency_seconds": 86400,
}  # fmt: skip
_COSTS = Costs(("day", "model"))
_COSTS.add(
    date(2024, 11, 20),
    {
        f"fast||qa|default|{metric}".encode(): b"%d" % value
        for metric, value in {
            "calls": 40, "input_tokens": 4800, "output_tokens": 360, "cost": 624_000, "jobs": 52, "hit": 12,
            "saved": 187_200,
        }.items()
    },
)  # fmt: skip
COSTS = {
    "from": "2024-11-01", "to": "2024-11-20", "group_by": list(_COSTS.group_by), "data": _COSTS.rows(),
    "total": _COSTS.total(), "complete": _COSTS.complete,
}  # fmt: skip
BUDGETS = {
    "data": budget_views(
        {"day *": 20_000_000_000, "month acme": 5_000_000_000},
        {"day": {"*": 1_250_000_000}, "month": {"*": 31_000_000_000, "acme": 5_000_120_000}},
        date(2024, 11, 20),
    )
}
_LOAD = QueueLoad(
    "dspy.fast", queued=100, waiting=100, running=8, oldest_wait_seconds=12.4, service_seconds=6.0, samples=100
)
_DEMAND = demand_of([_LOAD], [WorkerLoad("w1", is_alive=True, held=8)], Settings())
AUTOSCALE = demand_view(_DEMAND, 8)
METRICS = f"""# HELP dspy_autoscaler_work_slots Call slots needed so that jobs wait no longer than they should.
# TYPE dspy_autoscaler_work_slots gauge
dspy_autoscaler_work_slots {_DEMAND.work_slots}
"""
ALIVE = {"status": "ok", "version": __version__}
READY = {**ALIVE, "redis": "ok", "programs": 1}
_LOADED = Outstanding(
    [_LOAD],
    [
        WorkerLoad(
            "host-1-5d2c0e", is_alive=True, held=8, running=8, concurrency=8, host="host", queues=("dspy.fast",),
            version=__version__, config="9c1f0d7e22ab", heartbeat_age_seconds=0.21, silent_seconds=0.4,
        )
    ],
)  # fmt: skip
_SERVER = RedisState(
    run_id="a1", version="7.2.5", is_primary=True, used_bytes=52_428_800, limit_bytes=805_306_368, host_bytes=0,
    policy="noeviction", keeps_log=True, log_is_written=True, connections=44, most_connections=10_000,
)  # fmt: skip
_LEDGER = Ledger(
    0.31, _SERVER, _LOADED, {"fast": CircuitState.CLOSED}, 1,
    [budget for budget in BUDGETS["data"] if budget["limit_usd"] is not None],
)  # fmt: skip


def _health(ledger: Seen[Ledger]) -> dict[str, Any]:
    cache = CacheServer(0.28, replace(_SERVER, run_id="b2", policy="allkeys-lru", limit_bytes=268_435_456))
    disk = DiskSpace(free_bytes=48_318_382_080, total_bytes=107_374_182_400, data_bytes=73_400_320)
    at = _NOW / 1000
    return health_document(Settings(), ledger, Seen(Known(cache, at)), Seen(Known(disk, at)), _NOW)


HEALTH = _health(Seen(Known(_LEDGER, _NOW / 1000)))
UNHEALTHY = _health(Seen(Known(_LEDGER, _NOW / 1000), hangs=0.06))


def problem_sample(code: str, path: str) -> dict[str, Any]:
    """A problem of a code, as answered at a path."""
    sample = problem(code, _DETAILS.get(code, "What went wrong, and what to do about it.")).model_dump(
        exclude_none=True
    )
    return {**sample, "instance": path, "request_id": _REQUEST["request_id"], **_MORE.get(code, {})}


_DETAILS = {
    "invalid_parameter": "limit must be a whole number from 1 to 100.",
    "malformed_body": "The body is not valid JSON: unexpected end of data: line 1 column 12 (char 11).",
    "invalid_request_body": "webhok: there is no field 'webhok'",
    "invalid_input": 'inputs.question: "question" is a required property',
    "unknown_program": "There is no program 'q'; there are: qa.",
    "unknown_model": "There is no model 'x'; there are: fast.",
    "unknown_variant": "The program 'qa' has no variant 'c'; there are: a, b.",
    "not_found": "There is no job 'job_x'.",
    "gone": "The job was erased or its retention is over.",
    "conflict": "Its present state does not allow this.",
    "idempotency_mismatch": "The Idempotency-Key was used for another request; send a new key.",
    "idempotency_in_flight": "The first request with this Idempotency-Key is under way; ask again in a second.",
    "payload_too_large": "A job may have 1000000 bytes at most; see GET /v1/limits.",
    "unsupported_media_type": "Send application/json, not 'text/plain'.",
    "not_cached": "No stored answer fits, and the job was to be answered from the cache only.",
    "queue_full": "200000 jobs are queued and 200000 are allowed; try again when some have run.",
    "unavailable": "Redis cannot be reached; nothing was lost, try again shortly.",
}
_MORE: dict[str, dict[str, Any]] = {
    code: {"errors": [{"param": param, "code": code, "detail": _DETAILS[code]}]}
    for code, param in {
        "invalid_parameter": "limit", "invalid_request_body": "webhok", "invalid_input": "inputs.question",
        "unknown_program": "program", "unknown_model": "model", "unknown_variant": "variant",
    }.items()
}  # fmt: skip
