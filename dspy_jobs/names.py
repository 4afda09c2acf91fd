"""Every name that two processes share: the task, the queues, the channels and all Redis keys, with type and lifetime.

`{job}` and `{batch}` are whole ids (`job_…`, `batch_…`). The Lua scripts build the same keys in `scripts/_schema.lua`;
a test holds the two against each other.

| key | type | holds | lifetime |
|---|---|---|---|
| dj:{job} | hash | the job's state and numbers, small | retention + tombstone, set when it ends |
| dj:{job}:request | string | what the caller gave: inputs, custom_id, metadata (JSON) | retention, set when it ends |
| dj:{job}:attempts | list | attempts that did not end the job (JSON each) | retention, set when it ends |
| dj:{job}:journal | list | answered model calls for its next attempt to replay | gone with success, else retention |
| celery-task-meta-{job} | string | the outcome, in Celery's result format plus usage, cost and problem | retention |
| dj:{batch} | hash | state, counts, usage, cost | retention + tombstone, set when it ends |
| dj:{batch}:request | string | what all its jobs share (JSON) | retention, set when it ends |
| dj:{batch}:jobs | list | its job ids in input order | retention, set when it ends |
| dj:{batch}:results | list | its job ids in order of completion | retention, set when it ends |
| dj:{batch}:parked | list | jobs met by a worker while the batch was paused | until the batch ends |
| dj:jobs, dj:batches | zset | every id, score 0, so in order of age | permanent, trimmed by age |
| dj:staging | zset | uploads not yet committed, by time | permanent, emptied |
| dj:releasing, dj:canceling | set | batches with work left for the housekeepers | permanent, emptied |
| dj:paused_batches | set | batches that are paused | permanent, emptied |
| dj:expiring | zset | single jobs and batches by the time their start is due | permanent, emptied |
| dj:delayed | zset | jobs waiting for a retry, by due time | permanent, emptied |
| dj:queue:{queue} | hash | numbers of queued, taken and running jobs; of a run the mean time and cost | permanent |
| dj:queue:{queue}:waiting:{step} | zset | jobs with a message under way, by the time it was sent | permanent, emptied |
| dj:queue:{queue}:gates | hash | why it is closed: reason to the end (ms) or 0 | permanent, small |
| dj:circuit:{model} | hash | its circuit breaker while it is open | a day |
| dj:circuit:{model}:calls | hash | its calls in ten slices of the window | the window |
| dj:circuit:{model}:probe | string | the job that may call it while it is half-open | a call's timeout |
| dj:queue:{queue}:workers | zset | live workers that consume it, by the end of their lease | permanent, trimmed |
| dj:flight:{key} | string | the job that makes the answer of a cache key | while it runs, then 30 s |
| dj:flight:{key}:followers | list | jobs that wait for that answer | emptied |
| dj:landing | hash | flights that are over with followers not yet sent: key to the leader or '' | permanent, emptied |
| dj:waiting_clients | set | clients with jobs that wait for their budget | permanent, emptied |
| dj:client:{client}:parked | list | jobs that wait for their client's budget | emptied |
| dj:costs:{yyyymmdd} | hash | what was spent that day: `model|variant|program|client|metric` | until it is closed |
| dj:costs:{yyyymmdd}:closed | hash | what of it is in `dj:counted` | `costs.retention_days` |
| dj:open_books | set | days with books that are not closed | permanent, small |
| dj:counted | hash | totals for metrics, see `dspy_jobs/counted.py` | permanent, small |
| dj:known_names | set | models, programs and variants that were ever configured | permanent, small |
| dj:variant:{program}:{variant} | hash | what became of its jobs: counts, cost, run times | `costs.retention_days` |
| dj:scores:{program}:{variant}:{name} | hash | values that callers gave jobs, by job | as a scored job's own |
| dj:scores:{program} | zset | names of a program's scores, by the time of the last | as a scored job's own |
| dj:spent:{yyyymmdd}, dj:spent:{yyyymm} | hash | nano-dollars by client, `*` for all | `costs.retention_days` |
| dj:budgets | hash | the configured budgets, see `books.limits_of_spending` | permanent |
| dj:totals | hash | jobs queued and running in all | permanent |
| dj:lost_workers | zset | workers that ended without notice, by the end of their lease | an hour |
| dj:workers | zset | workers by the end of their lease | permanent, trimmed |
| dj:watch | hash | since when leases have been watched without a gap, and when last | permanent |
| dj:worker:{worker} | string | what the worker says of itself (JSON) | a day |
| dj:worker:{worker}:reported | string | the number of its last report of what it measured | a day |
| dj:worker:{worker}:held | set | jobs it runs or is about to run | until the worker is gone |
| dj:worker:{worker}:cancel | set | jobs it must stop | until the worker is gone |
| dj:metrics | hash | what all workers have measured, see `dspy_jobs.measures` | permanent |
| dj:autoscaler:{name} | string | the token of the autoscaler that leads | seconds, renewed |
| dj:idempotency:{digest} | hash | whose an Idempotency-Key is, and the answer | `jobs.idempotency_seconds` |
| dj:programs | hash | what workers say of the programs they run (JSON each) | permanent |
| dj:models | hash | known prices of the models workers run (JSON each) | permanent |
| dj:cache:{key} | string | an answer of the response cache; in the cache's own Redis | `cache.redis_seconds` |
"""

from __future__ import annotations

#: Celery's name of the one task; its only argument is a list of job ids.
TASK = "dspy_jobs.run"

#: Separates a queue's name from its priority step in Redis list names (kombu's `sep`).
PRIORITY_SEPARATOR = ":"

#: What an `Idempotency-Key` may be, whole: visible ASCII.
IDEMPOTENCY_KEY = "[!-~]{1,255}"

#: Message published when a job has ended: `{job}`; when a batch has ended: `{batch}`.
DONE_CHANNEL = "dj:done"

#: Message published when a worker (re)published its programs.
PROGRAMS_CHANNEL = "dj:programs:changed"

JOBS = "dj:jobs"
BATCHES = "dj:batches"
STAGING = "dj:staging"
RELEASING = "dj:releasing"
CANCELING = "dj:canceling"
PAUSED_BATCHES = "dj:paused_batches"
DELAYED = "dj:delayed"
EXPIRING = "dj:expiring"
TOTALS = "dj:totals"
WORKERS = "dj:workers"
LOST_WORKERS = "dj:lost_workers"
WATCH = "dj:watch"
LANDING = "dj:landing"
WAITING_CLIENTS = "dj:waiting_clients"
BUDGETS = "dj:budgets"
OPEN_BOOKS = "dj:open_books"
COUNTED = "dj:counted"
KNOWN_NAMES = "dj:known_names"
MODELS = "dj:models"
METRICS = "dj:metrics"
PROGRAMS = "dj:programs"

#: Keys without a lifetime; every other key must have one once its work is done.
PERMANENT = (
    JOBS, BATCHES, STAGING, RELEASING, CANCELING, DELAYED, EXPIRING, TOTALS, WORKERS, WATCH, PROGRAMS, LANDING,
    WAITING_CLIENTS, BUDGETS, MODELS, METRICS, OPEN_BOOKS, COUNTED, KNOWN_NAMES, PAUSED_BATCHES,
)  # fmt: skip
PERMANENT_PREFIX = "dj:queue:"


def job(job_id: str) -> str:
    """The job's hash."""
    return f"dj:{job_id}"


def job_request(job_id: str) -> str:
    """What the caller gave for this job, JSON."""
    return f"dj:{job_id}:request"


def job_attempts(job_id: str) -> str:
    """Attempts that did not end the job."""
    return f"dj:{job_id}:attempts"


def job_journal(job_id: str) -> str:
    """Answered model calls of a job, for its next attempt to replay."""
    return f"dj:{job_id}:journal"


def flight(key: str) -> str:
    """The job that makes the answer of a cache key just now."""
    return f"dj:flight:{key}"


def followers(key: str) -> str:
    """Jobs that wait for the answer of a cache key."""
    return f"dj:flight:{key}:followers"


def client_parked(client: str) -> str:
    """Jobs that wait for their client's budget."""
    return f"dj:client:{client}:parked"


def outcome(job_id: str) -> str:
    """The job's outcome under the key Celery's Redis result backend reads."""
    return f"celery-task-meta-{job_id}"


def batch(batch_id: str) -> str:
    """The batch's hash."""
    return f"dj:{batch_id}"


def batch_request(batch_id: str) -> str:
    """What all jobs of the batch share, JSON."""
    return f"dj:{batch_id}:request"


def batch_jobs(batch_id: str) -> str:
    """The batch's job ids in input order."""
    return f"dj:{batch_id}:jobs"


def batch_results(batch_id: str) -> str:
    """The batch's job ids in order of completion."""
    return f"dj:{batch_id}:results"


def batch_parked(batch_id: str) -> str:
    """Jobs met by a worker while the batch was paused."""
    return f"dj:{batch_id}:parked"


def queue(model: str) -> str:
    """The Celery queue of a model; one each, so that one provider's outage cannot block another's jobs."""
    return f"dspy.{model}"


def queue_numbers(queue_name: str) -> str:
    """Numbers of queued and running jobs of a queue."""
    return f"dj:queue:{queue_name}"


def queue_waiting(queue_name: str, step: int) -> str:
    """Jobs of a queue and priority step with a message under way, by the time (ms) it was sent."""
    return f"dj:queue:{queue_name}:waiting:{step}"


def queue_gates(queue_name: str) -> str:
    """Why a queue is closed: reason to the time (ms) it opens, 0 meaning until somebody opens it."""
    return f"dj:queue:{queue_name}:gates"


def circuit(model: str) -> str:
    """The state of a model's circuit breaker."""
    return f"dj:circuit:{model}"


def circuit_calls(model: str) -> str:
    """How a model's calls went, in slices of the window."""
    return f"dj:circuit:{model}:calls"


def circuit_probe(model: str) -> str:
    """The job that may call a model whose circuit is half-open."""
    return f"dj:circuit:{model}:probe"


def queue_workers(queue_name: str) -> str:
    """Workers that consume a queue, by the end of their lease (ms)."""
    return f"dj:queue:{queue_name}:workers"


def queue_list(queue_name: str, step: int) -> str:
    """The Redis list kombu pops for a queue's priority step."""
    return queue_name if step == 0 else f"{queue_name}{PRIORITY_SEPARATOR}{step}"


def worker(worker_id: str) -> str:
    """What a worker says of itself, JSON."""
    return f"dj:worker:{worker_id}"


def worker_held(worker_id: str) -> str:
    """Jobs a worker runs or is about to run."""
    return f"dj:worker:{worker_id}:held"


def worker_cancel(worker_id: str) -> str:
    """Jobs a worker must stop."""
    return f"dj:worker:{worker_id}:cancel"


def worker_reported(worker_id: str) -> str:
    """The number of a worker's last report of what it measured."""
    return f"dj:worker:{worker_id}:reported"


def autoscaler_lease(name: str) -> str:
    """The lease of the one autoscaler of that name that acts."""
    return f"dj:autoscaler:{name}"


def idempotency(digest: str) -> str:
    """The request an `Idempotency-Key` belongs to; the digest is of the key and its scope."""
    return f"dj:idempotency:{digest}"


def costs(yyyymmdd: str) -> str:
    """The books of a day in UTC, as far as they are open."""
    return f"dj:costs:{yyyymmdd}"


def closed_costs(yyyymmdd: str) -> str:
    """What of the books of a day is in the totals already."""
    return f"{costs(yyyymmdd)}:closed"


def spent(yyyymmdd: str) -> str:
    """What was spent in a day, or where the day is left out in a month, in UTC."""
    return f"dj:spent:{yyyymmdd}"


def variant(program: str, variant: str) -> str:
    """What became of the jobs of a variant."""
    return f"dj:variant:{program}:{variant}"


def scores(program: str, variant: str, name: str) -> str:
    """Values that callers gave jobs of a variant; the variant is empty for jobs that have none."""
    return f"dj:scores:{program}:{variant}:{name}"


def score_names(program: str) -> str:
    """Names of a program's scores, by the time of the last one."""
    return f"dj:scores:{program}"


def cache_entry(key: str) -> str:
    """An answer of the response cache, in the cache's Redis."""
    return f"dj:cache:{key}"
