"""What each dashboard shows.

Every API process tells the whole service's numbers, so of several replicas the largest counts and never their sum:
`whole`. What a process tells of itself (HTTP, Redis as it sees it, a worker's threads) is summed: `each`.
"""

from __future__ import annotations

from ops.grafana.layout import Dashboard, Panel

#: What tells one API process from another; with the Prometheus operator a pod's name, too.
_REPLICA = "instance, pod"
_OPEN = (("1", "open", "green"), ("0", "closed", "red"))
_UP = (("1", "up", "green"), ("0", "down", "red"))
_CIRCUIT = (("0", "closed", "green"), ("1", "half-open", "yellow"), ("2", "open", "red"))

#: None of what is counted; while Redis is away nobody knows, and there is no data.
NONE = "0 * (max(dspy_redis_up) == 1)"


def whole(metric: str, window: str = "5m") -> str:
    """How fast a counter of the whole service grows, a second."""
    return f"max without ({_REPLICA}) (rate({metric}[{window}]))"


def by(labels: str, expression: str) -> str:
    """Summed up to these labels."""
    return f"sum by ({labels}) ({expression})"


def quantile(q: float, family: str, labels: str = "", window: str = "5m") -> str:
    """A quantile of a histogram of the whole service."""
    return f"histogram_quantile({q}, {by(f'le, {labels}' if labels else 'le', whole(f'{family}_bucket', window))})"


def now(metric: str, labels: str = "") -> str:
    """What a gauge of the whole service says."""
    return f"max by ({labels}) ({metric})" if labels else f"max({metric})"


def ratio(labels: str, part: str, of: str, window: str = "5m") -> str:
    """How two counters of the whole service grow, one against the other; 0 where neither does."""
    whole_of = by(labels, whole(of, window))
    return f"{by(labels, whole(part, window))} / ({whole_of} > 0) or 0 * {whole_of}"


def _quantiles(family: str, labels: str = "") -> tuple[tuple[str, str], ...]:
    name = f" {{{{{labels}}}}}" if labels else ""
    return tuple((quantile(q, family, labels), f"p{q * 100:g}{name}") for q in (0.5, 0.95, 0.99))


def _stat(title: str, meaning: str, expression: str, unit: str = "short", width: int = 4, **more: object) -> Panel:
    return Panel(title, meaning, ((expression, ""),), unit, "stat", width, height=4, **more)  # type: ignore[arg-type]


_FAILED = "dspy_predictions_total{status='failed'}"
_MEAN_RUN = ratio(
    "program, model", "dspy_prediction_duration_seconds_sum", "dspy_prediction_duration_seconds_count", "1h"
)
_FINISHED = by("status", whole("dspy_predictions_total"))
_SPENT = by("model", whole("dspy_prediction_cost_total"))
_ENDED = f"sum({whole('dspy_predictions_total')})"
_FAILED_SHARE = f"sum({whole(_FAILED)}) / ({_ENDED} > 0) or {NONE}"
#: By code, without those that do not happen.
_FAILURES = by("code, model", whole("dspy_errors_total")) + " > 0"


def fullest_budget(of: str = "") -> str:
    """The largest share that is spent of a budget there is."""
    return f"max(dspy_budget_spent_usd{of} / (dspy_budget_limit_usd{of} > 0)) or {NONE}"


_HTTP_TIME = "dspy_http_request_duration_seconds_bucket"
#: Each API process tells its own round trips, and all of them those of all workers.
_REDIS_TIME = "dspy_redis_duration_seconds_bucket"
_REDIS_RATE = whole(_REDIS_TIME + "{process='worker'}")
_REDIS_OF_APIS = f"histogram_quantile(0.99, sum by (le) (rate({_REDIS_TIME}{{process='api'}}[5m])))"
_REDIS_OF_WORKERS = f"histogram_quantile(0.99, sum by (le) ({_REDIS_RATE}))"
_CALLS = "dspy_lm_call_duration_seconds_count"

OVERVIEW = Dashboard(
    "dspy-jobs-overview",
    "dspy-jobs · overview",
    "Is it well? The first row says so; what is yellow or red says where to look next.",
    (
        _stat("API", "API processes that answer Prometheus.", "sum(up{job='dspy-jobs-api'}) or vector(0)",
              width=3, good=1),
        _stat("Redis", "Whether the queue's Redis answers the API.", "max(dspy_redis_up)", width=3,
              good=1, names=_UP),
        _stat("Workers", "Live workers. None is well only where the fewest are 0 and nothing waits.",
              now("dspy_workers"), width=3, good=1),
        _stat("Oldest wait", "How long the oldest job that could run has waited.",
              now("dspy_autoscaler_oldest_wait_seconds"), "s", 3, warn=60, bad=300),
        _stat("Failed", "Share of ended jobs that failed.", _FAILED_SHARE, "percentunit", 3, warn=0.02, bad=0.1),
        _stat("Open circuits", "Models whose provider fails: calls are refused, or one job tries it.",
              f"count({now('dspy_circuit_breaker_state', 'model')} >= 1) or {NONE}", width=3, warn=1, bad=1),
        _stat("Closed queues", "Their jobs do not start; Gates of the next dashboard says why.",
              f"count(min by (queue) (dspy_queue_gate_open) == 0) or {NONE}", width=3, warn=1),
        _stat("Fullest budget", "Share of it that is spent, of the day's and the month's.", fullest_budget(),
              "percentunit", 3, warn=0.8, bad=1),
        Panel("Firing alerts", "Each has a section of its name in docs/runbook.md.", (
            ("ALERTS{alertstate='firing'}", ""),), kind="table", width=18, height=6, nothing="none"),
        Panel("Jobs a second", "Jobs that ended, whichever way.", ((_ENDED, ""),), "ops", "stat", 6, 6),
        Panel("Ended jobs", "By how they ended.", ((_FINISHED, "{{status}}"),), "ops", is_stacked=True),
        Panel("Failures", "Failed jobs by the code of their error; the runbook says what each means.",
              ((_FAILURES, "{{code}} {{model}}"),), "ops"),
        Panel("Run time", "Of jobs that ran, from start to end.",
              _quantiles("dspy_prediction_duration_seconds"), "s"),
        Panel("Queue wait", "From when a job could run until it did.", _quantiles("dspy_queue_wait_seconds"), "s"),
        Panel("Spent an hour", "Money, at the speed of the last five minutes. Calls of unknown price are not in it.",
              ((f"3600 * {_SPENT}", "{{model}}"),), "currencyUSD", is_stacked=True),
        Panel("HTTP requests", "By status.", ((by("status", "rate(dspy_http_requests_total[5m])"), "{{status}}"),),
              "reqps", is_stacked=True),
        Panel("HTTP answers", "How long the API takes to answer, without the waits that callers ask for.", tuple(
            (f"histogram_quantile({q}, sum by (le) (rate({_HTTP_TIME}[5m])))", f"p{q * 100:g}")
            for q in (0.5, 0.95, 0.99)), "s"),
        Panel("Redis answers", "As the processes see it: it is slow where this grows.",
              ((_REDIS_OF_APIS, "p99 api"), (_REDIS_OF_WORKERS, "p99 worker")), "s"),
        Panel("Redis memory", "Used, and what it may use.", (
            (now("dspy_redis_memory_bytes", "role"), "{{role}}"),
            (now("dspy_redis_memory_limit_bytes", "role") + " > 0", "{{role}} limit")), "bytes"),
    ),
)  # fmt: skip

SCALING = Dashboard(
    "dspy-jobs-scaling",
    "dspy-jobs · queues and autoscaling",
    "What waits, why it waits, and what the autoscaler makes of it.",
    (
        Panel("Queued jobs", "By queue, whatever they wait for.", ((now("dspy_queue_depth", "queue"), "{{queue}}"),),
              is_stacked=True),
        Panel("Running jobs", "By queue.", ((now("dspy_queue_running", "queue"), "{{queue}}"),), is_stacked=True),
        Panel("Jobs that could run now", "By queue; what a closed gate holds back is not among them.",
              ((now("dspy_queue_waiting", "queue"), "{{queue}}"),), is_stacked=True),
        Panel("Oldest wait", "Of each queue.", ((now("dspy_queue_oldest_wait_seconds", "queue"), "{{queue}}"),), "s"),
        Panel("Gates", "A closed queue says why: see its reason in the runbook.",
              (("min by (queue, reason) (dspy_queue_gate_open)", "{{queue}} {{reason}}"),),
              kind="state-timeline", names=_OPEN),
        Panel("Workers", "What the metric asks for, and what bounds, windows and policies make of it.", (
            (now("dspy_autoscaler_desired_replicas"), "wanted"), (now("dspy_autoscaler_current_replicas"), "ready"),
            (now("dspy_autoscaler_draining_replicas"), "draining"),
            (now("dspy_autoscaler_raw_recommendation"), "the metric alone"),
            (now("dspy_autoscaler_min_replicas"), "fewest"), (now("dspy_autoscaler_max_replicas"), "most"))),
        Panel("Call slots", "What the outstanding jobs need; with headroom it is the metric.", (
            (now("dspy_autoscaler_work"), "work (metric)"), (now("dspy_autoscaler_work_slots"), "slots"))),
        Panel("Demand", "Of the whole service.", (
            (now("dspy_autoscaler_waiting_jobs"), "waiting"), (now("dspy_autoscaler_inflight_jobs"), "running"),
            (now("dspy_autoscaler_draining_jobs"), "running on draining workers"))),
        Panel("Changes of the fleet", "In five minutes, with the autoscaler's reason.", ((
            by("direction, reason", "increase(dspy_autoscaler_scale_events_total[5m])"), "{{direction}} {{reason}}"),)),
        Panel("The metric's errors", "Reads that failed; the fleet is then held, or the fallback's.",
              ((by("scaledObject", "increase(keda_scaled_object_errors_total[5m])"), "{{scaledObject}}"),)),
        Panel("Room", "Running jobs, and how many the workers can run at once.", (
            (f"sum({now('dspy_active_predictions', 'model')})", "running"), (now("dspy_worker_slots"), "room"))),
        Panel("Memory of the processes", "Of each worker and API process.",
              (("process_resident_memory_bytes", "{{job}} {{instance}}"),), "bytes"),
    ),
)  # fmt: skip

MODELS = Dashboard(
    "dspy-jobs-models",
    "dspy-jobs · models and breakers",
    "How each provider behaves, and what that does to jobs.",
    (
        Panel("Circuits", "Closed is well. Open: calls are refused. Half-open: one job probes.",
              ((now("dspy_circuit_breaker_state", "model"), "{{model}}"),), kind="state-timeline", names=_CIRCUIT),
        Panel("Calls that failed", "Share of model calls.", ((
            ratio("model", _CALLS + "{outcome='error'}", _CALLS), "{{model}}"),), "percentunit"),
        Panel("Calls", "Model calls a second.",
              ((by("model, outcome", whole(_CALLS)), "{{model}} {{outcome}}"),), "ops"),
        Panel("Call time", "Of one model call.", _quantiles("dspy_lm_call_duration_seconds", "model"), "s"),
        Panel("Run time by program", "Of jobs.", _quantiles("dspy_prediction_duration_seconds", "program"), "s"),
        Panel("Slowest programs", "Mean run time in the last hour.", ((f"topk(10, ({_MEAN_RUN}) > 0)", ""),), "s",
              "table"),
        Panel("Tokens", "A second.", ((by("type, model", whole("dspy_token_usage_total")), "{{type}} {{model}}"),)),
        Panel("Attempts beyond the first", "Retried, moved to a fallback, or taken back from a lost worker.",
              ((by("outcome, model", whole("dspy_attempts_total")), "{{outcome}} {{model}}"),), "ops"),
        Panel("Jobs taken back", "From workers that were lost: they are queued again.",
              ((by("queue", f"max without ({_REPLICA}) (increase(dspy_recovered_jobs_total[5m]))"), "{{queue}}"),)),
    ),
)  # fmt: skip

_LOOKED_UP = "dspy_cache_operations_total{operation=~'hit|miss'}"

COST = Dashboard(
    "dspy-jobs-cost",
    "dspy-jobs · cost and cache",
    "What is spent on what, what the cache saves, and how near the budgets are.",
    (
        _stat("Spent in a day", "In the last 24 hours, as the books have it.",
              f"sum(max without ({_REPLICA}) (increase(dspy_prediction_cost_total[1d])))", "currencyUSD"),
        _stat("Day's budget", "Share of it that is spent, of the fullest budget.",
              fullest_budget('{period="day"}'), "percentunit", warn=0.8, bad=1),
        _stat("Month's budget", "Share of it that is spent, of the fullest budget.",
              fullest_budget('{period="month"}'), "percentunit", warn=0.8, bad=1),
        _stat("Calls of unknown price", "In the last 24 hours: what they cost is in no sum here.",
              f"sum(max without ({_REPLICA}) (increase(dspy_unpriced_calls_total[1d])))", warn=1),
        Panel("Spent an hour, by program", "At the speed of the last five minutes.",
              ((f"3600 * {by('program, variant', whole('dspy_prediction_cost_total'))}", "{{program}} {{variant}}"),),
              "currencyUSD", is_stacked=True),
        Panel("Spent an hour, by model", "At the speed of the last five minutes.",
              ((f"3600 * {_SPENT}", "{{model}}"),), "currencyUSD", is_stacked=True),
        Panel("Answers from the cache", "Share of lookups that found one, by level.", ((
            ratio("level", "dspy_cache_operations_total{operation='hit'}", _LOOKED_UP), "{{level}}"),), "percentunit"),
        Panel("Cache operations", "A second.", (
            (by("level, operation", whole("dspy_cache_operations_total")), "{{level}} {{operation}}"),), "ops"),
        Panel("Tokens", "By type.", ((by("type", whole("dspy_token_usage_total")), "{{type}}"),), is_stacked=True),
        Panel("Money an ended job", "Over the last hour.", ((
            ratio("program", "dspy_prediction_cost_total", "dspy_predictions_total", "1h"), "{{program}}"),),
            "currencyUSD"),
    ),
)  # fmt: skip

_BATCH = """
### Batch `${batch}`

Write the batch's id (and where the API and Flower are) at the top of this page.

* [The batch: counts, cost, why it waits](${api}/v1/batches/${batch})
* [Its failed jobs, one a line](${api}/v1/batches/${batch}/results?status=failed&limit=100)
* [Its results so far](${api}/v1/batches/${batch}/results?limit=100)
* [Its jobs](${api}/v1/jobs?batch=${batch}&limit=50)
* [Its jobs in Flower](${flower}/tasks?search=${batch})
* [All batches](${api}/v1/batches) · [all queues](${api}/v1/queues) · [what was spent](${api}/costs)

A batch's id is no label of a metric: one label value a batch would fill Prometheus. What is below is of all batches.
"""

BATCHES = Dashboard(
    "dspy-jobs-batch",
    "dspy-jobs · one batch",
    "From a batch's id to what the API, Flower and the logs know of it.",
    (
        Panel("Where to look", _BATCH, (), kind="text", width=12, height=9),
        Panel("Ended jobs", "Of all batches and single jobs.", ((_FINISHED, "{{status}}"),), "ops", height=9),
        Panel("Failures", "By code.", ((_FAILURES, "{{code}} {{model}}"),), "ops"),
        Panel("Queued jobs", "By queue.", ((now("dspy_queue_depth", "queue"), "{{queue}}"),), is_stacked=True),
    ),
    variables=(
        ("batch", "Batch", "batch_"), ("api", "API", "http://localhost:8080"), ("flower", "Flower", "http://localhost:5555"),
    ),
)  # fmt: skip

DASHBOARDS = (OVERVIEW, SCALING, MODELS, COST, BATCHES)
