"""The programs this worker runs: built from the configuration, described for the API."""

from __future__ import annotations

import copy
import hashlib
import importlib
import sys
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import dspy
import orjson
from pydantic import PydanticSchemaGenerationError, PydanticUserError, TypeAdapter
from pydantic.errors import PydanticInvalidForJsonSchema

from dspy_jobs.descriptions import ProgramDescription, VariantDescription
from dspy_jobs.settings import ConfigurationError, ProgramSettings, Settings, StateSettings, VariantSettings
from worker.failures import described
from worker.schemas import ProgramTypes, types_of
from worker.sources import digest_of_sources
from worker.steps import ADAPTERS

#: Modules that keep nothing of one call for the next, so that threads may share them. Others (BestOfN, Refine,
#: anything of the user's) may change themselves and are copied for each job.
_STATELESS = (dspy.Predict, dspy.ChainOfThought)


@dataclass(frozen=True)
class Arm:
    """A program as one of its variants runs it."""

    version: str
    """Twelve hex digits, see `ProgramDescription.version`."""
    module: dspy.Module
    parameters: dict[str, Any] = field(default_factory=dict)
    """Sampling parameters of its calls, over the model's and under the job's."""

    def for_one_job(self) -> dspy.Module:
        """The module for one job: the shared one if that is safe, else a copy of its own."""
        return self.module if type(self.module) in _STATELESS else copy.deepcopy(self.module)


@dataclass(frozen=True)
class Program:
    """A program ready to run, in as many versions as its variants need."""

    description: ProgramDescription
    types: ProgramTypes
    adapter: dspy.Adapter
    arms: dict[str, Arm]
    """By variant; the one of an empty name runs jobs that have none."""


def load_programs(settings: Settings, *, every_version: bool = False) -> dict[str, Program]:
    """Build every configured program.

    Args:
        settings: the configuration.
        every_version: load also the versions that nothing runs, as a rollback to them would.

    Raises:
        ConfigurationError: programs cannot be built; names each and why.
    """
    base = settings.source.parent if settings.source else Path.cwd()
    if str(base) not in sys.path:
        sys.path.insert(0, str(base))
    built, mistakes = {}, []
    for name, program in settings.programs.items():
        try:
            built[name] = _load(name, program, settings, base, every_version)
        except ConfigurationError as mistake:
            mistakes.append(str(mistake))
    if mistakes:
        raise ConfigurationError("\n".join(mistakes))
    return built


def _load(name: str, program: ProgramSettings, settings: Settings, base: Path, every_version: bool) -> Program:
    plain = _explained(name, lambda: _build(program))
    types = _explained(name, lambda: types_of(plain))
    default = _default_version(program)
    used = {default, *(variant.version or default for variant in program.variants.values())}
    used |= set(program.versions) if every_version else set()
    arms = _arms(name, program, plain, used, base)
    variants = {variant: _variant(arms[v.version or default], v) for variant, v in program.variants.items()}
    model = settings.model_of(name)
    description = ProgramDescription(
        name=name,
        version=arms[default].version,
        version_name=default,
        model=model,
        description=program.description,
        versions={version: arm.version for version, arm in arms.items() if version is not None},
        variants={
            variant: VariantDescription(
                weight=v.weight,
                model=v.model or model,
                version=variants[variant].version,
                version_name=v.version or default,
            )
            for variant, v in program.variants.items()
        },
        input_schema=types.input_schema(),
        output_schema=types.output_schema(),
    )
    return Program(description, types, ADAPTERS[program.adapter](), {"": arms[default], **variants})


def _arms(
    name: str, program: ProgramSettings, plain: dspy.Module, versions: Collection[str | None], base: Path
) -> dict[str | None, Arm]:
    """The program in each of these versions."""
    arms, mistakes = {}, []
    for version in versions:
        try:
            arms[version] = _arm(name, program, plain, version, base)
        except ConfigurationError as mistake:
            mistakes.append(str(mistake))
    if mistakes:
        raise ConfigurationError("\n".join(sorted(mistakes)))
    return arms


def _default_version(program: ProgramSettings) -> str | None:
    """The version of jobs without a variant; if none is configured, that of the heaviest variant."""
    if program.version is not None or not program.versions:
        return program.version
    return max(program.variants.values(), key=lambda variant: variant.weight).version


def _arm(name: str, program: ProgramSettings, plain: dspy.Module, version: str | None, base: Path) -> Arm:
    """The program with a version's state loaded, in a module that no other version shares."""
    pinned, where = _pinned(program), f"programs.{name}"
    if version is not None:
        pinned, where = program.versions[version], f"{where}.versions.{version}"
    if pinned is None:
        return Arm(_version_of(name, plain, program, None), plain)
    module = _explained(name, lambda: copy.deepcopy(plain))
    _load_state(where, module, base / pinned.state, pinned.state_sha256)
    return Arm(_version_of(name, module, program, pinned.state_sha256), module)


def _pinned(program: ProgramSettings) -> StateSettings | None:
    if program.state is None or program.state_sha256 is None:
        return None
    return StateSettings(state=program.state, state_sha256=program.state_sha256)


def _variant(arm: Arm, variant: VariantSettings) -> Arm:
    return replace(arm, parameters=variant.parameters)


def _explained(name: str, build: Callable[[], Any]) -> Any:
    try:
        return build()
    except (Exception, SystemExit) as error:  # the user's own code runs here and may raise anything
        raise ConfigurationError(f"programs.{name}: cannot be built: {described(error)}") from error


def _build(program: ProgramSettings) -> dspy.Module:
    if program.signature is not None:
        return dspy.Predict(dspy.Signature(program.signature, program.instructions))
    assert program.factory is not None, "settings demand a signature or a factory"
    path, _, function = program.factory.partition(":")
    made = getattr(importlib.import_module(path), function)()
    if not isinstance(made, dspy.Module):
        raise TypeError(f"{program.factory} returned {type(made).__name__}, not a dspy.Module")
    return made


def _load_state(where: str, module: dspy.Module, path: Path, sha256: str) -> None:
    """Load a saved JSON state that is exactly the pinned one and fits the program."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{where}.state: {path} cannot be read: {error.strerror}") from None
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise ConfigurationError(f"{where}.state_sha256: {path} has {found}, not the pinned {sha256}")
    try:
        state = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise _unfit(where, f"it is not JSON: {error}") from None
    if misfit := _misfit(module, state):
        raise _unfit(where, misfit)
    try:
        module.load_state(state)
    except Exception as error:  # a file from outside; DSPy does not say how it fails on a wrong one
        raise _unfit(where, f"DSPy cannot load it ({described(error)})") from error
    # A state may carry the model it was compiled with, which would then win over the job's.
    module.set_lm(None)


def _unfit(where: str, why: str) -> ConfigurationError:
    return ConfigurationError(f"{where}.state: does not fit the program: {why}")


def _misfit(module: dspy.Module, state: Any) -> str | None:
    """In what a state differs from the program: DSPy itself loads whatever has predictors of the same names."""
    if not isinstance(state, dict):
        return "it is no JSON object"
    is_bare = isinstance(module, dspy.Predict)
    # A bare predictor saves its own state; every other module one for each of its predictors.
    states = {name: saved for name, saved in state.items() if name != "metadata"}
    expected = {name for name, _ in module.named_parameters()}
    if is_bare is not (_prefixes(state) is not None) or not (is_bare or set(states) == expected):
        return (
            f"the program has {_listed(expected, is_bare)}, the state {_listed(states, _prefixes(state) is not None)}"
        )
    for name, predictor in module.named_predictors():
        ours, theirs = _prefixes(predictor.dump_state()), _prefixes(state if is_bare else states[name])
        # An optimizer may have reworded the last field's prefix, and no other.
        if ours is None or theirs is None or len(theirs) != len(ours) or theirs[:-1] != ours[:-1]:
            of = "" if is_bare else f" of {name!r}"
            return f"the program has the fields{of} {_joined(ours)}, the state {_joined(theirs)}"
    return None


def _listed(predictors: Iterable[str], is_bare: bool) -> str:
    if is_bare:
        return "one predictor without a name, as dspy.Predict"
    return f"the predictors {_joined(sorted(map(repr, predictors)))}"


def _joined(names: Collection[str] | None) -> str:
    return ", ".join(names or ()) or "none"


def _prefixes(state: Any) -> list[str] | None:
    """The fields of a saved predictor, by the words they begin with in a prompt; None if it is no predictor."""
    signature = state.get("signature") if isinstance(state, dict) else None
    fields = signature.get("fields") if isinstance(signature, dict) else None
    if not isinstance(fields, list) or not all(isinstance(field, dict) for field in fields):
        return None
    return [str(field.get("prefix")).removesuffix(":") for field in fields]


def _version_of(name: str, module: dspy.Module, program: ProgramSettings, state_sha256: str | None) -> str:
    version: str = _explained(name, lambda: _version(name, module, program, state_sha256))
    return version


def _version(name: str, module: dspy.Module, program: ProgramSettings, state_sha256: str | None) -> str:
    """Twelve hex digits over whatever decides what the program does.

    Its name, its factory with all code of the user's that this imports, its signatures with their types, the sampling
    parameters of its predictors, its state, its adapter, and DSPy's version. Not what it reads when it is built or run.
    """
    parts: dict[str, Any] = {
        "name": name,
        "factory": program.factory,
        "sources": digest_of_sources(program.factory.partition(":")[0]) if program.factory else None,
        "adapter": program.adapter,
        "state": state_sha256,
        "dspy": dspy.__version__,
        "predictors": {path: _predictor(predictor) for path, predictor in module.named_predictors()},
    }
    encoded = orjson.dumps(parts, default=str, option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(encoded).hexdigest()[:12]


def _predictor(predictor: Any) -> dict[str, Any]:
    fields = {name: _type(info.annotation) for name, info in predictor.signature.fields.items()}
    return {**predictor.dump_state(json_mode=True), "config": predictor.config, "types": fields}


def _type(annotation: Any) -> Any:
    """A field's type with everything the prompt says of it: descriptions, members, defaults."""
    try:
        return TypeAdapter(annotation).json_schema()
    except (PydanticUserError, PydanticInvalidForJsonSchema, PydanticSchemaGenerationError):
        return repr(annotation)
