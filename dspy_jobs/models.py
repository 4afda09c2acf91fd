"""What a client reads: jobs, batches, programs and queues as the HTTP contract shows them.

A member the service adds later is kept, as an attribute of the same name, so a client need not be updated for it.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from dspy_jobs.errors import JobCanceled, JobExpired, JobFailed
from dspy_jobs.problems import Problem
from dspy_jobs.states import BatchStatus, EndedReason, JobStatus, PauseReason, WaitReason


class _Read(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)


class Usage(_Read):
    """Tokens and model calls. `None` means unknown, which is not zero."""

    input_tokens: int | None = None
    cached_input_tokens: int | None = None
    """Of the input tokens, what the provider had in its cache."""
    output_tokens: int | None = None
    reasoning_tokens: int | None = None
    """Of the output tokens."""
    calls: int | None = None
    source: str | None = None


class Known(_Read):
    """What is known of an attempt that was cut short: the calls that were booked before."""

    usage: Usage
    cost_usd: float | None = None


class Attempt(_Read):
    """One try of a job."""

    number: int
    model: str | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    calls: int | None = None
    """Model calls that were paid for."""
    replayed: int = 0
    """Model calls answered from what an earlier attempt had paid for."""
    usage: Usage | None = None
    cost_usd: float | None = None
    at_least: Known | None = None
    """What it used before its worker was lost, as far as is known."""
    error: Problem | None = None


class Job(_Read):
    """One request to run one program once."""

    id: str
    status: JobStatus
    program: str
    program_version: str | None = None
    model: str | None = None
    variant: str | None = None
    client: str | None = None
    batch_id: str | None = None
    custom_id: str | None = None
    request_id: str | None = None
    attempt: int | None = None
    attempts: list[Attempt] = Field(default_factory=list)
    wait_reason: WaitReason | None = None
    until: datetime | None = None
    """When the reason to wait ends, where that is known."""
    behind: int | None = None
    """Jobs that go before it."""
    output: dict[str, Any] | None = None
    error: Problem | None = None
    cache: str | None = None
    cache_key: str | None = None
    cache_age_seconds: float | None = None
    saved_usd: float | None = None
    usage: Usage | None = None
    cost_usd: float | None = None
    created_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    expires_at: datetime | None = None
    metadata: dict[str, Any] | None = None
    scores: dict[str, float] = Field(default_factory=dict)

    @property
    def is_done(self) -> bool:
        """Whether it has ended; it then changes only by an explicit retry or deletion."""
        return self.status.is_terminal

    def result(self) -> dict[str, Any]:
        """The output's typed fields.

        Raises:
            JobFailed: it ended without an output (`JobCanceled`, `JobExpired` where it was that) or has not ended.
        """
        if self.output is not None:
            return self.output
        kind = {JobStatus.CANCELED: JobCanceled, JobStatus.EXPIRED: JobExpired}.get(self.status, JobFailed)
        raise kind(f"{self.error.code}: {self.error.detail}" if self.error else f"{self.id} is {self.status}")


class Counts(_Read):
    """A batch's jobs by status; the six states always sum to `total`. `cached` were answered from the cache."""

    total: int
    queued: int = 0
    running: int = 0
    succeeded: int = 0
    failed: int = 0
    canceled: int = 0
    expired: int = 0
    cached: int = 0

    @property
    def done(self) -> int:
        """Jobs that have ended."""
        return self.succeeded + self.failed + self.canceled + self.expired


class CacheCounts(_Read):
    """How the succeeded jobs of a batch came by their answers."""

    hit: int = 0
    miss: int = 0
    coalesced: int = 0
    bypass: int = 0


class BatchLimits(_Read):
    """What pauses a batch."""

    max_cost_usd: float | None = None
    max_error_rate: float | None = None
    min_items: int | None = None


class Pause(_Read):
    """By what a batch is paused, since when, and what lets it go on."""

    reason: str
    detail: str | None = None
    at: datetime | None = None


class Batch(_Read):
    """Many jobs submitted and followed together."""

    id: str
    status: BatchStatus
    counts: Counts
    ended_reason: EndedReason | None = None
    program: str | None = None
    model: str | None = None
    client: str | None = None
    usage: Usage | None = None
    cost_usd: float | None = None
    cache: CacheCounts | None = None
    saved_usd: float | None = None
    limits: BatchLimits | None = None
    pause: Pause | None = None
    eta_seconds: float | None = None
    wait_reason: WaitReason | None = None
    until: datetime | None = None
    """When the reason to wait ends, where that is known."""
    created_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    expires_at: datetime | None = None
    metadata: dict[str, Any] | None = None

    @property
    def is_done(self) -> bool:
        """Whether all its jobs have ended."""
        return self.status is BatchStatus.ENDED

    @property
    def is_stopped(self) -> bool:
        """Whether one of its limits has paused it, so that it ends only once somebody resumes it."""
        return self.status is BatchStatus.PAUSED and not (
            self.pause is None or self.pause.reason == PauseReason.OPERATOR
        )


class CostRange(_Read):
    """US dollars; `None` where a price is not known."""

    low: float | None = None
    high: float | None = None


class BatchEstimate(_Read):
    """What a batch would come to. Estimates are of the jobs that would run: neither `cached` nor `repeated`."""

    program: str | None = None
    model: str | None = None
    valid: int
    invalid: int
    cached: int | None = None
    """`None` where the cache could not be asked."""
    repeated: int = 0
    est_input_tokens: int | None = None
    est_output_tokens: int | None = None
    est_cost_usd: CostRange = CostRange()
    est_seconds: float | None = None
    error_count: int = 0
    errors: list[dict[str, Any]] = Field(default_factory=list)
    """The first mistakes: `line`, `custom_id`, `param`, `code`, `detail`."""
    notes: list[str] = Field(default_factory=list)


class ResultPage(_Read):
    """A stretch of a batch's results."""

    jobs: list[Job]
    next: str | None
    """Cursor to read on from, also later; None where there is nothing to read on from."""
    incomplete: bool
    """Whether more results will come."""


class Variant(_Read):
    """One arm of a program's A/B split."""

    weight: float | None = None
    model: str | None = None
    version: str | None = None
    version_name: str | None = None


class RunTimes(_Read):
    """Seconds that the last attempts of jobs ran; None where none has run."""

    mean_seconds: float | None = None
    p50_seconds: float | None = None
    p95_seconds: float | None = None


class ScoreSummary(_Read):
    """Scores of one name."""

    n: int
    mean: float | None = None
    values: list[float] = Field(default_factory=list)
    """All of them, if they were asked for."""


class VariantReport(Variant):
    """A variant and what became of its jobs."""

    name: str
    jobs: int = 0
    """Jobs that succeeded or failed."""
    failed: int = 0
    error_rate: float | None = None
    cached: int = 0
    cost_usd: float | None = None
    cost_per_job: float | None = None
    """Of the jobs that ran, without those that are cached."""
    latency: RunTimes = Field(default_factory=RunTimes)
    scores: dict[str, ScoreSummary] = Field(default_factory=dict)


class Score(_Read):
    """A number a caller gave an ended job."""

    job_id: str
    name: str
    value: float
    program: str | None = None
    variant: str | None = None


class Program(_Read):
    """A program the operator configured."""

    name: str
    version: str | None = None
    version_name: str | None = None
    """The configuration's name of the version that runs."""
    model: str | None = None
    description: str | None = None
    versions: dict[str, str] = Field(default_factory=dict)
    variants: dict[str, Variant] = Field(default_factory=dict)
    input_schema: dict[str, Any] | None = None
    output_schema: dict[str, Any] | None = None


class Gate(_Read):
    """Whether a queue's jobs may start."""

    open: bool
    reason: str | None = None
    until: datetime | None = None


class Queue(_Read):
    """The queue of one model."""

    name: str
    model: str | None = None
    queued: int = 0
    running: int = 0
    oldest_wait_seconds: float | None = None
    gate: Gate | None = None
    workers: int | list[Any] | None = None


class QueueDemand(_Read):
    """What one queue asks for."""

    work_slots: float = 0
    waiting: int = 0
    """Jobs that could run now if there were slots."""
    inflight: int = 0
    queued: int = 0
    oldest_wait_seconds: float = 0
    service_seconds: float | None = None
    max_concurrent: int | None = None
    gate: Gate | None = None


class Autoscale(_Read):
    """How many call slots the outstanding jobs need: what the fleet is scaled on. Counts are of jobs."""

    work: float
    """Slots with headroom; divided by `concurrency`, the number of workers."""
    work_slots: float = 0
    waiting: int = 0
    """Jobs that could run now if there were slots."""
    inflight: int = 0
    draining: int = 0
    """Jobs that draining workers run to their end; they count as neither."""
    oldest_wait_seconds: float = 0
    service_seconds: float | None = None
    """Mean run time of the waiting jobs; None while it is not known."""
    concurrency: int | None = None
    """Jobs one worker runs at once."""
    queues: dict[str, QueueDemand] = Field(default_factory=dict)


class CostFigures(_Read):
    """Sums over calls and ended jobs. What is unknown adds nothing to them and is counted beside them."""

    day: date | None = None
    model: str | None = None
    variant: str | None = None
    program: str | None = None
    client: str | None = None
    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    reasoning_tokens: int = 0
    cost_usd: float = 0
    cost_nanos: int = 0
    """What is known of the cost, exact."""
    unpriced_calls: int = 0
    estimated_calls: int = 0
    untokened_calls: int = 0
    jobs: int = 0
    failed: int = 0
    cached: int = 0
    saved_usd: float = 0
    saved_nanos: int = 0
    unsaved_jobs: int = 0
    """Cached jobs of which it is not known what they saved."""
    lost_attempts: int = 0
    complete: bool = True
    """Whether the cost of every call is known; else `cost_nanos` is the known part."""


class Costs(_Read):
    """What model calls have cost, by groups and in all."""

    model_config = ConfigDict(serialize_by_alias=True)

    first: date = Field(alias="from")
    last: date = Field(alias="to")
    group_by: list[str]
    data: list[CostFigures]
    total: CostFigures
    complete: bool
    """Whether the cost of every call is known."""


class Budget(_Read):
    """What may be spent in a day or month (UTC), and what is. `None` as the client means all together."""

    client: str | None
    period: str
    limit_usd: float | None = None
    spent_usd: float = 0
    left_usd: float | None = None
    exhausted: bool = False
    """Whether jobs wait for it."""
    resets_at: datetime | None = None


class Component(_Read):
    """How a part of the service is."""

    status: str
    """`healthy`, `degraded`, `unhealthy`, or `unknown` where only Redis could tell and does not answer."""
    detail: str | None = None
    """What is wrong and what to do."""
    as_of: datetime | None = None
    """From when the numbers are, if not from now."""


class RedisHealth(Component):
    """A Redis server."""

    latency_ms: float | None = None
    version: str | None = None
    used_memory_bytes: int | None = None
    max_memory_bytes: int | None = None
    max_memory_policy: str | None = None


class CacheHealth(RedisHealth):
    """The response cache."""

    enabled: bool = True
    shares_redis: bool | None = None
    """Whether it is in the same server as the jobs."""


class ProgramsHealth(Component):
    """What can be run."""

    described: int | None = None


class ProgramFailures(_Read):
    """Jobs of a program on a model that have ended lately."""

    program: str
    model: str
    ended: int = 0
    failed: int = 0
    codes: dict[str, int] = Field(default_factory=dict)
    """Failed jobs of the model, whatever their program."""
    failing: bool = False
    """Whether so many failed that it is no chance."""


class FailuresHealth(Component):
    """Programs of which jobs have failed lately, those that fail most first."""

    window_seconds: float | None = None
    """How far is looked back."""
    programs: list[ProgramFailures] = Field(default_factory=list)


class WorkerHealth(_Read):
    """A live worker."""

    id: str
    host: str = ""
    heartbeat_age_seconds: float | None = None
    """Since it last renewed its lease."""
    running: int = 0
    held: int = 0
    """Jobs it runs or is about to run."""
    concurrency: int = 0
    draining: bool = False
    consuming: bool = True
    """Whether it asks for messages."""
    stuck_threads: int = 0
    version: str | None = None
    config: str | None = None
    """Digest of the configuration it runs."""
    metrics_port: int | None = None


class GoneWorker(_Read):
    """A worker that ended, or hangs, without notice."""

    id: str
    host: str = ""
    pid: int = 0
    heard_at: datetime | None = None


class WorkersHealth(Component):
    """The workers; the first hundred one by one."""

    live: int | None = None
    draining: int | None = None
    lost: int | None = None
    """Workers not heard of any more whose jobs are not queued again yet."""
    workers: list[WorkerHealth] = Field(default_factory=list)
    gone: list[GoneWorker] = Field(default_factory=list)
    """Workers that ended without notice in the last ten minutes, the last one first."""


class QueuesHealth(Component):
    """The queues."""

    queues: list[Queue] = Field(default_factory=list)


class CircuitsHealth(Component):
    """The circuit breakers by model: `closed`, `half_open` or `open`."""

    models: dict[str, str] = Field(default_factory=dict)


class BudgetHealth(_Read):
    """The budget over all clients (`scope` is `all`), or of clients' own budgets the fullest."""

    scope: str
    period: str
    limit_usd: float = 0
    spent_usd: float = 0
    exhausted: bool = False
    resets_at: datetime | None = None


class BudgetsHealth(Component):
    """The budgets."""

    clients_exhausted: int | None = None
    budgets: list[BudgetHealth] = Field(default_factory=list)


class DiskHealth(Component):
    """Where the embedded Redis keeps its data."""

    free_bytes: int | None = None
    total_bytes: int | None = None
    data_bytes: int | None = None


class Components(_Read):
    """Every part of the service; what causes trouble elsewhere stands before what it causes."""

    redis: RedisHealth
    disk: DiskHealth | None = None
    """Only with an embedded Redis."""
    cache: CacheHealth
    programs: ProgramsHealth
    budgets: BudgetsHealth
    circuits: CircuitsHealth
    workers: WorkersHealth
    failures: FailuresHealth = FailuresHealth(status="healthy")
    queues: QueuesHealth

    def by_name(self) -> dict[str, Component]:
        """Those there are."""
        found = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: component for name, component in found.items() if component is not None}


class Health(_Read):
    """How the service is, and what to do about it."""

    status: str
    """The worst of its components': `healthy`, `degraded` or `unhealthy`."""
    version: str
    checked_at: datetime
    problems: list[str] = Field(default_factory=list)
    components: Components
