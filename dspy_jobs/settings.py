"""The one typed record of every setting, read from `dspy-jobs.toml` and the environment and checked as a whole.

This is the only module that reads the environment. Precedence, lowest first: defaults, the file, `DSPY_JOBS_*`.
`[section] key` of the file is `DSPY_JOBS_SECTION_KEY` in the environment; keys outside a section are
`DSPY_JOBS_KEY`; `REDIS_URL` and `CACHE_URL` keep their common names. `${NAME}` and `${NAME:-default}` inside a
string of the file are replaced from the environment. `docs/configuration.md` lists every setting.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from dspy_jobs.redaction import is_secret_name, keep_secret

#: Of models, programs, versions, variants and clients: a part of keys, and of fields that `|` divides.
Name = Annotated[str, Field(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}$")]
Port = Annotated[int, Field(ge=0, le=65535)]
#: Ten years at most, so that no sum of times leaves the range of the clock.
LONGEST_SECONDS = 315_360_000.0
Seconds = Annotated[float, Field(gt=0, le=LONGEST_SECONDS, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
LogLevel = Literal["debug", "info", "warning", "error"]

SECTIONS = (
    "api", "sandbox", "flower", "worker", "jobs", "limits", "cache", "costs", "budgets", "autoscaler", "tracing",
    "sentry",
)  # fmt: skip

#: What a line of the check's output begins with that is no mistake but may surprise.
WARNING = "warning: "

#: Read timeouts (seconds) a model call may get. Connection pools are kept one a value, so they are few.
TIMEOUT_BUCKETS = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0)


class ConfigurationError(Exception):
    """The configuration is wrong; the message names every mistake with its path in the file and the remedy."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ApiSettings(_Section):
    """The HTTP process."""

    host: str = Field("127.0.0.1", description="Address the API listens on.")
    port: Port = Field(8080, description="Port the API listens on; 0 picks a free one.")
    client_header: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9-]+$",
        description="Header in which a trusted proxy names the client of a request; unset means one client, `default`.",
    )
    health_seconds: Seconds = Field(
        0.075, le=10, description="Longest wait of a health check for Redis, the cache or the disk; then it hangs."
    )


class SandboxSettings(_Section):
    """The sandbox model server of demos and tests. It is not a language model."""

    port: Port = Field(8090, description="Port the sandbox model listens on, always on 127.0.0.1.")


class FlowerSettings(_Section):
    """Flower, the page that shows Celery's workers."""

    host: str = Field(
        "127.0.0.1",
        description="Address Flower listens on; for any but this machine's own it wants `FLOWER_BASIC_AUTH`.",
    )
    port: Port = Field(5555, description="Port Flower listens on.")
    url_prefix: str | None = Field(
        None,
        pattern=r"^(/[A-Za-z0-9_.-]+)*$",
        description="Path Flower is served under, for example `/flower` behind a proxy that has the API too.",
    )
    max_tasks: Count = Field(10_000, description="Jobs and chunks Flower remembers; the oldest are forgotten first.")
    save_seconds: Seconds = Field(60, description="Time between saves of what Flower remembers, to the data folder.")
    job_events: bool = Field(
        True, description="Whether workers tell Flower of each job, while somebody listens; else it knows workers only."
    )


class WorkerSettings(_Section):
    """The Celery worker process."""

    concurrency: Count = Field(128, le=1024, description="Threads, so jobs run at once, in a worker process.")
    hold_seconds: Seconds = Field(
        10, description="Longest time a thread keeps the rest of a chunk before it hands it back to the queue."
    )
    chunk_size: Count = Field(
        32, le=200, description="Most jobs in one queue message; small batches get less, down to 1."
    )
    lease_seconds: Seconds = Field(
        10, ge=2, description="A worker not heard of for this long is lost and its jobs are queued again."
    )
    drain_seconds: Seconds = Field(
        30, description="Longest time a stopping worker waits for running jobs before they are handed back."
    )
    heartbeat_file: Path | None = Field(
        None, description="File the worker writes while it lives, for `python -m worker.probe`; unset means none."
    )
    metrics_port: Port | None = Field(
        None, description="Port a worker serves its own metrics and health on; 0 picks a free one, unset means none."
    )
    metrics_host: str = Field("127.0.0.1", min_length=1, description="Address that port is opened on.")
    instruments: bool = Field(
        True, description="Whether workers measure what they do; without it the service's histograms stand still."
    )

    @field_validator("heartbeat_file", "metrics_port", mode="before")
    @classmethod
    def _empty_is_unset(cls, value: Any) -> Any:
        """So that a container can take back what its image sets."""
        return None if value == "" else value


class JobSettings(_Section):
    """What a job gets when it does not say otherwise."""

    timeout_seconds: Seconds = Field(300, description="Time an attempt may run before it is stopped.")
    max_timeout_seconds: Seconds = Field(3600, description="Largest `timeout_seconds` a caller may ask for.")
    expires_in_seconds: Seconds = Field(86_400, description="Time a job may wait for its start.")
    max_attempts: Count = Field(5, le=100, description="Attempts before a job fails for good.")
    max_calls: Count = Field(100, description="Model calls one attempt may make.")
    backoff_seconds: Seconds = Field(1, description="Most seconds waited before the first retry; doubles each time.")
    max_backoff_seconds: Seconds = Field(60, description="Largest wait before a retry, also for `Retry-After`.")
    max_worker_losses: Count = Field(3, description="A job that lost its worker this often fails as `worker_lost`.")
    retention_seconds: Seconds = Field(7 * 86_400, description="Time a result can be read after its job ended.")
    tombstone_seconds: Seconds = Field(30 * 86_400, description="Time after that in which 410 is answered, then 404.")
    idempotency_seconds: Seconds = Field(
        86_400, description="Time a request's `Idempotency-Key` and its answer are kept, from the first use."
    )


class LimitSettings(_Section):
    """Sizes beyond which a request is refused. `GET /v1/limits` shows them."""

    items_per_batch: Count = Field(50_000, description="Most items in a batch.")
    batch_bytes: Count = Field(100_000_000, description="Largest body of a batch, in bytes.")
    item_bytes: Count = Field(1_000_000, description="Largest item or single job, in bytes of JSON.")
    result_bytes: Count = Field(1_000_000, description="Largest output of a job, in bytes of JSON.")
    wait_seconds: Count = Field(60, le=600, description="Longest `Prefer: wait`.")
    queued_jobs: Count = Field(200_000, description="Jobs queued at once before submits answer 429 `queue_full`.")


class CacheSettings(_Section):
    """The response cache: parsed outputs, in the worker's memory and in Redis."""

    url: str | None = Field(
        None, description="Redis of the cache (also `CACHE_URL`); unset means database 1 of the Redis of the queue."
    )
    enabled: bool = Field(True, description="Whether outputs are stored and looked up at all.")
    memory_bytes: int = Field(32_000_000, ge=0, description="Most memory a worker keeps outputs in; 0 keeps none.")
    memory_seconds: Seconds = Field(300, description="Time an output is kept in a worker's memory.")
    redis_seconds: Seconds = Field(7 * 86_400, description="Time an output is kept in Redis.")
    compress_bytes: Count = Field(1024, description="Outputs of more bytes are compressed.")
    timeout_seconds: Seconds = Field(1, description="Longest wait for the cache's Redis; then it counts as a miss.")
    skip_seconds: Seconds = Field(10, description="Time the cache's Redis is left alone after it failed.")


class CostSettings(_Section):
    """What is kept of what was spent."""

    retention_days: Count = Field(
        400, le=3660, description="Days for which `GET /costs` can tell what was spent; ten years at most."
    )


class ClientBudget(_Section):
    """Most US dollars to spend in a day and in a month, both in UTC."""

    day_usd: float | None = Field(None, ge=0, allow_inf_nan=False, description="Most US dollars a day.")
    month_usd: float | None = Field(None, ge=0, allow_inf_nan=False, description="Most US dollars a calendar month.")


class BudgetSettings(ClientBudget):
    """Most US dollars to spend, in all and for each client. Reaching one pauses jobs until it is raised or over."""

    clients: dict[Name, ClientBudget] = Field(default_factory=dict, description="Budgets by the client's name.")

    @property
    def has_limits(self) -> bool:
        """Whether any budget is set."""
        budgets = (self, *self.clients.values())
        return any(budget.day_usd is not None or budget.month_usd is not None for budget in budgets)


class AutoscalerSettings(_Section):
    """How many workers run. What the numbers mean together is told by the ScaledObject, which KEDA reads too."""

    backend: Literal["process", "dry-run", "compose", "kubernetes"] = Field(
        "process", description="What starts and stops workers; `dry-run` only says what it would do."
    )
    scaled_object: Path = Field(
        Path("k8s/worker-scaledobject.yaml"), description="KEDA ScaledObject that is obeyed, relative to the file."
    )
    target_wait_seconds: Seconds = Field(60, description="Time jobs may wait for their start.")
    target_utilization: float = Field(0.8, gt=0, le=1, description="Share of time a worker's threads should be busy.")
    provider_slots: Count | None = Field(
        None, description="Most jobs that may run at once in all; more workers would only be refused by the provider."
    )
    metrics_port: Port | None = Field(
        None, description="Port the autoscaler's Prometheus metrics are served on; unset means a free one or none."
    )
    startup_grace_seconds: Seconds = Field(
        30, description="Time a started worker gets to say that it lives before it counts as failed."
    )
    max_memory_mb_per_worker: Count = Field(
        256, description="Memory a worker may come to need, in MiB; none is started unless as much is free."
    )


class TracingSettings(_Section):
    """Traces, sent to an OpenTelemetry collector. Needs `pip install "dspy-jobs[tracing]"`; see `docs/tracing.md`."""

    enabled: bool = Field(False, description="Whether requests, jobs and model calls are traced.")
    endpoint: str | None = Field(
        None,
        pattern=r"^https?://[^/\s]+",
        description="The collector's address, OTLP/HTTP; unset means `OTEL_EXPORTER_OTLP_ENDPOINT`, or port 4318 here.",
    )
    headers_env: str | None = Field(
        None, description="Name of the environment variable with headers for the collector, `name=value,name=value`."
    )
    service_name: str | None = Field(
        None, description="Name of the service; unset means `OTEL_SERVICE_NAME`, or `dspy-jobs-` and the process."
    )
    sample_ratio: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Share of the traces begun here that are kept; unset means `OTEL_TRACES_SAMPLER`, or all. "
        "A caller who is in a trace has decided.",
    )
    jobs_per_trace: int = Field(
        100, ge=0, description="Jobs of a larger batch are traces of their own, linked to the batch's."
    )


class SentrySettings(_Section):
    """Reports of bugs, sent to Sentry. Needs `pip install "dspy-jobs[sentry]"`; see `docs/tracing.md`."""

    dsn_env: str | None = Field(
        None, description="Name of the environment variable with the DSN, such as `SENTRY_DSN`; unset means no reports."
    )
    environment: str | None = Field(None, description="Name of the environment, such as `production`.")
    sample_rate: float = Field(1, ge=0, le=1, description="Share of the errors that are reported.")
    messages: bool = Field(
        False, description="Whether the text of errors is sent, without secrets; it may hold what callers gave."
    )


class BreakerSettings(_Section):
    """When a model's circuit opens and closes, for the whole fleet."""

    failure_threshold: Count = Field(5, description="Provider faults within the window before the circuit may open.")
    failure_rate: float = Field(0.5, gt=0, le=1, description="Share of faults among the window's calls that opens it.")
    window_seconds: Seconds = Field(30, description="Length of the sliding window.")
    success_threshold: Count = Field(1, description="Probes in a row that must succeed before it closes.")
    reset_seconds: Seconds = Field(30, description="Time it stays open before one probe call is let through.")


class ModelSettings(_Section):
    """A language model by its short name. Callers can name it only so."""

    model: str = Field(min_length=1, description="The provider's model id, for example `openai/gpt-4.1-mini`.")
    base_url: str | None = Field(
        None, pattern=r"^https?://[^/\s]+", description="Address of the provider's API where it is not the usual one."
    )
    api_key_env: str | None = Field(
        None, description="Name of the environment variable with the key; by default the provider's usual one."
    )
    timeout_seconds: Seconds = Field(120, description="Longest wait for one answer of the provider.")
    engine: Literal["lm15", "litellm"] = Field(
        "lm15", description="DSPy engine: the native `lm15`, or `litellm` for providers that need it."
    )
    idempotency_header: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9-]+$",
        description="Header in which calls carry a key, for gateways that charge a repeated call once; native engine.",
    )
    trace_context: bool = Field(
        False, description="Whether calls carry the W3C `traceparent`, for gateways of one's own; native engine."
    )
    parameters: dict[str, Any] = Field(
        default_factory=dict, description="Sampling parameters of every call, for example `{temperature = 0.2}`."
    )
    fallbacks: list[Name] = Field(
        default_factory=list, description="Models to use instead while this one's circuit is open or after it failed."
    )
    requests_per_minute: Count | None = Field(None, description="Calls the provider allows a minute, all workers.")
    tokens_per_minute: Count | None = Field(None, description="Tokens the provider allows a minute, all workers.")
    max_concurrent: Count | None = Field(None, description="Jobs of this model that may run at once, all workers.")
    breaker: BreakerSettings = Field(default_factory=BreakerSettings, description="The circuit breaker, see below.")
    input_cost_per_1k: float | None = Field(
        None, ge=0, allow_inf_nan=False, description="US dollars per 1000 input tokens."
    )
    output_cost_per_1k: float | None = Field(
        None, ge=0, allow_inf_nan=False, description="US dollars per 1000 output tokens."
    )
    cached_input_cost_per_1k: float | None = Field(
        None,
        ge=0,
        allow_inf_nan=False,
        description="US dollars per 1000 input tokens the provider had cached; as other input by default.",
    )
    reasoning_cost_per_1k: float | None = Field(
        None,
        ge=0,
        allow_inf_nan=False,
        description="US dollars per 1000 reasoning tokens; as other output by default.",
    )

    @model_validator(mode="after")
    def _headers_need_the_native_engine(self) -> Self:
        given = {"idempotency_header": self.idempotency_header, "trace_context": self.trace_context}
        for name, value in given.items():
            if value and self.engine != "lm15":
                raise ValueError(f"{name} goes with the engine lm15")
        return self

    @model_validator(mode="after")
    def _prices_come_in_pairs(self) -> Self:
        if (self.input_cost_per_1k is None) != (self.output_cost_per_1k is None):
            raise ValueError("give both input_cost_per_1k and output_cost_per_1k, or neither")
        details = (self.cached_input_cost_per_1k, self.reasoning_cost_per_1k)
        if self.input_cost_per_1k is None and details != (None, None):
            raise ValueError("cached_input_cost_per_1k and reasoning_cost_per_1k go with the two ordinary prices")
        return self


class StateSettings(_Section):
    """A saved, compiled DSPy state of a program, pinned."""

    state: Path = Field(description="Saved DSPy program state (JSON), relative to the file.")
    state_sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="Its SHA-256; a different state is refused.")


def _fit_to_weigh(weight: float) -> float:
    """The weight, if shares can be reckoned with it: far larger or smaller ones leave the range of numbers."""
    if weight != 0 and not 1e-6 <= weight <= 1e6:
        raise ValueError("a weight is 0, or from 0.000001 to 1000000")
    return weight


Weight = Annotated[float, AfterValidator(_fit_to_weigh)]


class VariantSettings(_Section):
    """One arm of an A/B split: what it changes of its program."""

    weight: Weight = Field(
        1, description="Share of the jobs, relative to the other arms: 0, or from 0.000001 to 1000000."
    )
    model: str | None = Field(None, description="Model of this arm; the program's by default.")
    version: str | None = Field(None, description="Version of the program this arm runs; the program's by default.")
    parameters: dict[str, Any] = Field(default_factory=dict, description="Sampling parameters of this arm's calls.")


class ProgramSettings(_Section):
    """A DSPy program by its short name: a signature, or a factory that returns a `dspy.Module`."""

    signature: str | None = Field(None, description="A DSPy signature, for example `question -> answer`.")
    instructions: str | None = Field(None, description="Instructions for the signature.")
    factory: str | None = Field(
        None, pattern=r"^[\w.]+:[\w.]+$", description="`package.module:function` that returns a `dspy.Module`."
    )
    state: Path | None = Field(None, description="Saved DSPy program state (JSON) to load, relative to the file.")
    state_sha256: str | None = Field(
        None, pattern=r"^[0-9a-f]{64}$", description="The state's SHA-256; a different state is refused."
    )
    model: str | None = Field(None, description="Model used when the caller names none.")
    adapter: Literal["chat", "json", "xml"] = Field("chat", description="DSPy adapter the program speaks through.")
    description: str | None = Field(None, description="One line for people, shown in `GET /v1/programs`.")
    version: str | None = Field(None, description="Which of `versions` runs; a rollback changes this one line.")
    versions: dict[Name, StateSettings] = Field(
        default_factory=dict, description="Compiled states by version; `dspy-jobs programs pin` writes them."
    )
    variants: dict[Name, VariantSettings] = Field(default_factory=dict, description="Arms of an A/B split, see below.")
    cache: bool = Field(True, description="Whether its outputs may be stored and given for equal inputs.")
    resume: bool = Field(
        True, description="Whether a retry reuses model calls an earlier attempt of the job had answered."
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.signature is None) == (self.factory is None):
            raise ValueError("give exactly one of `signature` and `factory`")
        if (self.state is None) != (self.state_sha256 is None):
            raise ValueError("give `state` and `state_sha256` together")
        if self.instructions is not None and self.signature is None:
            raise ValueError("`instructions` go with `signature`; a factory has its own")
        return self


class Settings(_Section):
    """Everything an operator can set. Build it with `load_settings`."""

    redis_url: str | None = Field(
        None, description="Redis for queue, jobs and results (also `REDIS_URL`); unset means an embedded one."
    )
    data_dir: Path = Field(Path(".dspy-jobs"), description="Folder of the embedded Redis and of results.")
    default_model: str = Field("sandbox", description="Model used when neither caller nor program names one.")
    log_format: Literal["console", "json"] = Field("console", description="How log lines are written.")
    log_level: LogLevel = Field("info", description="Lowest level logged.")
    log_levels: dict[str, LogLevel] = Field(
        default_factory=dict,
        description="Other levels of single libraries, by logger: `{dspy = 'debug'}`; in the environment `dspy=debug`.",
    )
    log_content: bool = Field(
        False, description="Whether log lines may show inputs, outputs and what programs and libraries say of them."
    )
    api: ApiSettings = ApiSettings()
    sandbox: SandboxSettings = SandboxSettings()
    flower: FlowerSettings = FlowerSettings()
    worker: WorkerSettings = WorkerSettings()
    jobs: JobSettings = JobSettings()
    limits: LimitSettings = LimitSettings()
    cache: CacheSettings = CacheSettings()
    costs: CostSettings = CostSettings()
    budgets: BudgetSettings = BudgetSettings()
    autoscaler: AutoscalerSettings = AutoscalerSettings()
    tracing: TracingSettings = TracingSettings()
    sentry: SentrySettings = SentrySettings()
    models: dict[Name, ModelSettings] = Field(default_factory=dict)
    programs: dict[Name, ProgramSettings] = Field(default_factory=dict)
    source: Path | None = Field(None, description="The file this was read from; set by the reader, not by you.")

    @field_validator("log_levels", mode="before")
    @classmethod
    def _levels_from_text(cls, value: Any) -> Any:
        """`dspy=debug, celery=info`, as the environment has it."""
        if not isinstance(value, str):
            return value
        pairs = (pair.partition("=") for pair in value.split(",") if pair.strip())
        return {name.strip(): level.strip() for name, _, level in pairs}

    @model_validator(mode="after")
    def _relations(self) -> Self:
        mistakes = [*_unknown_models(self), *_wrong_relations(self), *_wrong_versions(self)]
        if mistakes:
            raise ValueError("; ".join(mistakes))
        return self

    def model_of(self, program: str) -> str:
        """The model a program runs on when the caller names none."""
        return self.programs[program].model or self.default_model


def _unknown_models(settings: Settings) -> list[str]:
    known = ", ".join(sorted(settings.models)) or "none"
    named = {"default_model": settings.default_model} if settings.models else {}
    for name, program in settings.programs.items():
        named |= {f"programs.{name}.model": program.model} if program.model else {}
        arms = program.variants.items()
        named |= {f"programs.{name}.variants.{arm}.model": variant.model for arm, variant in arms if variant.model}
    for name, model in settings.models.items():
        named |= {f"models.{name}.fallbacks[{i}]": other for i, other in enumerate(model.fallbacks)}
    return [
        f"{path}: there is no model {model!r}; add [models.{model}] or use one of: {known}"
        for path, model in named.items()
        if model not in settings.models
    ]


def _wrong_relations(settings: Settings) -> list[str]:
    jobs, limits = settings.jobs, settings.limits
    checks = [
        (jobs.timeout_seconds <= jobs.max_timeout_seconds, "jobs.timeout_seconds exceeds jobs.max_timeout_seconds"),
        (jobs.backoff_seconds <= jobs.max_backoff_seconds, "jobs.backoff_seconds exceeds jobs.max_backoff_seconds"),
        (limits.item_bytes <= limits.batch_bytes, "limits.item_bytes exceeds limits.batch_bytes"),
    ]
    return [mistake for holds, mistake in checks if not holds]


def _wrong_versions(settings: Settings) -> list[str]:
    """What is wrong with the versions and variants of programs."""
    return [f"programs.{name}{m}" for name, program in settings.programs.items() for m in _wrong_arms(program)]


def _wrong_arms(program: ProgramSettings) -> Iterator[str]:
    if program.state is not None and program.versions:
        yield ".state goes without versions; make it one of them"
    known = ", ".join(sorted(program.versions)) or "none"
    variants = program.variants.items()
    named = {".version": program.version, **{f".variants.{arm}.version": v.version for arm, v in variants}}
    for path, version in named.items():
        if version is not None and version not in program.versions:
            yield f"{path}: there is no version {version!r}; the versions are: {known}"
    are_all_named = bool(variants) and all(variant.version for _, variant in variants)
    if program.versions and program.version is None and not are_all_named:
        yield f".version is missing: which of the versions runs ({known})"
    if variants and not any(variant.weight for _, variant in variants):
        yield ".variants: at least one needs a weight above 0"


def find_file(environ: Mapping[str, str]) -> Path | None:
    """`DSPY_JOBS_CONFIG` if set, else the nearest `dspy-jobs.toml` upwards from the working directory."""
    if given := environ.get("DSPY_JOBS_CONFIG"):
        return Path(given)
    here = Path.cwd()
    return next((p / "dspy-jobs.toml" for p in (here, *here.parents) if (p / "dspy-jobs.toml").is_file()), None)


def load_settings(path: Path | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """Read and check the whole configuration.

    Raises:
        ConfigurationError: the file cannot be read or anything in it or in the environment is wrong; every
            mistake is named with its path.
    """
    environ = os.environ if environ is None else environ
    path = path or find_file(environ)
    content = _with_environment(_read(path, environ) if path else {}, environ)
    base = path.resolve().parent if path else Path.cwd()
    if "source" in content:
        raise ConfigurationError(f"{path}: source: there is no such setting; see docs/configuration.md")
    folder = content.get("data_dir", ".dspy-jobs")
    if isinstance(folder, str):
        content["data_dir"] = base / Path(folder or ".dspy-jobs").expanduser()
    try:
        return Settings(**content, source=path.resolve() if path else None)
    except ValidationError as error:
        raise ConfigurationError(_explain(error, path)) from None


def _read(path: Path, environ: Mapping[str, str]) -> dict[str, Any]:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: is not valid TOML: {error}") from None
    result = _interpolate(content, environ, str(path))
    assert isinstance(result, dict)
    return result


_VARIABLE = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}")


def _interpolate(value: Any, environ: Mapping[str, str], where: str) -> Any:
    if isinstance(value, dict):
        return {key: _interpolate(item, environ, f"{where}: {key}") for key, item in value.items()}
    if isinstance(value, list):
        return [_interpolate(item, environ, where) for item in value]
    if not isinstance(value, str):
        return value

    def replace(match: re.Match[str]) -> str:
        found = environ.get(match["name"], match["default"])
        if found is None:
            raise ConfigurationError(f"{where}: ${{{match['name']}}} is not set in the environment")
        return found

    return _VARIABLE.sub(replace, value)


def _with_environment(content: dict[str, Any], environ: Mapping[str, str]) -> dict[str, Any]:
    """The file's content with the environment's values over it."""
    if environ.get("REDIS_URL"):
        content["redis_url"] = environ["REDIS_URL"]
    if environ.get("CACHE_URL"):
        _place(content, "DSPY_JOBS_CACHE_URL", environ["CACHE_URL"])
    for variable, value in environ.items():
        if variable.startswith("DSPY_JOBS_") and variable not in ("DSPY_JOBS_CONFIG", "DSPY_JOBS_URL"):
            _place(content, variable, value)
    return content


def _place(content: dict[str, Any], variable: str, value: str) -> None:
    key = variable.removeprefix("DSPY_JOBS_").lower()
    section = next((s for s in SECTIONS if key.startswith(s + "_")), None)
    if section is None:
        if key not in Settings.model_fields or key in (*SECTIONS, "models", "programs", "source"):
            raise ConfigurationError(f"{variable}: there is no such setting; see docs/configuration.md")
        content[key] = value
    else:
        values = content.setdefault(section, {})
        if isinstance(values, dict):  # anything else is a mistake that the check names
            values[key.removeprefix(section + "_")] = value


def _explain(error: ValidationError, path: Path | None) -> str:
    where = str(path) if path else "the environment"
    lines = []
    for mistake in error.errors():
        place = ".".join(str(part) for part in mistake["loc"] if part != "[key]")
        message = mistake["msg"].removeprefix("Value error, ")
        if mistake["type"] == "extra_forbidden":
            message = "there is no such setting; see docs/configuration.md"
        lines.append(f"  {place}: {message}" if place else f"  {message}")
    return f"{where}: the configuration is wrong:\n" + "\n".join(lines)


def secret(variable: str) -> str | None:
    """A secret from the environment variable of that name, or from the file `{variable}_FILE` names.

    Raises:
        ConfigurationError: the file cannot be read.
    """
    value = os.environ.get(variable) or _from_file(variable)
    if value:
        keep_secret([value])
    return value


def _from_file(variable: str) -> str | None:
    path = os.environ.get(f"{variable}_FILE")
    if not path:
        return None
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigurationError(f"{variable}_FILE: {path} cannot be read: {error.strerror}") from None


def environment_secrets() -> list[str]:
    """Values of the environment's variables whose names say that they are secret, as those of providers' keys do."""
    return [
        value
        for name, value in os.environ.items()
        if is_secret_name(name) and not name.endswith(("_FILE", "_ENV", "_PATH", "_DIR"))
    ]


def service_url(environ: Mapping[str, str] | None = None) -> str:
    """Where a client finds the API: `DSPY_JOBS_URL`, else the address the configuration makes it listen on.

    Raises:
        ConfigurationError: the configuration is wrong, or leaves the port to chance.
    """
    environ = os.environ if environ is None else environ
    if url := environ.get("DSPY_JOBS_URL"):
        return url
    api = load_settings(environ=environ).api
    if api.port == 0:
        raise ConfigurationError("api.port is 0, so the API's port is not known here: set DSPY_JOBS_URL (or --url)")
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(api.host, api.host)  # noqa: S104  # to reach it, not to bind
    return f"http://[{host}]:{api.port}" if ":" in host else f"http://{host}:{api.port}"
