"""What answers look like, for the OpenAPI document. The answers themselves are built as bytes, without these models."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from dspy_jobs.states import BatchStatus, CircuitState, EndedReason, JobStatus, PauseReason, WaitReason


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Mistake(BaseModel):
    """One thing that is wrong with a request."""

    param: str | None = Field(None, description="Path of the field or name of the query parameter.")
    code: str
    detail: str
    line: int | None = Field(None, description="Line of an upload, or number of an item, from 1.")
    custom_id: str | None = None


class Problem(BaseModel):
    """An error (RFC 9457)."""

    type: str = Field(description="Address of the problem's description.")
    title: str
    status: int
    detail: str
    instance: str
    code: str = Field(description="Stable; branch on this.")
    retryable: bool = Field(description="Whether the same request may succeed later.")
    request_id: str | None
    errors: list[Mistake] | None = Field(None, description="The first 100 mistakes of the request.")
    error_count: int | None = Field(None, description="All mistakes of an upload.")
    job_id: str | None = Field(None, description="The job that failed, of `POST /v1/predict`.")


class AttemptError(BaseModel):
    """Why an attempt failed."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    retryable: bool


class Usage(_Answer):
    """Tokens and calls; null where unknown."""

    input_tokens: int | None
    cached_input_tokens: int | None = Field(description="Of the input tokens, what the provider had in its cache.")
    output_tokens: int | None
    reasoning_tokens: int | None = Field(description="Of the output tokens.")
    calls: int | None
    source: Literal["provider", "estimated"] | None = Field(description="`estimated`: some tokens were counted here.")


class Known(_Answer):
    """What is known of an attempt that was cut short: the calls that were booked before."""

    usage: Usage
    cost_usd: float | None


class Attempt(_Answer):
    """One try of a job."""

    number: int
    model: str
    started_at: datetime
    ended_at: datetime | None = Field(description="Null while it runs.")
    calls: int | None = Field(description="Model calls that were paid for; null while it runs and where unknown.")
    replayed: int = Field(description="Model calls answered from what an earlier attempt had paid for.")
    usage: Usage | None = Field(description="Null while it runs and where unknown.")
    cost_usd: float | None = Field(description="Null while it runs and where unknown.")
    at_least: Known | None = Field(None, description="What it used before its worker was lost, as far as is known.")
    error: AttemptError | None = None


class JobUrls(_Answer):
    """Where to go on with a job."""

    get: str
    cancel: str
    retry: str


class JobResult(_Answer):
    """A job as a line of a batch's results."""

    id: str
    object: Literal["job"]
    status: JobStatus
    program: str
    program_version: str | None
    model: str
    variant: str | None
    client: str | None = Field(description="Whose it is, as `api.client_header` said; null where it did not.")
    batch_id: str | None
    custom_id: str | None
    request_id: str | None
    attempt: int = Field(description="Number of the last attempt; 0 before the first.")
    attempts: list[Attempt]
    wait_reason: WaitReason | None = None
    until: datetime | None = Field(None, description="When the reason to wait ends, where that is known.")
    behind: int | None = Field(None, description="Jobs that go before it.")
    output: dict[str, Any] | None = Field(None, description="The program's output fields.")
    error: Problem | None = None
    cache: Literal["hit", "miss", "coalesced", "bypass"] | None = Field(
        description="Whether the answer was stored, run for it, another job's at the same moment, or past the cache."
    )
    cache_key: str | None = Field(description="What its answer is stored under; null where the cache had no part.")
    cache_age_seconds: float | None = Field(description="How old the stored answer was when it was taken.")
    saved_usd: float | None = Field(
        description="What running for the stored answer had cost; null where it was not stored, and where unknown."
    )
    usage: Usage | None = Field(description="Null until the job has ended.")
    cost_usd: float | None = Field(description="Of all attempts; null until the job has ended and where unknown.")
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    expires_at: datetime | None = Field(description="By when it must start; null once it has.")
    metadata: dict[str, str | float | bool | None] | None
    scores: dict[str, float] | None = Field(None, description="What callers gave it, by name.")


class Score(_Answer):
    """A number a caller gave an ended job, for comparing the variants of its program."""

    object: Literal["score"]
    job_id: str
    program: str
    variant: str | None
    name: str
    value: float


class Job(JobResult):
    """One request to run one program once."""

    urls: JobUrls


class JobList(_Answer):
    """A page of jobs, newest first."""

    data: list[Job]
    has_more: bool
    next: str | None = Field(description="`after` of the next page.")


class Counts(_Answer):
    """Jobs of a batch by status; all but `cached` add up to `total`."""

    total: int
    queued: int
    running: int
    succeeded: int
    failed: int
    canceled: int
    expired: int
    cached: int


class CacheCounts(_Answer):
    """How the succeeded jobs of a batch came by their answers."""

    hit: int
    miss: int
    coalesced: int
    bypass: int


class BatchLimits(_Answer):
    """What pauses the batch."""

    max_cost_usd: float | None
    max_error_rate: float | None
    min_items: int


class Pause(_Answer):
    """By what the batch is paused."""

    reason: PauseReason
    detail: str = Field(description="What was reached and what lets it go on.")
    at: datetime | None


class BatchUsage(_Answer):
    """Tokens and calls of a batch so far; tokens are null where those of a call are unknown."""

    input_tokens: int | None
    output_tokens: int | None
    calls: int


class BatchUrls(_Answer):
    """Where to go on with a batch."""

    get: str
    results: str
    cancel: str
    pause: str
    resume: str
    retry: str


class Batch(_Answer):
    """Many jobs followed together."""

    id: str
    object: Literal["batch"]
    status: BatchStatus
    ended_reason: EndedReason | None = None
    program: str
    program_version: str | None
    model: str
    client: str | None = Field(description="Whose it is, as `api.client_header` said; null where it did not.")
    counts: Counts
    usage: BatchUsage
    cost_usd: float | None = Field(description="So far; null where a price is unknown.")
    cache: CacheCounts
    saved_usd: float | None = Field(description="What stored answers had cost; null where that of one is unknown.")
    limits: BatchLimits | None
    created_at: datetime
    ended_at: datetime | None
    expires_at: datetime | None = Field(description="By when its jobs must have started; null once it has ended.")
    eta_seconds: float | None = Field(description="At its mean pace so far; null while there is none.")
    wait_reason: WaitReason | None = None
    until: datetime | None = Field(None, description="When the reason to wait ends, where that is known.")
    pause: Pause | None = None
    metadata: dict[str, str | float | bool | None] | None
    request_id: str | None
    urls: BatchUrls


class BatchList(_Answer):
    """A page of batches, newest first."""

    data: list[Batch]
    has_more: bool
    next: str | None = Field(description="`after` of the next page.")


class CostRange(_Answer):
    """US dollars; null where a price is not known."""

    low: float | None
    high: float | None


class BatchEstimate(_Answer):
    """What a batch would come to."""

    object: Literal["batch_estimate"]
    program: str
    model: str
    valid: int = Field(description="Items that are right.")
    invalid: int = Field(description="Items and lines with a mistake; a batch with one is refused.")
    cached: int | None = Field(description="Right items with a stored answer; null where the cache could not be asked.")
    repeated: int = Field(description="Right items equal to an earlier one, whose run they will share.")
    est_input_tokens: int = Field(description="Of the jobs that would run; so are the other estimates.")
    est_output_tokens: int
    est_cost_usd: CostRange
    est_seconds: float | None = Field(
        description="With the present workers, after the jobs queued before; null where it cannot be told."
    )
    error_count: int = Field(description="All mistakes.")
    errors: list[Mistake] = Field(description="The first 100 mistakes, by line.")
    notes: list[str] = Field(description="What the numbers rest on where that is little.")


class Requeued(_Answer):
    """How many jobs were queued again."""

    requeued: int


class Variant(_Answer):
    """One arm of a program's A/B split."""

    weight: float = Field(description="Share of the jobs, relative to the other variants' weights.")
    model: str = Field(description="Model used when a submission names none.")
    version: str = Field(description="As the program's, of what this variant runs.")
    version_name: str | None = Field(description="The configuration's name of that version.")


class Program(_Answer):
    """A DSPy program with a name."""

    object: Literal["program"]
    name: str
    version: str = Field(description="Changes with whatever decides what the program does.")
    version_name: str | None = Field(
        description="The configuration's name of the version that runs; null without versions."
    )
    model: str = Field(description="Model used when a submission names none.")
    description: str | None
    versions: dict[str, str] = Field(description="Compiled versions by the configuration's name, as far as in use.")
    variants: dict[str, Variant]
    input_schema: dict[str, Any]
    output_schema: dict[str, Any]


class RunTimes(_Answer):
    """Seconds that the last attempts of jobs ran; the quantiles are told to 2 %. Null where none has run."""

    mean_seconds: float | None
    p50_seconds: float | None
    p95_seconds: float | None


class ScoreSummary(_Answer):
    """Scores of one name."""

    n: int
    mean: float
    values: list[float] | None = Field(None, description="All of them, with `scores=true`.")


class VariantReport(Variant):
    """A variant, and what became of its jobs: all that ended, however they got to it."""

    object: Literal["variant"]
    name: str
    jobs: int = Field(description="Jobs that succeeded or failed.")
    failed: int
    error_rate: float | None = Field(description="Failed jobs of all; null where none has ended.")
    cached: int = Field(description="Jobs whose output was made before: by the cache, or by a job like it.")
    cost_usd: float | None = Field(description="Of all calls, also of failed attempts; null where a part is unknown.")
    cost_per_job: float | None = Field(
        description="`cost_usd` divided by the jobs that ran, without those that are `cached`; null where none did."
    )
    latency: RunTimes
    scores: dict[str, ScoreSummary]


class VariantReports(_Answer):
    """The variants of a program, by name."""

    data: list[VariantReport]


class ProgramList(_Answer):
    """Every program a worker has described."""

    data: list[Program]


class Gate(_Answer):
    """Whether a queue's jobs may start."""

    open: bool
    reason: WaitReason | None
    until: datetime | None


class Queue(_Answer):
    """The queue of a model."""

    object: Literal["queue"]
    name: str
    model: str
    queued: int
    running: int
    oldest_wait_seconds: float | None
    gate: Gate
    workers: int = Field(description="Live worker processes that consume it.")


class QueueList(_Answer):
    """Every queue."""

    data: list[Queue]


class CostFigures(_Answer):
    """Sums over calls and ended jobs. What is unknown adds nothing to them and is counted beside them."""

    calls: int = Field(description="Model calls that were answered.")
    input_tokens: int
    output_tokens: int
    cached_input_tokens: int = Field(description="Of the input tokens, those the provider had cached.")
    reasoning_tokens: int = Field(description="Of the output tokens, those spent on reasoning.")
    cost_nanos: int = Field(description="What is known of the cost, in nano-dollars.")
    cost_usd: float = Field(description="The same in US dollars.")
    unpriced_calls: int = Field(description="Calls whose cost is not known.")
    estimated_calls: int = Field(description="Calls whose tokens were counted here, for the provider did not say.")
    untokened_calls: int = Field(description="Calls whose tokens are not known.")
    jobs: int = Field(description="Jobs that have ended.")
    failed: int = Field(description="Of these, failed.")
    cached: int = Field(description="Of these, answered from the cache or by an equal job's run.")
    saved_nanos: int = Field(description="What the cached jobs' answers had cost, in nano-dollars.")
    saved_usd: float = Field(description="The same in US dollars.")
    unsaved_jobs: int = Field(description="Cached jobs of which it is not known what they saved.")
    lost_attempts: int = Field(description="Attempts cut short by a lost worker, which may have made calls unheard of.")
    complete: bool = Field(description="Whether the cost of every call is known; else `cost_usd` is the known part.")


class CostRow(CostFigures):
    """The sums of one group; it has the members it was asked to be grouped by."""

    day: date | None = None
    model: str | None = None
    variant: str | None = Field(None, description="Null: no variant.")
    program: str | None = None
    client: str | None = Field(None, description="`default`: without a name.")


class Costs(_Answer):
    """What model calls have cost."""

    from_: date = Field(alias="from", description="First day, in UTC.")
    to: date = Field(description="Last day, included.")
    group_by: list[Literal["day", "model", "variant", "program", "client"]]
    data: list[CostRow]
    total: CostFigures
    complete: bool = Field(
        description="Whether all is known: no unpriced calls, no lost attempts, no day whose books are over."
    )


class Budget(_Answer):
    """What may be spent in a day or month, and what is."""

    client: str | None = Field(description="Null: all clients together.")
    period: Literal["day", "month"]
    limit_usd: float | None = Field(description="Null: there is no limit.")
    spent_usd: float
    left_usd: float | None
    exhausted: bool = Field(description="Whether jobs wait for it.")
    resets_at: datetime = Field(description="When the day or month is over.")


class BudgetList(_Answer):
    """Every budget."""

    data: list[Budget]


class QueueDemand(_Answer):
    """What one queue asks for."""

    work_slots: float = Field(description="Call slots its jobs need; never more than may run at once.")
    waiting: int = Field(description="Jobs that could run now if there were slots; 0 behind a closed gate.")
    inflight: int = Field(description="Running jobs, of draining workers too.")
    queued: int = Field(description="All queued jobs, whatever they wait for.")
    oldest_wait_seconds: float = Field(description="0 where none waits.")
    service_seconds: float | None = Field(description="Mean run time; null while too few jobs have succeeded.")
    max_concurrent: int | None = Field(description="Jobs that may run at once; null: any number.")
    gate: Gate


class Autoscale(_Answer):
    """How many call slots the outstanding jobs need. Counts are of jobs."""

    work: float = Field(
        description="`work_slots` with headroom: the metric, whose target is a worker's `concurrency`. 0 only if "
        "nothing waits that could run, and nothing runs."
    )
    work_slots: float
    waiting: int = Field(description="Jobs that could run now if there were slots.")
    inflight: int = Field(description="Running jobs, without those of draining workers.")
    draining: int = Field(description="Jobs that draining workers run to their end.")
    oldest_wait_seconds: float = Field(description="Of the jobs that could run; 0 where none waits.")
    service_seconds: float | None = Field(description="Mean run time of the waiting jobs; null while unknown.")
    concurrency: int = Field(description="Jobs one worker runs at once, as configured.")
    queues: dict[str, QueueDemand] = Field(description="By the queue's name.")


class Limits(BaseModel):
    """Every limit, as configured."""

    items_per_batch: int
    batch_bytes: int
    item_bytes: int
    result_bytes: int
    wait_seconds: int
    queued_jobs: int
    timeout_seconds: float
    max_timeout_seconds: float
    expires_in_seconds: float
    max_attempts: int
    retention_seconds: float
    tombstone_seconds: float
    idempotency_seconds: float


class Alive(_Answer):
    """The process runs."""

    status: Literal["ok"]
    version: str


class Ready(Alive):
    """The process can take jobs."""

    redis: Literal["ok"]
    programs: int = Field(description="Programs that workers have described.")


HealthStatus = Literal["healthy", "degraded", "unhealthy", "unknown"]


class Component(_Answer):
    """How a part of the service is."""

    status: HealthStatus = Field(description="`unknown`: only Redis could tell, and does not answer.")
    detail: str | None = Field(None, description="What is wrong and what to do; absent where nothing is.")
    as_of: datetime | None = Field(None, description="From when the numbers are, if not from now.")


class RedisServer(Component):
    """A Redis server; its numbers are absent while it has never answered."""

    latency_ms: float | None = Field(None, description="Of one command just now; null if it did not answer.")
    version: str | None = None
    used_memory_bytes: int | None = None
    max_memory_bytes: int | None = Field(None, description="Null: no limit.")
    max_memory_policy: str | None = None


class CacheHealth(RedisServer):
    """The response cache."""

    enabled: bool
    shares_redis: bool | None = Field(None, description="Whether it is in the same server as the jobs.")


class ProgramsHealth(Component):
    """What can be run."""

    described: int | None


class ProgramFailures(_Answer):
    """Jobs of a program on a model that have ended lately."""

    program: str
    model: str
    ended: int
    failed: int
    codes: dict[str, int] = Field(description="Failed jobs of the model, whatever their program, by code.")
    failing: bool = Field(description="Whether so many failed that it is no chance.")


class FailuresHealth(Component):
    """Programs of which jobs have failed lately, those that fail most first."""

    window_seconds: float | None = Field(description="How far is looked back; 600 once the process has run so long.")
    programs: list[ProgramFailures]


class WorkerHealth(_Answer):
    """A live worker."""

    id: str
    host: str
    heartbeat_age_seconds: float | None = Field(description="Since it last renewed its lease.")
    running: int
    held: int = Field(description="Jobs it runs or is about to run.")
    concurrency: int
    draining: bool
    consuming: bool = Field(description="Whether it asks for messages.")
    stuck_threads: int = Field(description="Threads it gave up with programs that never return.")
    version: str | None
    config: str | None = Field(description="Digest of the configuration it runs.")
    metrics_port: int | None = Field(None, description="Port of its own metrics, if it serves any.")


class GoneWorker(_Answer):
    """A worker that ended, or hangs, without notice."""

    id: str
    host: str
    pid: int
    heard_at: datetime


class WorkersHealth(Component):
    """The workers."""

    live: int | None
    draining: int | None = Field(description="Of the live ones, those that end what they run and then stop.")
    lost: int | None = Field(description="Workers not heard of any more whose jobs are not queued again yet.")
    workers: list[WorkerHealth] = Field(description="The first 100 live ones.")
    gone: list[GoneWorker] = Field(description="Ended without notice in the last ten minutes, the last one first.")


class QueueHealth(_Answer):
    """A queue as it is."""

    name: str
    queued: int
    running: int
    oldest_wait_seconds: float | None
    workers: int = Field(description="Live workers that take jobs from it.")
    gate: Gate


class QueuesHealth(Component):
    """The queues."""

    queues: list[QueueHealth]


class CircuitsHealth(Component):
    """The circuit breakers."""

    models: dict[str, CircuitState]


class BudgetHealth(_Answer):
    """The budget over all clients, or of clients' own budgets the fullest."""

    scope: Literal["all", "client"]
    period: Literal["day", "month"]
    limit_usd: float
    spent_usd: float
    exhausted: bool
    resets_at: datetime


class BudgetsHealth(Component):
    """The budgets."""

    clients_exhausted: int | None = Field(description="Clients that have used up their own budgets.")
    budgets: list[BudgetHealth]


class DiskHealth(Component):
    """Where the embedded Redis keeps its data."""

    free_bytes: int | None = None
    total_bytes: int | None = None
    data_bytes: int | None = Field(None, description="What Redis keeps there.")


class Components(_Answer):
    """Every part of the service."""

    redis: RedisServer
    cache: CacheHealth
    programs: ProgramsHealth
    failures: FailuresHealth
    workers: WorkersHealth
    queues: QueuesHealth
    circuits: CircuitsHealth
    budgets: BudgetsHealth
    disk: DiskHealth | None = Field(None, description="Only with an embedded Redis.")


class Health(_Answer):
    """How the service is."""

    status: Literal["healthy", "degraded", "unhealthy"] = Field(description="The worst of its components'.")
    version: str
    checked_at: datetime
    problems: list[str] = Field(description="What is wrong, and what to do: the components' details.")
    components: Components


class Root(_Answer):
    """Where to go from here."""

    name: str
    version: str
    links: dict[str, str]


class ProblemCode(_Answer):
    """What a problem's code means."""

    code: str
    title: str
    status: int
    retryable: bool
