"""The programs this worker runs: built from the configuration, described for the API."""

from __future__ import annotations

import copy
import hashlib
import importlib
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dspy
import orjson

from dspy_jobs.descriptions import ProgramDescription
from dspy_jobs.settings import ConfigurationError, ProgramSettings, Settings
from worker.failures import described
from worker.schemas import ProgramTypes, types_of
from worker.steps import ADAPTERS

#: Modules that keep nothing of one call for the next, so that threads may share them. Others (BestOfN, Refine,
#: anything of the user's) may change themselves and are copied for each job.
_STATELESS = (dspy.Predict, dspy.ChainOfThought)


@dataclass(frozen=True)
class Program:
    """A program ready to run."""

    description: ProgramDescription
    types: ProgramTypes
    adapter: dspy.Adapter
    module: dspy.Module

    def for_one_job(self) -> dspy.Module:
        """The module for one job: the shared one if that is safe, else a copy of its own."""
        return self.module if type(self.module) in _STATELESS else copy.deepcopy(self.module)


def load_programs(settings: Settings) -> dict[str, Program]:
    """Build every configured program.

    Raises:
        ConfigurationError: programs cannot be built; names each and why.
    """
    base = settings.source.parent if settings.source else Path.cwd()
    if str(base) not in sys.path:
        sys.path.insert(0, str(base))
    built, mistakes = {}, []
    for name, program in settings.programs.items():
        try:
            built[name] = _load(name, program, settings, base)
        except ConfigurationError as mistake:
            mistakes.append(str(mistake))
    if mistakes:
        raise ConfigurationError("\n".join(mistakes))
    return built


def _load(name: str, program: ProgramSettings, settings: Settings, base: Path) -> Program:
    module = _explained(name, lambda: _build(program))
    if program.state is not None:
        _load_state(name, module, base / program.state, program.state_sha256 or "")
    types = _explained(name, lambda: types_of(module))
    description = ProgramDescription(
        name=name,
        version=_version(module, program),
        model=settings.model_of(name),
        description=program.description,
        input_schema=types.input_schema(),
        output_schema=types.output_schema(),
    )
    return Program(description, types, ADAPTERS[program.adapter](), module)


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


def _load_state(name: str, module: dspy.Module, path: Path, sha256: str) -> None:
    """Load a saved JSON state that is exactly the pinned one and fits the program."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"programs.{name}.state: {path} cannot be read: {error.strerror}") from None
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise ConfigurationError(f"programs.{name}.state_sha256: {path} has {found}, not the pinned {sha256}")
    state = _explained(name, lambda: orjson.loads(content))
    expected = {predictor for predictor, _ in module.named_parameters()}
    if missing := expected ^ (set(state) - {"metadata"}):
        raise ConfigurationError(f"programs.{name}.state: does not fit the program; they differ in {sorted(missing)}")
    _explained(name, lambda: module.load_state(state))
    # A state may carry the model it was compiled with, which would then win over the job's.
    module.set_lm(None)


def _version(module: dspy.Module, program: ProgramSettings) -> str:
    """Twelve hex digits over whatever decides what the program does: its code, signatures, state and adapter."""
    parts: dict[str, Any] = {"adapter": program.adapter, "state": program.state_sha256}
    if program.factory is not None:
        parts["source"] = _source(module)
    for name, predictor in module.named_predictors():
        parts[name] = predictor.dump_state(json_mode=True) | {"schema": _fields(predictor.signature)}
    encoded = orjson.dumps(parts, default=str, option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(encoded).hexdigest()[:12]


def _source(module: dspy.Module) -> str:
    if type(module).__module__.startswith("dspy."):
        return type(module).__qualname__
    try:
        return inspect.getsource(type(module))
    except (OSError, TypeError):  # a class without a file, as in a notebook
        return type(module).__qualname__


def _fields(signature: Any) -> list[str]:
    return [f"{name}: {info.annotation!r}" for name, info in signature.fields.items()]
