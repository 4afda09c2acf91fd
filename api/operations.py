"""Every operation of the API as a table: what it takes, what it answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from api import samples
from api.batch_query import PARAMETERS
from api.reading import JSON, LARGEST_PAGE, NDJSON, TEXT
from dspy_jobs.costs import GROUPS, MOST_DAYS
from dspy_jobs.states import BatchStatus, JobStatus


@dataclass(frozen=True, slots=True)
class Answer:
    """A successful answer."""

    description: str
    schema: str = ""
    example: Any = None
    headers: tuple[str, ...] = ()
    media: str = JSON


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one address."""

    id: str
    tag: str
    summary: str
    answers: dict[int, Answer]
    errors: tuple[str, ...] = ("invalid_parameter", "unavailable")
    parameters: tuple[dict[str, Any], ...] = ()
    body: dict[str, Any] = field(default_factory=dict)


def _parameter(name: str, where: str, description: str, **schema: Any) -> dict[str, Any]:
    schema.setdefault("type", "string")
    return {
        "name": name,
        "in": where,
        "required": where == "path",
        "description": description,
        "schema": schema,
    }


def _query(name: str, description: str, **schema: Any) -> dict[str, Any]:
    return _parameter(name, "query", description, **schema)


def _body(schema: str, required: bool = True, **examples: Any) -> dict[str, Any]:
    shown = {name: {"value": value} for name, value in examples.items()}
    return {"required": required, "content": {JSON: {"schema": _ref(schema), "examples": shown}}}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


_PREFER = _parameter("Prefer", "header", "`wait=N` holds the line up to N seconds (1 to 60) until it has ended.")
_TRACE = _parameter("traceparent", "header", "W3C trace context, carried into the worker's spans.")
_NONE_MATCH = _parameter("If-None-Match", "header", "An `ETag`; 304 while nothing has changed.")
_JOB_ID = _parameter("job_id", "path", "The job's id.")
_BATCH_ID = _parameter("batch_id", "path", "The batch's id.")
_QUEUE_NAME = _parameter("name", "path", "The queue's name, as `GET /v1/queues` has it.")
_DRY_RUN = _query(
    "dry_run",
    "`true` only estimates the batch and stores nothing; `Idempotency-Key` is then ignored.",
    type="boolean",
    default=False,
)
_LIMIT = _query("limit", "Most entries in the answer.", type="integer", minimum=1, maximum=LARGEST_PAGE, default=20)
_AFTER = _query("after", "`next` of the page before.")

_READ = ("invalid_parameter", "not_found", "gone", "unavailable")
_CHANGE = (*_READ, "conflict")
_BODY = ("malformed_body", "payload_too_large", "unsupported_media_type", "invalid_request_body")
_SUBMIT = (
    "invalid_parameter", *_BODY, "invalid_input", "unknown_program", "unknown_model",
    "unknown_variant", "queue_full", "unavailable"
)  # fmt: skip
#: How a job itself can end, with the status `POST /v1/predict` gives it.
_JOB_FAILURES = (
    "invalid_request", "context_window_exceeded", "unsupported_feature", "rate_limit", "canceled", "expired", "timeout",
    "server", "transport", "auth", "billing", "unsupported_model", "not_configured", "configuration", "provider",
    "collection_limit", "stream_assembly", "lm_error", "adapter_parse_error", "lock_timeout", "unexpected",
    "worker_lost", "program_error", "call_budget_exceeded", "result_too_large", "invalid_output",
    "not_cached",
)  # fmt: skip

_ACCEPTED = ("Location", "Retry-After", "Preference-Applied")
_JOB_BODY = _body("JobSubmission", program=samples.SUBMISSION, short=samples.SHORT_SUBMISSION)
_ACCEPTED_JOB = Answer("Accepted.", "Job", samples.QUEUED_JOB, _ACCEPTED)


def _batch_fields() -> tuple[dict[str, Any], ...]:
    """The batch's own fields as query parameters of an NDJSON upload."""
    return tuple(
        _query(name, f"{description} NDJSON uploads only; not a word: as JSON.")
        for name, description in PARAMETERS.items()
    )


_BATCH_BODY = {
    "required": True,
    "content": {
        JSON: {"schema": _ref("BatchWithItems"), "examples": {"batch": {"value": samples.BATCH_SUBMISSION}}},
        NDJSON: {"schema": {"type": "string", "description": "One item a line."}, "example": samples.LINES},
    },
}

OPERATIONS: dict[tuple[str, str], Operation] = {
    ("POST", "/v1/jobs"): Operation(
        "submit_job", "jobs", "Submit a job", {202: _ACCEPTED_JOB}, _SUBMIT, (_PREFER, _TRACE), _JOB_BODY
    ),
    ("GET", "/v1/jobs/{job_id}"): Operation(
        "read_job", "jobs", "Read a job",
        {
            200: Answer("The job.", "Job", samples.ENDED_JOB, ("ETag", "Retry-After", "Preference-Applied")),
            304: Answer("Nothing has changed.", headers=("ETag", "Retry-After", "Preference-Applied")),
        },
        _READ, (_JOB_ID, _PREFER, _NONE_MATCH),
    ),
    ("GET", "/v1/jobs"): Operation(
        "list_jobs", "jobs", "List jobs, newest first", {200: Answer("A page.", "JobList", samples.JOBS)},
        parameters=(
            _query("status", "Only jobs in this state.", enum=[status.value for status in JobStatus]),
            _query("program", "Only jobs of this program."), _query("model", "Only jobs on this model."),
            _query("variant", "Only jobs of this variant."), _query("batch", "Only jobs of this batch."),
            _LIMIT, _AFTER,
        ),
    ),
    ("POST", "/v1/jobs/{job_id}/cancel"): Operation(
        "cancel_job", "jobs", "Cancel a job",
        {
            200: Answer("Canceled.", "Job", samples.CANCELED_JOB),
            202: Answer("It runs; its worker was asked to stop.", "Job", samples.RUNNING_JOB),
        },
        _CHANGE, (_JOB_ID,),
    ),
    ("POST", "/v1/jobs/{job_id}/retry"): Operation(
        "retry_job", "jobs", "Queue a job again", {202: _ACCEPTED_JOB}, _CHANGE, (_JOB_ID,)
    ),
    ("POST", "/v1/jobs/{job_id}/score"): Operation(
        "score_job", "jobs", "Give an ended job a score, to compare its program's variants by",
        {200: Answer("The score, which replaces one of the same name.", "Score", samples.SCORE)},
        (*_CHANGE, *_BODY), (_JOB_ID,), _body("ScoreSubmission", score={"name": "accuracy", "value": 0.9}),
    ),
    ("DELETE", "/v1/jobs/{job_id}"): Operation(
        "erase_job", "jobs", "Erase a job's inputs and outputs", {204: Answer("Erased.")}, _CHANGE, (_JOB_ID,)
    ),
    ("POST", "/v1/predict"): Operation(
        "predict", "jobs", "Submit a job and wait for its end",
        {
            200: Answer("The job has succeeded.", "Job", samples.ENDED_JOB, ("Preference-Applied",)),
            202: Answer("The wait ran out; the job goes on.", "Job", samples.QUEUED_JOB, _ACCEPTED),
        },
        (*_SUBMIT, *_JOB_FAILURES), (_PREFER, _TRACE), _JOB_BODY,
    ),
    ("POST", "/v1/batches"): Operation(
        "submit_batch", "batches", "Submit a batch, or estimate it",
        {
            200: Answer("With `dry_run=true`: what it would come to.", "BatchEstimate", samples.ESTIMATE),
            202: Answer("Accepted.", "Batch", samples.BATCH, _ACCEPTED),
        },
        _SUBMIT, (*_batch_fields(), _DRY_RUN, _PREFER, _TRACE), _BATCH_BODY,
    ),
    ("GET", "/v1/batches"): Operation(
        "list_batches", "batches", "List batches, newest first", {200: Answer("A page.", "BatchList", samples.BATCHES)},
        parameters=(
            _query("status", "Only batches in this state.", enum=[status.value for status in BatchStatus]),
            _LIMIT, _AFTER,
        ),
    ),
    ("GET", "/v1/batches/{batch_id}"): Operation(
        "read_batch", "batches", "Read a batch",
        {
            200: Answer("The batch.", "Batch", samples.BATCH, ("ETag", "Retry-After", "Preference-Applied")),
            304: Answer("Nothing has changed.", headers=("ETag", "Retry-After", "Preference-Applied")),
        },
        _READ, (_BATCH_ID, _PREFER, _NONE_MATCH),
    ),
    ("GET", "/v1/batches/{batch_id}/results"): Operation(
        "read_results", "batches", "Stream a batch's results, at any time",
        {
            200: Answer(
                "A `JobResult` a line.", "string", samples.RESULTS, ("X-Next-Cursor", "X-Incomplete"), NDJSON
            )
        },
        _CHANGE,
        (
            _BATCH_ID,
            _query("status", "Only jobs that ended so.", enum=[s.value for s in JobStatus if s.is_terminal]),
            _query("limit", "Most results in the answer; all by default.", type="integer", minimum=1, maximum=50_000),
            _query("after", "`X-Next-Cursor` of the answer before."),
            _query(
                "order", "`input` once the batch has ended.", enum=["completion", "input"], default="completion"
            ),
        ),
    ),
    ("POST", "/v1/batches/{batch_id}/cancel"): Operation(
        "cancel_batch", "batches", "Cancel a batch", {202: Answer("Canceling.", "Batch", samples.CANCELING_BATCH)},
        _CHANGE, (_BATCH_ID,),
    ),
    ("POST", "/v1/batches/{batch_id}/pause"): Operation(
        "pause_batch", "batches", "Pause a batch", {200: Answer("Paused.", "Batch", samples.PAUSED_BATCH)},
        _CHANGE, (_BATCH_ID,),
    ),
    ("POST", "/v1/batches/{batch_id}/resume"): Operation(
        "resume_batch", "batches", "Resume a batch, under other limits if any are given",
        {200: Answer("In progress.", "Batch", samples.BATCH)},
        (*_CHANGE, *_BODY), (_BATCH_ID,), _body("Resumption", required=False, raised=samples.RESUMPTION),
    ),
    ("POST", "/v1/batches/{batch_id}/retry"): Operation(
        "retry_batch", "batches", "Queue again what did not succeed",
        {202: Answer("Queued again.", "Requeued", {"requeued": 3})},
        (*_CHANGE, *_BODY), (_BATCH_ID,), _body("BatchRetry", required=False, failed=samples.RETRY),
    ),
    ("GET", "/v1/programs"): Operation(
        "list_programs", "service", "List programs",
        {200: Answer("Every described program.", "ProgramList", {"data": [samples.PROGRAM]})},
    ),
    ("GET", "/v1/programs/{name}"): Operation(
        "read_program", "service", "Read a program with its schemas",
        {200: Answer("The program.", "Program", samples.PROGRAM)},
        ("invalid_parameter", "not_found", "unavailable"), (_parameter("name", "path", "The program's name."),),
    ),
    ("GET", "/v1/programs/{name}/variants"): Operation(
        "list_variants", "service", "Compare the variants of a program",
        {200: Answer("Every variant with its numbers.", "VariantReports", {"data": samples.VARIANTS})},
        ("invalid_parameter", "not_found", "unavailable"),
        (
            _parameter("name", "path", "The program's name."),
            _query("scores", "Give all values of the scores too.", enum=["true", "false"], default="false"),
            _query("score", "Only scores of this name."),
        ),
    ),
    ("GET", "/v1/queues"): Operation(
        "list_queues", "service", "List queues", {200: Answer("Every queue.", "QueueList", {"data": [samples.QUEUE]})}
    ),
    ("POST", "/v1/queues/{name}/pause"): Operation(
        "pause_queue", "service", "Let no further job of a queue start",
        {200: Answer("Paused.", "Queue", samples.PAUSED_QUEUE)},
        ("invalid_parameter", "not_found", "unavailable"), (_QUEUE_NAME,),
    ),
    ("POST", "/v1/queues/{name}/resume"): Operation(
        "resume_queue", "service", "Let a paused queue's jobs run again",
        {200: Answer("Open, unless something else closes it.", "Queue", samples.QUEUE)},
        ("invalid_parameter", "not_found", "unavailable"), (_QUEUE_NAME,),
    ),
    ("GET", "/v1/autoscale"): Operation(
        "read_autoscale", "service", "How many workers' threads are needed: what KEDA and the autoscaler scale on",
        {200: Answer("The demand at this moment.", "Autoscale", samples.AUTOSCALE)},
    ),
    ("GET", "/metrics"): Operation(
        "read_metrics", "service", "Numbers for Prometheus",
        {200: Answer("In Prometheus's text format, or as `Accept` says.", "string", samples.METRICS, media=TEXT)},
        ("invalid_parameter",),
    ),
    ("GET", "/v1/limits"): Operation(
        "read_limits", "service", "Read the limits", {200: Answer("Every limit.", "Limits", samples.LIMITS)},
        ("invalid_parameter",),
    ),
    ("GET", "/v1/budgets"): Operation(
        "list_budgets", "service", "How much of each budget is left",
        {200: Answer("Every budget.", "BudgetList", samples.BUDGETS)},
    ),
    ("GET", "/costs"): Operation(
        "read_costs", "service", "What model calls have cost", {200: Answer("The sums.", "Costs", samples.COSTS)},
        parameters=(
            _query("from", "First day, in UTC; by default the first of the month of `to`.", format="date"),
            _query("to", f"Last day, included; today by default. {MOST_DAYS} days at most.", format="date"),
            _query("group_by", f"Some of `{', '.join(GROUPS)}`, joined by commas.", default="day"),
        ),
    ),
    ("GET", "/"): Operation(
        "read_root", "service", "Where to go from here",
        {200: Answer("Links.", "Root", {"name": "dspy-jobs", "version": "0.1.0", "links": {"docs": "/docs"}})},
        ("invalid_parameter",),
    ),
    ("GET", "/config"): Operation(
        "read_config", "service", "Read the configuration, without its secrets",
        {200: Answer("The configuration.", "object", {"default_model": "fast"})}, ("invalid_parameter",),
    ),
    ("GET", "/problems/{code}"): Operation(
        "read_problem", "service", "What a problem's code means",
        {
            200: Answer(
                "The code's meaning.", "ProblemCode",
                {"code": "queue_full", "title": "Too many jobs are queued", "status": 429, "retryable": True},
            )
        },
        ("invalid_parameter", "not_found"), (_parameter("code", "path", "A problem's code."),),
    ),
    ("GET", "/health"): Operation(
        "read_health", "health", "How every part of the service is, and what to do about it",
        {
            200: Answer("It is healthy, or degraded: some of it does not work as it should.", "Health", samples.HEALTH),
            503: Answer("It is unhealthy: jobs are not taken or run.", "Health", samples.UNHEALTHY, ("Retry-After",)),
        },
        ("invalid_parameter",),
    ),
    ("GET", "/health/live"): Operation(
        "read_live", "health", "Whether the process lives", {200: Answer("It does.", "Alive", samples.ALIVE)},
        ("invalid_parameter",),
    ),
    **{
        ("GET", path): Operation(
            name, "health", "Whether it can take jobs", {200: Answer("It can.", "Ready", samples.READY)}
        )
        for path, name in (("/health/ready", "read_health_ready"), ("/ready", "read_ready"))
    },
}  # fmt: skip
