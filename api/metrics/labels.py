"""Which values labels may have: names that are or were configured, and codes; anything else is `other`.

So the number of series is bounded by what an operator has written down, whatever stands in Redis. A name stays known
once it was configured (`dj:known_names`): its totals would otherwise move to `other` and back, and look as if they had
happened then.
"""

from __future__ import annotations

from collections.abc import Awaitable, Collection, Iterable
from typing import NamedTuple, TypeVar, cast

from api.catalogue import Program
from api.resources import Resources
from dspy_jobs import names
from dspy_jobs.counted import Work
from dspy_jobs.measures import OTHER
from dspy_jobs.problems import CODES
from dspy_jobs.settings import Settings
from dspy_jobs.store.counted import names_of

T = TypeVar("T")

#: Series of a family that are shown as 0 before anything has happened: enough for all that is configured, unless many
#: programs, variants and models are; then what is left out is shown from when it first happens.
MOST_EXPECTED = 2000


class Labels:
    """The names that may be shown, as `store.counted.names_of` writes them."""

    def __init__(self, known_names: Collection[str]) -> None:
        self._known = known_names

    def model(self, name: str) -> str:
        """A model's name."""
        return name if f"model {name}" in self._known else OTHER

    def queue(self, name: str) -> str:
        """A queue's name: one of a known model."""
        return name if self.model(name.removeprefix(names.queue(""))) != OTHER else OTHER

    def work(self, work: Work) -> Work:
        """What jobs are told apart by; '' stands for no variant."""
        program, model, variant = work
        is_known = not variant or f"program {program}|{variant}" in self._known
        return Work(
            program if f"program {program}" in self._known else OTHER,
            self.model(model),
            variant if is_known else OTHER,
        )

    def code(self, code: str) -> str:
        """A problem's code."""
        return code if code in CODES else OTHER


async def labels_of(resources: Resources) -> Labels:
    """What may be shown now: what ever was configured, what is configured here, and what workers have described."""
    kept = cast("Awaitable[set[bytes]]", resources.store.redis.smembers(names.KNOWN_NAMES))
    described = _described_names(await resources.catalogue.all())
    return Labels({name.decode() for name in await kept}.union(names_of(resources.settings), described))


def _described_names(programs: Iterable[Program]) -> list[str]:
    described = [program.description for program in programs]
    variants = [f"program {program.name}|{variant}" for program in described for variant in program.variants]
    return [f"program {program.name}" for program in described] + variants


class Expected(NamedTuple):
    """What may be counted: shown as 0 from the start, for Prometheus sees no increase where a series begins."""

    work: list[Work]
    """What programs run unless asked otherwise, then the same on every other model."""
    models: list[str]
    """Configured models, those that programs run unless asked otherwise before the others."""


async def expected_of(resources: Resources) -> Expected:
    """What may be counted of what is configured here and of what workers have described."""
    return expected(resources.settings, await resources.catalogue.all())


def expected(settings: Settings, programs: Iterable[Program]) -> Expected:
    """See `expected_of`. Callers and fallbacks may choose any model; a variant stays what it is."""
    arms = _configured_arms(settings) | _described_arms(programs)
    usual = [Work(program, model, variant) for (program, variant), model in arms.items()]
    any_model = [Work(program, model, variant) for model in settings.models for program, variant in arms]
    models = dict.fromkeys([*(work.model for work in usual if work.model in settings.models), *settings.models])
    return Expected(list(dict.fromkeys([*usual, *any_model])), list(models))


#: Models by program and variant.
_Arms = dict[tuple[str, str], str]


def _configured_arms(settings: Settings) -> _Arms:
    arms: _Arms = {}
    for name, program in settings.programs.items():
        usual = program.model or settings.default_model
        arms |= {(name, variant): arm.model or usual for variant, arm in program.variants.items()}
        arms |= {} if program.variants else {(name, ""): usual}
    return arms


def _described_arms(programs: Iterable[Program]) -> _Arms:
    arms: _Arms = {}
    for program in (program.description for program in programs):
        arms |= {(program.name, variant): arm.model for variant, arm in program.variants.items()}
        arms |= {} if program.variants else {(program.name, ""): program.model}
    return arms


def first_of(wanted: Iterable[T], series_each: int) -> list[T]:
    """As many as `MOST_EXPECTED` allows a family, if each has so many series."""
    return list(dict.fromkeys(wanted))[: MOST_EXPECTED // series_each]
