"""What a caller sends: one job, a batch, an item of a batch. An unknown field is an error that names it."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StrictInt, StrictStr, model_validator

from dspy_jobs.states import Priority

#: A year at most: no job is meant to wait longer, and what is far larger Redis cannot count.
PositiveSeconds = Annotated[float, Field(gt=0, le=31_536_000, strict=True, allow_inf_nan=False)]
Label = Annotated[StrictStr, Field(min_length=1, max_length=256)]
Metadata = Annotated[dict[StrictStr, StrictStr | StrictInt | float | StrictBool | None], Field(max_length=32)]
Inputs = dict[StrictStr, Any]

#: The program the short form `{"model": …, "input": …}` runs.
BUILT_IN_PROGRAM = "predict"


class _Submission(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Parameters(_Submission):
    """Sampling parameters a caller may set for a model's calls."""

    temperature: Annotated[float, Field(ge=0, le=2, strict=True)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1, strict=True)] | None = None
    max_tokens: Annotated[int, Field(ge=1, strict=True)] | None = None
    stop: StrictStr | list[StrictStr] | None = None
    seed: StrictInt | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2, strict=True)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2, strict=True)] | None = None


CacheMode = Literal["default", "refresh", "only", "off"]


class CacheOptions(_Submission):
    """How stored answers are used."""

    mode: CacheMode | None = Field(
        None,
        description="`default`: take a stored answer if there is one, else run and store. `refresh`: run and store. "
        "`only`: take a stored answer or fail as `not_cached`. `off`: neither take nor store.",
    )
    max_age_seconds: Annotated[float, Field(ge=0, le=315_360_000, strict=True, allow_inf_nan=False)] | None = Field(
        None, description="Oldest stored answer to be taken; ten years at most."
    )
    namespace: Annotated[StrictStr, Field(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}$")] | None = Field(
        None, description="Answers of one namespace are never taken in another."
    )


def _mode_in_full(given: Any) -> Any:
    """A mode alone is short for an object with it."""
    return {"mode": given} if isinstance(given, str) else given


#: How stored answers are used, in full or by the mode alone.
Cache = Annotated[CacheOptions, BeforeValidator(_mode_in_full, json_schema_input_type=CacheOptions | CacheMode)]

#: Jobs that must have ended before a batch's error rate counts. The store's scripts have the same (`_schema.lua`).
DEFAULT_MIN_ITEMS = 20


class BatchLimits(_Submission):
    """What pauses a batch; every result is kept, and raising the limit resumes it."""

    max_cost_usd: Annotated[float, Field(ge=1e-9, le=1e9, strict=True)] | None = Field(
        None, description="Most US dollars its model calls may cost."
    )
    max_error_rate: Annotated[float, Field(gt=0, le=1, strict=True)] | None = Field(
        None, description="Largest share of failed jobs among those that have run."
    )
    min_items: Annotated[int, Field(ge=1, strict=True)] | None = Field(
        None, description=f"Jobs that must have run before the share counts; {DEFAULT_MIN_ITEMS} by default."
    )


class _Options(_Submission):
    """What a single job and a batch have in common."""

    program: StrictStr | None = Field(None, description="Name of a configured program.")
    model: StrictStr | None = Field(None, description="Short name of a configured model; the program's by default.")
    variant: StrictStr | None = Field(None, description="Name of a variant of the program; assigned by default.")
    parameters: Parameters | None = Field(None, description="Sampling parameters.")
    use_cache: StrictBool | None = Field(None, description="`false` is short for the cache mode `off`.")
    cache: Cache | None = Field(
        None, description='How stored answers are used; a mode alone, as `"off"`, is short for `{"mode": "off"}`.'
    )
    timeout_seconds: PositiveSeconds | None = Field(None, description="Time an attempt may run.")
    expires_in_seconds: PositiveSeconds | None = Field(None, description="Time the job may wait for its start.")
    max_attempts: Annotated[int, Field(ge=1, le=100, strict=True)] | None = Field(None, description="Most attempts.")
    metadata: Metadata | None = Field(
        None, description="Up to 32 values of your own, given back as they are; send integers beyond 64 bits as text."
    )
    request_id: Label | None = Field(None, description="Your id of the request; `X-Request-Id` by default.")

    @model_validator(mode="after")
    def _one_cache_mode(self) -> Self:
        mode = self.cache.mode if self.cache else None
        if self.use_cache is not None and mode is not None and self.use_cache == (mode == "off"):
            said = "false" if mode != "off" else "true"
            raise ValueError(f"`use_cache: {said}` contradicts the cache mode `{mode}`; give one of the two")
        return self

    @model_validator(mode="after")
    def _nothing_of_a_cache_that_is_off(self) -> Self:
        if self.cache is None or not (self.use_cache is False or self.cache.mode == "off"):
            return self
        off = "`use_cache: false`" if self.use_cache is False else "the cache mode `off`"
        for name in ("namespace", "max_age_seconds"):
            if getattr(self.cache, name) is not None:
                raise ValueError(
                    f"{off} neither takes nor stores answers, so `cache.{name}` has no meaning; leave it out"
                )
        return self

    def cache_options(self) -> dict[str, Any]:
        """What was asked of the cache, in the one form a worker reads; empty where nothing was."""
        given = self.cache.model_dump(exclude_none=True) if self.cache else {}
        return given | ({"mode": "off"} if self.use_cache is False else {})


class JobSubmission(_Options):
    """One request to run one program once. `{"model": …, "input": …}` is short for the program `predict`."""

    inputs: Inputs | None = Field(
        None, description="The program's inputs by name; send integers beyond 64 bits as text."
    )
    input: StrictStr | None = Field(None, description="Short form: the input of the built-in program `predict`.")
    priority: Priority = Field(Priority.NORMAL, description="`high`, `normal` or `low`.")
    custom_id: Label | None = Field(None, description="Your id of the job.")

    @model_validator(mode="after")
    def _one_form(self) -> JobSubmission:
        if self.input is not None and (self.inputs is not None or self.program not in (None, BUILT_IN_PROGRAM)):
            raise ValueError("`input` is the short form of the program `predict`; give `program` and `inputs` instead")
        if self.input is None and self.inputs is None:
            raise ValueError("`inputs` is missing: the program's inputs by name")
        if self.input is None and self.program is None:
            raise ValueError("`program` is missing: the name of a program, see GET /v1/programs")
        return self

    def program_inputs(self) -> dict[str, Any]:
        """The inputs by name, whichever form was used."""
        return self.inputs if self.inputs is not None else {"input": self.input}


class BatchSubmission(_Options):
    """What all jobs of a batch share. The items come beside it (JSON) or one a line (NDJSON)."""

    priority: Priority = Field(Priority.LOW, description="`high`, `normal` or `low`.")
    limits: BatchLimits | None = Field(None, description="What pauses the batch.")

    @model_validator(mode="after")
    def _something_to_count_for(self) -> Self:
        if self.limits and self.limits.min_items is not None and self.limits.max_error_rate is None:
            raise ValueError("`limits.min_items` says when `limits.max_error_rate` counts, which is not given; add it")
        return self


#: Either way from 0: whatever is made of some thousands of scores, their squares too, stays a number.
LARGEST_SCORE = 1e15


class ScoreSubmission(_Submission):
    """What a caller thinks of a job's output, as a number."""

    name: Annotated[StrictStr, Field(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}$")] = Field(
        description="What was measured, for example `accuracy`."
    )
    value: Annotated[float, Field(ge=-LARGEST_SCORE, le=LARGEST_SCORE, strict=True, allow_inf_nan=False)] = Field(
        description="How much of it."
    )


class Resumption(_Submission):
    """How a batch goes on."""

    limits: BatchLimits | None = Field(
        None, description="Limits to be replaced; null takes one away, and those left out stay."
    )


class BatchItem(_Submission):
    """One job of a batch."""

    inputs: Inputs | None = None
    input: StrictStr | None = None
    custom_id: Label | None = None
    metadata: Metadata | None = None
    variant: StrictStr | None = None

    @model_validator(mode="after")
    def _has_inputs(self) -> BatchItem:
        if (self.inputs is None) == (self.input is None):
            raise ValueError("give `inputs`, the program's inputs by name (or `input` for the program `predict`)")
        return self

    def program_inputs(self) -> dict[str, Any]:
        """The inputs by name, whichever form was used."""
        return self.inputs if self.inputs is not None else {"input": self.input}
